//! `ld-worker`: makes load for a master.

use std::process::ExitCode;

/// Load cores allocate little but often.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // an error means that a provider is installed already: the same one
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    ld_worker::cli::main()
}
