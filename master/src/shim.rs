//! Stands in for what other branches bring, with their signatures. To hook up: delete this file
//! and its `mod` line, then replace
//!
//! | here | there |
//! |---|---|
//! | `crate::shim::cluster` | `crate::cluster` |
//! | `crate::shim::target` | `crate::target` |
#![expect(missing_docs, reason = "documented where it is built")]

pub mod cluster {
    use crate::run::{Measured, Progress};
    use bytes::Bytes;
    use ld_shared::id::Digest;
    use ld_shared::plan::Plan;
    use std::collections::BTreeMap;
    use std::net::SocketAddr;
    use std::sync::Arc;
    use std::time::Duration;
    use tokio::sync::watch;
    use tokio_util::sync::CancellationToken;

    #[derive(Clone, Debug)]
    pub struct ClusterOptions {
        pub bind: Option<SocketAddr>,
        pub local_cores: Option<usize>,
        pub expected_workers: u32,
        pub wait: Duration,
    }

    pub struct RunOrder {
        pub plan: Arc<Plan>,
        pub digest: Digest,
        pub blobs: BTreeMap<Digest, Bytes>,
        pub allow_missing_workers: bool,
    }

    #[derive(Clone, Debug, Default)]
    pub struct RunControl {
        pub stop: CancellationToken,
        pub abort: CancellationToken,
    }

    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    pub struct RunError(pub String);

    pub struct Cluster;

    impl Cluster {
        pub async fn open(_options: ClusterOptions) -> Result<Self, RunError> {
            Ok(Self)
        }

        pub async fn run(
            &self,
            _order: RunOrder,
            _control: RunControl,
            _progress: watch::Sender<Arc<Progress>>,
        ) -> Result<Measured, RunError> {
            Err(RunError("the cluster is not built in".into()))
        }

        pub async fn close(self) {}
    }
}

pub mod target {
    use std::net::SocketAddr;
    use std::time::Duration;

    #[derive(clap::Args, Clone, Debug)]
    pub struct TargetArgs {}

    #[derive(Clone, Copy, Debug)]
    pub enum Law {
        Zero,
        LogNormal(Duration, f64),
    }

    #[derive(Clone, Debug)]
    pub struct Options {
        pub latency: Law,
        pub body_bytes: usize,
        pub threads: usize,
    }

    impl Default for Options {
        fn default() -> Self {
            Self { latency: Law::Zero, body_bytes: 2, threads: 0 }
        }
    }

    #[derive(Debug, thiserror::Error)]
    #[error("the target is not built in")]
    pub struct TargetError;

    pub struct Target;

    impl Drop for Target {
        fn drop(&mut self) {}
    }

    impl Target {
        pub fn start(_options: Options) -> Result<Self, TargetError> {
            Err(TargetError)
        }

        pub fn addr(&self) -> SocketAddr {
            SocketAddr::from(([127, 0, 0, 1], 0))
        }
    }

    pub fn run(_args: &TargetArgs, _stop: impl Future<Output = ()>) -> Result<(), TargetError> {
        Err(TargetError)
    }
}
