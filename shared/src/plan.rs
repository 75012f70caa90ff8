//! The plan: a test, validated and immutable, as master and workers share it.
//!
//! It travels as its canonical JSON (this crate's serde form, compact) and is named by the digest
//! of those bytes. Task fields that belong to a protocol stay JSON in it, so that a new protocol
//! changes neither this type nor the wire.

use crate::check::{Assertion, Extractor};
use crate::id::Digest;
use crate::load::{Load, Open, Program};
use crate::predicate::Predicate;
use crate::record::RecordPolicy;
use crate::sample::Phase;
use crate::scope::Bindings;
use crate::targets::TargetList;
use crate::template::Template;
use crate::threshold::Selector;
use crate::time::RunTime;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A test.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Seed of every random choice.
    pub seed: u64,
    /// Kinds of users that run at once.
    pub scenarios: Vec<ScenarioPlan>,
    /// Registered variables.
    pub variables: Map<String, Value>,
    /// Values of the environment variables that the plan names, read on the master.
    pub env: BTreeMap<String, String>,
    /// Data sources.
    pub sources: Vec<SourcePlan>,
    /// When starting ends; `None`: when somebody stops the run (or iterations are used up).
    pub test_time: Option<RunTime>,
    /// Samples intended before this instant belong to the warm-up.
    pub warmup: RunTime,
    /// How long requests that are open at the end may take.
    pub graceful_stop: RunTime,
    /// Total of iterations over the cluster.
    pub iterations: Option<u64>,
    /// Which requests are kept.
    pub records: RecordPolicy,
    /// Limits on the rate of requests of the whole test and of its scenarios; tasks hold their own.
    /// All of them together: [`Plan::limits`].
    #[serde(default)]
    pub throttles: Vec<ThrottlePlan>,
    /// The user that runs [`Self::setup`] and [`Self::teardown`]; `None`: there are none.
    #[serde(default)]
    pub stage: Option<ScenarioPlan>,
    /// Run once before the test on one worker; what is extracted goes to all users.
    #[serde(default)]
    pub setup: Vec<TaskPlan>,
    /// Run once after the test on one worker.
    #[serde(default)]
    pub teardown: Vec<TaskPlan>,
    /// The run is a setup: `on_start` ends with its first failure, and what it extracted is sent to
    /// the master.
    #[serde(default)]
    pub collect: bool,
    /// Series of which service time and lag are kept apart from all others, because a rule asks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub details: Vec<Selector>,
    /// What becomes of the share of a worker that is lost.
    #[serde(default)]
    pub on_worker_loss: WorkerLoss,
    /// What workers do when their master is gone for good.
    #[serde(default)]
    pub on_master_loss: MasterLoss,
    /// Which targets may be loaded: each list must allow one. None: all may. A worker adds its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow_targets: Vec<TargetList>,
    /// Blob with the values of `${secret.NAME}`: the JSON form of [`crate::secrets::SecretBlob`]. Not
    /// in the plan, which is stored.
    pub secrets: Option<Digest>,
}

/// What becomes of the share of a worker that is lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkerLoss {
    /// The others take it over.
    #[default]
    Redistribute,
    /// Nobody makes it; if the worker comes back, it does.
    Degrade,
    /// The test ends.
    Abort,
}

/// What workers do when their master is gone for good.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MasterLoss {
    /// Start nothing more.
    #[default]
    Stop,
    /// Run the plan to its end.
    Finish,
}

/// A limit on the rate of requests that share a key. The number means the cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ThrottlePlan {
    /// What requests of this limit have in common.
    pub key: Arc<str>,
    /// Requests per second over the cluster.
    pub rate: f64,
    /// Requests that may follow one another at once after a pause.
    pub burst: u64,
    /// Which requests it counts.
    #[serde(default)]
    pub covers: Covers,
}

/// Which requests a limit counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Covers {
    /// Those of tasks with its key.
    #[default]
    Tasks,
    /// Those of the scenario with this index.
    Scenario(u32),
    /// All.
    Test,
}

/// How often a request is tried again, by kind of failure, and how long users pause before.
///
/// Pause before retry *n* (from 0): `min(base_delay · backoff_factor^n, max_delay)`, times
/// `1 ± jitter`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct RetryPlan {
    /// Retries of transport errors and of statuses 408, 425, 429, 502, 503, 504.
    pub transient: u32,
    /// Retries of other statuses from 500 on, and of failed assertions.
    pub flaky: u32,
    /// Retries of all other failures.
    pub permanent: u32,
    /// Seconds.
    pub base_delay: f64,
    /// Seconds.
    pub max_delay: f64,
    /// Factor from one pause to the next.
    pub backoff_factor: f64,
    /// Share of the pause by which it varies, 0..1.
    pub jitter: f64,
}

/// One kind of users.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScenarioPlan {
    /// Its name.
    pub name: Arc<str>,
    /// Key of its users' protocol: `fast_http_user`.
    pub user: Arc<str>,
    /// How much load, and when.
    pub load: Load,
    /// Number of its first user or arrival: numbers run on through the scenarios, so that small
    /// ones don't all begin on lane 0.
    pub first_number: u64,
    /// How an iteration chooses its tasks.
    pub mode: Mode,
    /// Its tasks.
    pub tasks: Vec<TaskPlan>,
    /// Run by each user before its first iteration.
    #[serde(default)]
    pub on_start: Vec<TaskPlan>,
    /// Run by each user after its last iteration.
    #[serde(default)]
    pub on_stop: Vec<TaskPlan>,
    /// Pause after each iteration (closed model), uniform between both ends, seconds.
    pub wait_time: Option<(f64, f64)>,
    /// Default target.
    pub host: Option<Arc<str>>,
    /// Who shares connections.
    pub connections: Connections,
    /// Time-out for connecting, seconds.
    pub connect_timeout: f64,
    /// Time-out of a request, seconds, unless its task has its own.
    pub request_timeout: f64,
    /// TLS settings.
    pub tls: TlsPlan,
    /// Version of HTTP.
    #[serde(default)]
    pub http_version: HttpVersion,
    /// Options of its protocols: what stands in `user_detail_dict` beside `user`.
    #[serde(default)]
    pub options: Map<String, Value>,
    /// Whether the status of an answer counts beside assertions.
    pub status_check: StatusCheck,
}

/// How an iteration chooses its tasks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Every task in order whose conditions hold.
    #[default]
    Sequence,
    /// One task by weight.
    Weighted,
}

/// Who shares connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Connections {
    /// Each user has its own and keeps it.
    #[default]
    PerUser,
    /// So many over the whole cluster.
    Shared(u64),
    /// Opened anew for each iteration.
    PerIteration,
    /// Opened anew for each request.
    PerRequest,
}

/// Which version of HTTP a scenario speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum HttpVersion {
    /// What the target offers in the TLS handshake, HTTP/2 first; without TLS HTTP/1.1.
    #[default]
    #[serde(rename = "auto")]
    Auto,
    /// HTTP/1.1.
    #[serde(rename = "1.1")]
    H1,
    /// HTTP/2: by ALPN over TLS, without TLS by prior knowledge.
    #[serde(rename = "2")]
    H2,
    /// HTTP/3.
    #[serde(rename = "3")]
    H3,
}

/// Whether an answer's status counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StatusCheck {
    /// A status of 400 or more fails unless a `status_code` assertion accepts it.
    #[default]
    Always,
    /// The seed's rule: with assertions or extractors only they decide.
    Assertions,
}

/// TLS settings. Certificates are blobs, read on the master.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TlsPlan {
    /// Whether the target's certificate is checked.
    pub verify: bool,
    /// PEM of trusted authorities; `None`: those of the worker's system.
    pub ca: Option<Digest>,
    /// PEM of the client certificate chain.
    pub certificate: Option<Digest>,
    /// PEM of its key.
    pub key: Option<Digest>,
}

impl Default for TlsPlan {
    fn default() -> Self {
        Self { verify: true, ca: None, certificate: None, key: None }
    }
}

/// One task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskPlan {
    /// Its explicit name; placeholders expand fully in it.
    pub name: Option<String>,
    /// Key of its protocol, if not that of its scenario.
    pub user: Option<Arc<str>>,
    /// Weight in [`Mode::Weighted`].
    pub weight: u64,
    /// Runs only if this holds.
    pub run_if: Option<Predicate>,
    /// Does not run if this holds.
    pub skip_if: Option<Predicate>,
    /// What must hold of the answer.
    pub assertions: Vec<Assertion>,
    /// What is taken from the answer.
    pub extract: Vec<Extractor>,
    /// Pause after the task, uniform between both ends, seconds.
    pub think_time: Option<(f64, f64)>,
    /// Whether the answer's status counts; `None`: as the scenario says.
    pub status_check: Option<StatusCheck>,
    /// Limit on its rate, shared by all tasks with the same key.
    pub throttle: Option<ThrottlePlan>,
    /// How it is tried again when it fails.
    pub retry: Option<RetryPlan>,
    /// It is malformed and the document is run leniently: it fails each time, sending nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<Refused>,
    /// The fields that belong to its protocol.
    pub fields: Map<String, Value>,
}

/// What is recorded of a malformed task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// `WS`, `GRPC`, …
    pub request_type: Arc<str>,
    /// Its name, unless the task gives one.
    pub name: Arc<str>,
    /// Why it fails.
    pub reason: Arc<str>,
}

/// A data source. Its rows are a blob: the JSON form of [`SourceRows`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SourcePlan {
    /// Its name.
    pub name: Arc<str>,
    /// Names of its columns.
    pub columns: Vec<String>,
    /// Number of rows.
    pub rows: u64,
    /// Digest of the rows.
    pub blob: Digest,
    /// How rows are dealt.
    pub dealing: Dealing,
}

/// Rows of a data source; short rows lack their last columns.
pub type SourceRows = Vec<Vec<String>>;

/// How the rows of a source are dealt to iterations: always one row per source and iteration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dealing {
    /// Over and over, each iteration's row a function of its number.
    Cycle,
    /// Each row once over the whole cluster, by tickets.
    Once(AtEnd),
}

/// What happens when a source that is dealt once has no row left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AtEnd {
    /// The placeholder's text stays.
    #[default]
    Placeholder,
    /// The user that finds no row ends.
    StopUser,
    /// The test ends.
    StopTest,
}

impl ScenarioPlan {
    /// Its tasks, those of its hooks among them.
    pub fn all_tasks(&self) -> impl Iterator<Item = &TaskPlan> {
        self.on_start.iter().chain(&self.tasks).chain(&self.on_stop)
    }

    /// Seed of its arrivals, if they are random: scenarios of equal rate must not make equal streams.
    pub fn arrival_seed(&self, plan: &Plan) -> u64 {
        plan.seed ^ self.first_number.rotate_left(17)
    }
}

impl Plan {
    /// Every task: those of the scenarios, of their hooks, and of the test's.
    pub fn all_tasks(&self) -> impl Iterator<Item = &TaskPlan> {
        self.setup.iter().chain(self.scenarios.iter().flat_map(ScenarioPlan::all_tasks)).chain(&self.teardown)
    }

    /// Fills in what hosts name of the environment and of registered variables. Tasks alone take
    /// placeholders of every kind; a target must be the same for all users.
    pub fn resolve_hosts(&mut self, bindings: &Bindings) {
        for scenario in self.scenarios.iter_mut().chain(&mut self.stage) {
            scenario.host = scenario.host.as_deref().map(|host| Template::compile_name(host, bindings).into());
        }
    }

    /// The plan as a program changes its loads.
    #[must_use]
    pub fn with(&self, program: &Program) -> Self {
        let mut plan = self.clone();
        for (index, scenario) in (0..).zip(&mut plan.scenarios) {
            scenario.load = program.load(index, &scenario.load);
        }
        plan
    }

    /// How many arrivals of an open scenario [`Self::iterations`] leaves, at most.
    ///
    /// Of several scenarios those count that come first: each is left what it plans until the
    /// instant by which all of them together plan that many.
    pub fn most_arrivals(&self, scenario: &ScenarioPlan) -> Option<u64> {
        let total = self.iterations?;
        let open: Vec<(u64, &Open)> =
            self.scenarios.iter().filter_map(|s| Some((s.first_number, s.load.open()?))).collect();
        if open.len() < 2 {
            return Some(total);
        }
        let planned = |t| open.iter().map(|(_, load)| load.first_at(RunTime(t))).sum::<u64>();
        let (mut low, mut high) = (0, self.end().0);
        if planned(high) <= total {
            return None;
        }
        // the last instant at which all together plan no more than the total
        while low + 1 < high {
            let middle = low + (high - low) / 2;
            if planned(middle) <= total { low = middle } else { high = middle }
        }
        // several may be due in the nanosecond that exceeds it: the first scenarios get theirs
        let mut left = total - planned(low);
        for (first_number, load) in open {
            let own = load.first_at(RunTime(low));
            let more = load.first_at(RunTime(high)).saturating_sub(own).min(left);
            if first_number == scenario.first_number {
                return Some(own + more);
            }
            left -= more;
        }
        None
    }

    /// The canonical JSON.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a plan holds only types with a JSON form")
    }

    /// When starting ends at the latest.
    pub fn end(&self) -> RunTime {
        self.test_time.unwrap_or(RunTime::MAX)
    }

    /// The phase of a sample intended at `t`.
    pub fn phase_at(&self, t: RunTime) -> Phase {
        if t < self.warmup { Phase::Warmup } else { Phase::Main }
    }

    /// Ticket pools of the plan, in this order: closed-model iterations (if limited), then each
    /// source that is dealt once.
    pub fn pools(&self) -> Vec<(Pool, u64)> {
        let closed = self.scenarios.iter().any(|s| matches!(s.load, Load::Closed(_)));
        let iterations = self.iterations.filter(|_| closed).map(|n| (Pool::Iterations, n));
        let sources = self.sources.iter().enumerate().filter(|(_, s)| matches!(s.dealing, Dealing::Once(_)));
        iterations.into_iter().chain(sources.map(|(i, s)| (Pool::Source(i as u32), s.rows))).collect()
    }
}

/// A pool of tickets: things that exist once in the cluster and are dealt on demand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Pool {
    /// Iterations of the closed model.
    Iterations,
    /// Rows of the source with this index in [`Plan::sources`].
    Source(u32),
}
