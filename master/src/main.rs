//! `ld-master`: see `ld-master --help`.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // before anything that may use TLS; an error would mean that one is installed already
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
    ExitCode::from(ld_master::cli::run())
}
