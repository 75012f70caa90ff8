//! The truth target alone.
use clap::Parser;
#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    target: ld_master::target::TargetArgs,
}
fn main() {
    ld_master::target::run(&Cli::parse().target, async { tokio::signal::ctrl_c().await.unwrap() }).unwrap();
}
