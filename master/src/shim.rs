//! Stands in for what other branches bring, with their signatures. To hook up: delete this file
//! and its `mod` line, then replace
//!
//! | here | there |
//! |---|---|
//! | `crate::shim::{fault, threshold}` | `ld_shared::{fault, threshold}` |
//! | `crate::shim::script` | `crate::script` |
//! | `crate::shim::start_test` | `crate::command::start_test` |
//! | `crate::shim::cluster` | `crate::cluster` |
//! | `crate::shim::target` | `crate::target` |
#![expect(missing_docs, clippy::type_complexity, reason = "documented where it is built")]

pub mod fault {
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Fault {
        pub pointer: String,
        pub message: String,
        pub help: Option<String>,
    }

    impl Fault {
        pub fn new(pointer: impl Into<String>, message: impl Into<String>) -> Self {
            Self { pointer: pointer.into(), message: message.into(), help: None }
        }
    }

    impl std::fmt::Display for Fault {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            write!(f, "error: {} at {}", self.message, self.pointer)?;
            self.help.iter().try_for_each(|help| write!(f, "\n help: {help}"))
        }
    }
}

pub mod threshold {
    use super::fault::Fault;
    use ld_shared::snapshot::PhaseSnapshot;

    #[derive(Clone, Debug, PartialEq)]
    pub struct Threshold(String);

    #[derive(Clone, Copy, Debug)]
    pub struct Facts<'a> {
        pub main: &'a PhaseSnapshot,
        pub started: u64,
        pub due: u64,
        pub dropped: u64,
        pub seconds: f64,
    }

    #[derive(Clone, Copy, Debug, PartialEq)]
    pub struct Observed {
        pub value: f64,
        pub ok: bool,
    }

    impl Threshold {
        pub fn parse(rule: &str) -> Result<Self, Fault> {
            Ok(Self(rule.into()))
        }

        pub fn rule(&self) -> &str {
            &self.0
        }

        pub fn names_failures(&self) -> bool {
            self.0.starts_with("failure")
        }

        pub fn evaluate(&self, facts: &Facts<'_>) -> Observed {
            let value = facts.main.response().percentile(95.0) as f64 / 1e3;
            Observed { value, ok: value < 1e3 }
        }
    }
}

pub mod script {
    use super::fault::Fault;
    use serde_json::{Map, Value};

    #[derive(Clone, Copy, Debug)]
    pub struct CommandSpec {
        pub name: &'static str,
        pub parameters: &'static [Parameter],
        pub check: Option<fn(&Map<String, Value>, &str, &mut Vec<Fault>)>,
    }

    #[derive(Clone, Copy, Debug)]
    pub struct Parameter {
        pub name: &'static str,
        pub kind: Kind,
        pub required: bool,
        pub positional: bool,
    }

    impl Parameter {
        pub const fn new(name: &'static str, kind: Kind) -> Self {
            Self { name, kind, required: false, positional: true }
        }

        #[must_use]
        pub const fn required(self) -> Self {
            Self { required: true, ..self }
        }
    }

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Kind {
        Text,
        Boolean,
        Object,
        List,
        Any,
    }

    pub struct Document {
        pub actions: Vec<Action>,
    }

    pub struct Action {
        pub index: usize,
        pub name: String,
        pub arguments: Value,
    }

    impl Action {
        pub fn named(&self, _spec: &CommandSpec) -> Map<String, Value> {
            self.arguments.as_object().cloned().unwrap_or_default()
        }
    }

    pub fn read(bytes: &[u8], commands: &[CommandSpec]) -> Result<Document, Vec<Fault>> {
        let fault = |e: serde_json::Error| vec![Fault::new("", e.to_string())];
        let value: Vec<Vec<Value>> = serde_json::from_slice(bytes).map_err(fault)?;
        let action = |(index, mut a): (usize, Vec<Value>)| Action {
            index,
            arguments: if a.len() > 1 { a.remove(1) } else { Value::Null },
            name: a[0].as_str().unwrap_or_default().into(),
        };
        let actions: Vec<Action> = value.into_iter().enumerate().map(action).collect();
        let unknown = actions.iter().filter(|a| commands.iter().all(|c| c.name != a.name));
        let faults: Vec<Fault> =
            unknown.map(|a| Fault::new(format!("/{}/0", a.index), format!("unknown command `{}`", a.name))).collect();
        if faults.is_empty() { Ok(Document { actions }) } else { Err(faults) }
    }
}

pub mod start_test {
    use super::fault::Fault;
    use super::script::{CommandSpec, Kind, Parameter};
    use super::threshold::Threshold;
    use bytes::Bytes;
    use ld_shared::id::Digest;
    use ld_shared::plan::{Plan, SourceRows};
    use serde::Deserialize;
    use serde_json::{Map, Value};
    use std::collections::BTreeMap;
    use std::path::Path;
    use std::sync::Arc;

    #[derive(Deserialize)]
    #[serde(transparent)]
    pub struct StartTest(pub Map<String, Value>);

    impl StartTest {
        pub fn outcome(&self) -> Value {
            Value::Object(self.0.clone())
        }
    }

    pub const SPEC: CommandSpec = CommandSpec {
        name: "LD_start_test",
        parameters: &[Parameter::new("user_detail_dict", Kind::Object).required()],
        check: None,
    };

    pub struct CompileContext<'a> {
        pub variables: &'a Map<String, Value>,
        pub sources: &'a [CsvSource],
    }

    pub struct CsvOrder(String);

    #[derive(Clone, Debug)]
    pub struct CsvSource {
        pub name: Arc<str>,
        pub columns: Vec<String>,
        pub rows: Arc<SourceRows>,
    }

    impl CsvOrder {
        pub fn read(value: &Value, _pointer: &str, _faults: &mut Vec<Fault>) -> Option<Self> {
            value.get("name").and_then(Value::as_str).map(|name| Self(name.into()))
        }

        pub fn load(&self, _base: &Path) -> Result<CsvSource, Fault> {
            Ok(CsvSource { name: self.0.as_str().into(), columns: Vec::new(), rows: Arc::default() })
        }
    }

    pub struct Compiled {
        pub plan: Arc<Plan>,
        pub blobs: BTreeMap<Digest, Bytes>,
        pub thresholds: Vec<Threshold>,
        pub warnings: Vec<String>,
        pub allow_missing_workers: bool,
    }

    pub fn compile(_test: StartTest, _context: &CompileContext<'_>) -> Result<Compiled, Vec<Fault>> {
        Err(vec![Fault::new("", "the language is not built in")])
    }
}

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
