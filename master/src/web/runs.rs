//! Runs: started, listed, shown, ended, compared.

use super::problem::{self, Code, Problem};
use super::route::{Call, apart, json, no_json};
use super::{Web, kept};
use crate::compare::evidence::Evidence;
use crate::compare::report::{Side, report};
use crate::compare::{Metric, Options};
use crate::executor::{masked, records};
use crate::redact;
use crate::remote::{Finished, Job, JobState, Now, Order, SubmitError};
use crate::report::Findings;
use crate::run::Run;
use crate::run::result::RunResult;
use crate::run::verdict::{Verdict, exit};
use crate::script::Strictness;
use crate::store::Kept;
use axum::response::Response;
use http::header::{LOCATION, RETRY_AFTER};
use http::{HeaderValue, StatusCode};
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use std::sync::Arc;

/// The run that goes on.
pub(super) const CURRENT: &str = "current";
/// What ids of jobs begin with: numbers alone are those of kept runs.
const JOB: &str = "job-";

/// What an id means.
pub(super) enum Subject {
    /// A document from outside.
    Job(Arc<Job>),
    /// The test that goes on, which is none of ours.
    Now(Box<Now>),
    /// A run of this process that is over.
    Over(Arc<Run>),
    /// A run of the store.
    Kept(Box<Kept>),
}

impl Subject {
    /// The one of an id.
    pub(super) async fn find(web: &Web, id: &str) -> Result<Self, Problem> {
        let now = web.app.now();
        if id == CURRENT {
            let job = web.app.jobs().into_iter().find(|job| matches!(job.state(), JobState::Running));
            let now = now.map(|now| Self::Now(Box::new(now)));
            return job.map(Self::Job).or(now).ok_or_else(|| Problem::new(Code::NothingRuns, "no test goes on"));
        }
        let number = id.strip_prefix(JOB).and_then(|number| number.parse().ok());
        if let Some(job) = number.and_then(|number| web.app.job(number)) {
            return Ok(Self::Job(job));
        }
        if let Some(now) = now.filter(|now| now.run.to_string() == id) {
            return Ok(Self::Now(Box::new(now)));
        }
        let over = web.app.state().runs.find(id);
        match over {
            Some(run) => Ok(Self::Over(run)),
            None => kept::find(web, id).await.map(|kept| Self::Kept(Box::new(kept))),
        }
    }

    /// Its test, if it goes on.
    pub(super) fn now(&self, web: &Web) -> Option<Now> {
        let now = web.app.now()?;
        match self {
            Self::Job(job) => matches!(job.state(), JobState::Running).then_some(now),
            Self::Now(known) => (known.run == now.run).then_some(now),
            Self::Over(_) | Self::Kept(_) => None,
        }
    }

    /// What its runs that are over found; `None`: there are none, or they are known by their result alone.
    pub(super) fn findings(&self) -> Option<Findings> {
        let (runs, verdict) = match self {
            Self::Job(job) => (job.runs(), verdict(job)),
            Self::Over(run) => (vec![Arc::clone(run)], run.verdict.clone()),
            Self::Now(_) | Self::Kept(_) => return None,
        };
        (!runs.is_empty()).then(|| Findings { result: RunResult::of(&runs, verdict), runs })
    }

    fn json(&self, web: &Web) -> Value {
        let mut value = match self {
            Self::Job(job) => {
                let mut value = line(job);
                value["kind"] = "job".into();
                value["position"] = position(web, job).into();
                if let JobState::Finished(finished) = job.state() {
                    value["actions"] = actions(&finished);
                    value["verdict"] = json!(verdict(job));
                }
                value
            }
            Self::Now(now) => json!({
                "id": now.run.to_string(), "kind": "run", "state": "running", "label": now.label, "by": now.by,
            }),
            Self::Over(run) => json!({
                "id": run.measured.run.to_string(), "kind": "run", "state": "finished", "label": run.label,
                "verdict": run.verdict,
            }),
            Self::Kept(kept) => json!({
                "id": kept.saved.id.to_string(), "kind": "kept", "state": "finished", "label": kept.saved.label,
                "plan": kept.plan, "verdict": kept.result["verdict"],
            }),
        };
        value["test"] = self.now(web).as_ref().map_or(Value::Null, test);
        value["result"] = match self {
            Self::Kept(kept) => kept.result.clone(),
            _ => self.findings().map_or(Value::Null, |findings| result(&findings.result)),
        };
        value
    }
}

/// A result without secrets.
pub(super) fn result(result: &RunResult) -> Value {
    let mut value = json!(result);
    redact::result(&mut value);
    value
}

/// The test that goes on: where it stands, and what can be changed of it.
pub(super) fn test(now: &Now) -> Value {
    let progress = Arc::clone(&now.progress.borrow());
    let [p50, p95, p99] = progress.percentiles.map(|us| us as f64 / 1e3);
    let scenario = |(index, scenario): (usize, &ld_shared::plan::ScenarioPlan)| json!({"index": index, "name": &*scenario.name, "user": &*scenario.user, "model": scenario.load.model()});
    json!({
        "run": now.run.to_string(),
        "label": now.label,
        "by": now.by,
        "state": if progress.state.is_empty() { "preparing" } else { progress.state },
        "elapsed_s": progress.elapsed_s,
        "planned_s": progress.planned_s,
        "users": progress.users,
        "requests_per_s": progress.rate,
        "p50_ms": p50,
        "p95_ms": p95,
        "p99_ms": p99,
        "requests": progress.requests,
        "failures": progress.failures,
        "workers": progress.workers[0],
        "expected_workers": progress.workers[1],
        "present": progress.present,
        "scenarios": now.plan.scenarios.iter().enumerate().map(scenario).collect::<Vec<_>>(),
    })
}

/// Starts a document.
pub(super) async fn start(web: Arc<Web>, call: Call) -> Result<Response, Problem> {
    if let Some(why) = web.options.starts_nothing {
        return Err(Problem::new(Code::StartsNothing, why));
    }
    let job = apart(move || submit(&web, call)).await?;
    let mut response = json(StatusCode::ACCEPTED, &line(&job));
    let place = HeaderValue::try_from(format!("/api/v1/runs/{JOB}{}", job.id)).expect("digits may stand in headers");
    response.headers_mut().insert(LOCATION, place);
    Ok(response)
}

fn submit(web: &Web, call: Call) -> Result<Arc<Job>, Problem> {
    is_json(&call.body)?;
    let order = Order {
        strictness: strictness(&call),
        label: call.text("label").map(str::to_owned),
        by: call.by,
        policy: Some(Arc::clone(&web.options.policy)),
        document: call.body.into(),
    };
    web.app.submit(order).map_err(|error| refused(&error))
}

/// Lists the test that goes on, documents from outside, and kept runs.
pub(super) async fn list(web: Arc<Web>, call: Call) -> Result<Response, Problem> {
    let kept = kept::list(&web, call.whole("limit").unwrap_or(20)).await?;
    let jobs: Vec<Value> = web.app.jobs().iter().map(|job| line(job)).collect();
    let current = web.app.now().as_ref().map_or(Value::Null, test);
    Ok(json(StatusCode::OK, &json!({"current": current, "jobs": jobs, "kept": kept})))
}

/// Shows one.
pub(super) async fn show(web: Arc<Web>, call: Call) -> Result<Response, Problem> {
    let subject = Subject::find(&web, call.id()).await?;
    Ok(json(StatusCode::OK, &subject.json(&web)))
}

/// Ends one: open requests may end.
pub(super) async fn stop(web: Arc<Web>, call: Call) -> Result<Response, Problem> {
    end(&web, &call, false).await
}

/// Ends one at once.
pub(super) async fn abort(web: Arc<Web>, call: Call) -> Result<Response, Problem> {
    end(&web, &call, true).await
}

async fn end(web: &Web, call: &Call, at_once: bool) -> Result<Response, Problem> {
    let subject = Subject::find(web, call.id()).await?;
    let over = || Problem::new(Code::NotRunning, format!("`{}` is over", call.id())).param("run", call.id());
    let control = match &subject {
        Subject::Job(job) if matches!(job.state(), JobState::Finished(_)) => return Err(over()),
        Subject::Job(job) => &job.caller.control,
        Subject::Now(now) => &now.control,
        Subject::Over(_) | Subject::Kept(_) => return Err(over()),
    };
    control.stop.cancel();
    if at_once {
        control.abort.cancel();
    }
    let how = if at_once { "aborted" } else { "stopped" };
    web.app.console.note(&format!("{how} by {}", call.by));
    Ok(json(StatusCode::ACCEPTED, &subject.json(web)))
}

/// Compares two.
pub(super) async fn compare(web: Arc<Web>, call: Call) -> Result<Response, Problem> {
    let [a, b] = ["a", "b"].map(|name| call.text(name).unwrap_or_default());
    let (a, b) = (Compared::find(&web, a).await?, Compared::find(&web, b).await?);
    let threshold = call.number("threshold_percent").map_or(Options::default().threshold, |percent| percent / 100.0);
    let (_, mut value) = report(a.side(), b.side(), Options { threshold, ..Options::default() });
    value["metrics"] = Metric::ALL.map(Metric::name).to_vec().into();
    Ok(json(StatusCode::OK, &value))
}

/// A run that can be compared.
struct Compared {
    name: String,
    label: Option<String>,
    started_at: Option<String>,
    plan: Option<Value>,
    result: Value,
    evidence: Evidence,
}

impl Compared {
    async fn find(web: &Web, id: &str) -> Result<Self, Problem> {
        let subject = Subject::find(web, id).await?;
        if let Subject::Kept(kept) = subject {
            let Kept { saved, plan, result, evidence } = *kept;
            let name = format!("run {}", saved.id);
            return Ok(Self { name, label: saved.label, started_at: Some(saved.started_at), plan, result, evidence });
        }
        let none = || Problem::new(Code::NoEvidence, format!("no test of `{id}` is over")).param("run", id);
        let findings = subject.findings().ok_or_else(none)?;
        let last = findings.runs.last().ok_or_else(none)?;
        let result = result(&findings.result);
        Ok(Self {
            name: id.to_owned(),
            label: last.label.clone(),
            started_at: result["run"]["started_at"].as_str().map(str::to_owned),
            plan: Some(redact::plan(&last.measured.plan.to_json())),
            evidence: Evidence::of(&findings.runs, &findings.result),
            result,
        })
    }

    fn side(&self) -> Side<'_> {
        Side {
            name: &self.name,
            label: self.label.as_deref(),
            started_at: self.started_at.as_deref(),
            plan: self.plan.as_ref(),
            result: &self.result,
            evidence: &self.evidence,
        }
    }
}

/// How a document is to be taken.
fn strictness(call: &Call) -> Strictness {
    if call.flag("lenient") { Strictness::Lenient } else { Strictness::Strict }
}

/// Whether a document's bytes are JSON at all.
fn is_json(body: &[u8]) -> Result<(), Problem> {
    serde_json::from_slice::<IgnoredAny>(body).map(drop).map_err(|error| no_json(body, &error))
}

fn refused(error: &SubmitError) -> Problem {
    match error {
        SubmitError::Faults(faults) => Problem::faults(Code::Faults, faults),
        SubmitError::Full { waiting, running } => Problem::new(Code::TooMany, error.to_string())
            .param("waiting", *waiting)
            .param("running", running.as_str())
            .header(RETRY_AFTER, HeaderValue::from_static("5")),
        SubmitError::Ending => Problem::new(Code::StartsNothing, error.to_string()),
    }
}

/// A job as lists have it.
fn line(job: &Job) -> Value {
    let mut value = json!(job.line());
    value["id"] = format!("{JOB}{}", job.id).into();
    value
}

/// How many come before it.
fn position(web: &Web, job: &Job) -> Option<usize> {
    matches!(job.state(), JobState::Queued).then(|| {
        let jobs = web.app.jobs();
        jobs.iter().filter(|other| other.id < job.id && !matches!(other.state(), JobState::Finished(_))).count()
    })
}

/// What became of its actions.
fn actions(finished: &Finished) -> Value {
    finished.outcomes.iter().map(|outcome| masked(&records::line(outcome))).collect()
}

/// On all that a job did, and on what went wrong beside its runs.
pub(super) fn verdict(job: &Job) -> Verdict {
    let (outcomes, code) = match job.state() {
        JobState::Finished(finished) => (finished.outcomes.clone(), finished.exit_code),
        JobState::Queued | JobState::Running => (Vec::new(), exit::PASSED),
    };
    let failed = |(place, error): (String, _)| format!("{place} failed: {error}");
    let errors = outcomes.iter().flat_map(crate::executor::Outcome::errors).map(failed);
    let runs = job.runs();
    let code = runs.iter().map(|run| run.verdict.exit_code).fold(code, exit::worse);
    let reasons = runs.iter().flat_map(|run| run.verdict.reasons.clone());
    let thresholds = runs.iter().flat_map(|run| run.verdict.thresholds.clone()).collect();
    Verdict::new(code, errors.collect::<Vec<_>>().into_iter().chain(reasons).collect(), thresholds)
}

/// What is wrong with a document, without running it.
pub(super) async fn validate(web: Arc<Web>, call: Call) -> Result<Response, Problem> {
    apart(move || validated(&web, &call)).await.map(|value| json(StatusCode::OK, &value))
}

fn validated(web: &Web, call: &Call) -> Result<Value, Problem> {
    let document: Value = serde_json::from_slice(&call.body).map_err(|error| no_json(&call.body, &error))?;
    let caller = crate::remote::Caller::new(call.by.clone(), Some(Arc::clone(&web.options.policy)));
    let admitted = web.app.on_behalf_of(Arc::new(caller)).admitted(&call.body, strictness(call));
    let (warnings, faults) = match admitted {
        Ok(document) => (document.warnings, Vec::new()),
        Err(SubmitError::Faults(faults)) => (Vec::new(), faults),
        Err(SubmitError::Full { .. } | SubmitError::Ending) => (Vec::new(), Vec::new()),
    };
    let faults: Vec<Value> = faults.iter().map(problem::of_fault).collect();
    let mut findings = crate::lint::findings(&document, &*web.app.commands(), &[]);
    // whether a variable of the environment is set is nobody's business
    findings.retain(|finding| finding.rule != "unresolved-placeholder" || !finding.message.contains("${env."));
    Ok(json!({"valid": faults.is_empty(), "faults": faults, "warnings": warnings, "findings": findings}))
}
