//! What tools do.

use super::{Assistant, calls, progress, resources};
use crate::cli::init;
use crate::command::{CommandError, with_causes};
use crate::compare::evidence::Evidence;
use crate::compare::{Options, compare};
use crate::executor::records;
use crate::redact;
use crate::remote::{Finished, Job, JobState, Order, SubmitError};
use crate::run::Run;
use crate::script::Strictness;
use crate::store::Found;
use ld_shared::load::What;
use rmcp::model::ProgressToken;
use rmcp::service::{Peer, RoleServer};
use serde_json::{Map, Value, json};
use std::path::Path;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// A call under way.
pub(super) struct Call {
    /// Its tool.
    pub tool: &'static str,
    /// Its arguments.
    pub arguments: Map<String, Value>,
    /// The client took it back.
    pub withdrawn: CancellationToken,
    /// Where its progress is told.
    pub peer: Peer<RoleServer>,
    /// Under which name.
    pub progress: Option<ProgressToken>,
}

impl Assistant {
    /// Does it. The result is an object.
    pub(super) async fn work(&self, call: Call) -> Result<Value, CommandError> {
        let arguments = &call.arguments;
        match call.tool {
            "run_test" => {
                let (job, finished) = self.run(calls::test(arguments), "run_test", &call).await?;
                test_result(&job, &finished)
            }
            "run_action_json" => {
                let (_, finished) = self.run(calls::document(arguments), "run_action_json", &call).await?;
                Ok(Value::Object(records::map(&finished.outcomes)))
            }
            "import_har" => {
                let mut options = arguments.clone();
                let file = json!({"file_path": options.remove("file_path")});
                options.insert("har".into(), self.app.call("LD_load_har", file).await?);
                let document = self.app.call("LD_har_to_action_json", Value::Object(options)).await?;
                Ok(calls::result(call.tool, document))
            }
            "create_project" => self.create_project(text(arguments, "path")?),
            "list_executor_commands" => Ok(self.commands()),
            "generate_reports" => {
                let mut paths = Map::new();
                for (format, command, argument) in calls::reports(arguments)? {
                    let written = self.app.call(command, argument).await?;
                    paths.insert(format.to_owned(), calls::absolute(&written));
                }
                Ok(Value::Object(paths))
            }
            "validate" => Ok(self.validate(&calls::document(arguments))),
            "start" => {
                let label = arguments.get("label").and_then(Value::as_str).unwrap_or("mcp");
                let job = self.submit(calls::document(arguments), label)?;
                Ok(described(&job))
            }
            "status" => self.status(arguments),
            "adjust" => self.adjust(arguments).await,
            "stop" => self.stop(arguments).await,
            "compare" => self.compare(arguments).await,
            tool => {
                let (command, argument) = calls::command(tool, arguments).ok_or_else(|| {
                    CommandError::failed("KeyError", format!("the tool `{tool}` does nothing: a fault of ours"))
                })?;
                let value = self.app.call(command, argument).await?;
                Ok(calls::result(tool, value))
            }
        }
    }

    fn submit(&self, document: Vec<u8>, label: &str) -> Result<Arc<Job>, CommandError> {
        let order = Order {
            document,
            strictness: Strictness::Strict,
            label: Some(label.to_owned()),
            by: self.app.caller().name.clone(),
            policy: self.app.caller().policy.clone(),
        };
        self.app.submit(order).map_err(not_taken)
    }

    /// Runs a document to its end; the client's change of mind, or the end of the process, drains it.
    async fn run(
        &self,
        document: Vec<u8>,
        label: &str,
        call: &Call,
    ) -> Result<(Arc<Job>, Arc<Finished>), CommandError> {
        let job = self.submit(document, label)?;
        let finished = tokio::select! {
            finished = job.finished() => finished,
            () = call.withdrawn.cancelled() => self.drained(&job).await,
            () = self.ending.cancelled() => self.drained(&job).await,
            never = progress::tell(&self.app, &job, &call.peer, call.progress.clone()) => match never {},
        };
        if finished.outcomes.is_empty() {
            return Err(CommandError::failed("KeyboardInterrupt", "stopped before its turn: nothing was run"));
        }
        Ok((job, finished))
    }

    async fn drained(&self, job: &Job) -> Arc<Finished> {
        job.caller.control.stop.cancel();
        job.finished().await
    }

    fn create_project(&self, path: &str) -> Result<Value, CommandError> {
        if let Some(policy) = &self.app.caller().policy {
            policy.file(path).map_err(|why| CommandError::failed("PermissionError", why))?;
        }
        init::create(Path::new(path)).map_err(|why| CommandError::failed("OSError", why))?;
        Ok(json!({"path": calls::absolute(&path.into()), "status": "created"}))
    }

    fn commands(&self) -> Value {
        let commands = self.app.commands();
        let mut names: Vec<&str> = commands.table().iter().map(|entry| entry.spec.name).collect();
        names.retain(|name| name.starts_with("LD_"));
        names.sort_unstable();
        json!({"commands": names})
    }

    fn validate(&self, document: &[u8]) -> Value {
        let faults = match self.app.admitted(document, Strictness::Strict) {
            Err(SubmitError::Faults(faults)) => faults,
            Ok(_) | Err(SubmitError::Full { .. } | SubmitError::Ending) => Vec::new(),
        };
        let shown = |fault: &ld_shared::fault::Fault| json!({"pointer": fault.pointer, "message": fault.message, "help": fault.help});
        json!({"valid": faults.is_empty(), "faults": faults.iter().map(shown).collect::<Vec<_>>()})
    }

    fn job(&self, arguments: &Map<String, Value>) -> Result<Option<Arc<Job>>, CommandError> {
        let Some(number) = arguments.get("job").filter(|number| !number.is_null()) else { return Ok(None) };
        let job = number.as_u64().and_then(|number| self.app.job(number));
        let unknown =
            || CommandError::failed("KeyError", format!("there is no job {number}")).with_help("status lists them");
        job.map(Some).ok_or_else(unknown)
    }

    fn status(&self, arguments: &Map<String, Value>) -> Result<Value, CommandError> {
        let jobs = match self.job(arguments)? {
            Some(job) => vec![described(&job)],
            None => self.app.jobs().iter().map(described).collect(),
        };
        Ok(json!({"test": self.test(), "jobs": jobs}))
    }

    /// The test that goes on.
    fn test(&self) -> Value {
        let Some(now) = self.app.now() else { return Value::Null };
        let progress = now.progress.borrow().clone();
        let [p50, p95, p99] = progress.percentiles.map(|us| us as f64 / 1e3);
        json!({
            "run": now.run.to_string(), "label": now.label, "by": now.by, "state": progress.state,
            "elapsed_s": progress.elapsed_s, "planned_s": progress.planned_s, "users": progress.users,
            "requests_per_s": progress.rate, "requests": progress.requests, "failures": progress.failures,
            "p50_ms": p50, "p95_ms": p95, "p99_ms": p99, "workers": progress.workers[0],
            "scenarios": now.plan.scenarios.iter().map(|scenario| json!({
                "name": &*scenario.name, "model": scenario.load.model(),
            })).collect::<Vec<_>>(),
        })
    }

    async fn adjust(&self, arguments: &Map<String, Value>) -> Result<Value, CommandError> {
        let scenario = arguments.get("scenario").and_then(Value::as_u64).unwrap_or(0);
        let scenario = u32::try_from(scenario).unwrap_or(u32::MAX);
        let mut changes = Vec::new();
        for (key, value) in arguments.iter().filter(|(key, value)| *key != "scenario" && !value.is_null()) {
            let wrong = || CommandError::failed("TypeError", format!("`{key}` cannot be {value}"));
            changes.push(match key.as_str() {
                "users" => What::SetUsers { scenario, users: value.as_u64().ok_or_else(wrong)? },
                "rate" => What::SetRate { scenario, rate: value.as_f64().ok_or_else(wrong)? },
                _ if value.as_bool().ok_or_else(wrong)? => What::Pause,
                _ => What::Resume,
            });
        }
        if changes.is_empty() {
            return Err(CommandError::failed("TypeError", "nothing to adjust: give users, rate or pause"));
        }
        for what in changes {
            self.app.change(what).await?;
        }
        Ok(json!({"test": self.test()}))
    }

    /// Ends jobs; of one that runs the result is awaited.
    async fn stop(&self, arguments: &Map<String, Value>) -> Result<Value, CommandError> {
        let mut jobs = match self.job(arguments)? {
            Some(job) => vec![job],
            None => self.app.jobs(),
        };
        jobs.retain(|job| !matches!(job.state(), JobState::Finished(_)));
        for job in &jobs {
            job.caller.control.stop.cancel();
            if arguments.get("abort").and_then(Value::as_bool).unwrap_or(false) {
                job.caller.control.abort.cancel();
            }
        }
        for job in &jobs {
            job.finished().await;
        }
        Ok(json!({"jobs": jobs.iter().map(described).collect::<Vec<_>>()}))
    }

    async fn compare(&self, arguments: &Map<String, Value>) -> Result<Value, CommandError> {
        let threshold = arguments.get("threshold_percent").and_then(Value::as_f64);
        let options = threshold
            .map_or_else(Options::default, |percent| Options { threshold: percent / 100.0, ..Options::default() });
        let (a, b) = (self.kept(text(arguments, "a")?).await?, self.kept(text(arguments, "b")?).await?);
        let comparison = compare(&a.1, &b.1, options);
        let mut value = serde_json::to_value(&comparison).expect("a comparison holds only types with a JSON form");
        value["a"] = a.0;
        value["b"] = b.0;
        value["regression"] = comparison.regressions().next().is_some().into();
        Ok(value)
    }

    /// A run of this process, or one that was kept.
    async fn kept(&self, name: &str) -> Result<(Value, Evidence), CommandError> {
        let of_ours = self.app.state().runs.find(name);
        if let Some(run) = of_ours {
            let findings = resources::findings(&run);
            let about = json!({"id": name, "label": run.label, "requests": findings.result.totals.requests});
            return Ok((about, Evidence::of(&findings.runs, &findings.result)));
        }
        let failed = |error| CommandError::of("OSError", &error);
        let none = |why: &str| CommandError::failed("KeyError", format!("no run `{name}`: {why}"));
        let history = self.app.history().ok_or_else(|| none("runs are not kept; start ld-master with --data-dir"))?;
        let mut store = history.open().await.map_err(failed)?;
        let kept = match store.find(name).await.map_err(failed)? {
            Found::One(number) => store.kept(number).await.map_err(failed)?,
            Found::Many(n) => return Err(none(&format!("that is the begin of {n} ids, give more of it"))),
            Found::None => None,
        };
        store.close().await;
        let kept = kept.ok_or_else(|| none("accepted: number, id or label of a kept run, latest, previous"))?;
        let about = json!({
            "number": kept.saved.id, "id": kept.result["run"]["id"], "label": kept.saved.label,
            "started_at": kept.saved.started_at, "requests": kept.result["totals"]["requests"],
        });
        Ok((about, kept.evidence))
    }
}

fn text<'a>(arguments: &'a Map<String, Value>, key: &str) -> Result<&'a str, CommandError> {
    let text = arguments.get(key).and_then(Value::as_str);
    text.ok_or_else(|| CommandError::failed("TypeError", format!("`{key}` is a text")))
}

fn not_taken(error: SubmitError) -> CommandError {
    match error {
        SubmitError::Faults(faults) => crate::command::refused("LoadDensityTestExecuteException", faults),
        SubmitError::Full { .. } | SubmitError::Ending => {
            CommandError::failed("LoadDensityTestExecuteException", with_causes(&error))
        }
    }
}

/// The seed's result of a test, and what it found.
fn test_result(job: &Job, finished: &Finished) -> Result<Value, CommandError> {
    let outcome = finished.outcomes.first();
    let mut value = outcome.map_or(Ok(Value::Null), |outcome| outcome.result.clone())?;
    let runs = job.runs();
    if let (Some(run), Some(result)) = (runs.last(), value.as_object_mut()) {
        result.extend(found(run));
    }
    Ok(value)
}

/// What a run found: id, verdict, totals.
fn found(run: &Arc<Run>) -> Map<String, Value> {
    let mut value = json!(resources::findings(run).result);
    redact::result(&mut value);
    let parts =
        [("verdict", &value["verdict"]), ("totals", &value["totals"]), ("latency_overall", &value["latency_overall"])];
    let id = ("run".to_owned(), Value::from(run.measured.run.to_string()));
    [id].into_iter().chain(parts.map(|(key, part)| (key.to_owned(), part.clone()))).collect()
}

fn described(job: &Arc<Job>) -> Value {
    let mut value = json!(job.line());
    value["job"] = job.id.into();
    value["runs"] = job.runs().iter().map(|run| Value::Object(found(run))).collect();
    if let JobState::Finished(finished) = job.state() {
        value["actions"] = finished.outcomes.iter().map(records::line).collect();
    }
    value
}
