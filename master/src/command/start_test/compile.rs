//! The last step that can fault user input: files and environment are read, the plan is made.

use super::descriptors;
use super::scenarios::Draft;
use super::tasks::each_text;
use super::thresholds::unknown_scenarios;
use super::{CsvSource, Files, StartTest};
use crate::record_file;
use crate::script::Fault;
use crate::secrets::SecretStore;
use bytes::Bytes;
use ld_shared::id::Digest;
use ld_shared::plan::{Plan, ScenarioPlan, SourcePlan, SourceRows, TlsPlan};
use ld_shared::scope::Bindings;
use ld_shared::secrets::SecretBlob;
use ld_shared::template::Template;
use ld_shared::threshold::{Selector, Threshold};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

/// Keys of a test under which placeholders may stand.
pub const TEMPLATES: [&str; 6] = ["tasks", "scenarios", "on_start", "on_stop", "setup", "teardown"];
/// Most placeholders without a value that are warned of one by one.
const MOST_WARNINGS: usize = 10;

/// What a test is compiled with.
pub struct CompileContext<'a> {
    /// Where the action's arguments stand in the document; begins the pointers of faults.
    pub pointer: &'a str,
    /// Variables that earlier actions registered.
    pub variables: &'a Map<String, Value>,
    /// Data sources that earlier actions registered; of two with one name the later counts.
    pub sources: &'a [CsvSource],
    /// Looks up an environment variable of the master.
    pub env: &'a dyn Fn(&str) -> Option<String>,
    /// The secrets of the master.
    pub secrets: &'a SecretStore,
    /// The files that it may name.
    pub files: &'a Files<'a>,
    /// Seed of tests that give none.
    pub seed: u64,
}

/// A test, ready to run.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// The plan.
    pub plan: Arc<Plan>,
    /// Blobs that the plan names: rows, certificates, descriptors.
    pub blobs: BTreeMap<Digest, Bytes>,
    /// What decides about pass or fail.
    pub thresholds: Vec<Threshold>,
    /// What the user should know before it starts, one sentence each.
    pub warnings: Vec<String>,
    /// Whether it starts with fewer workers than expected.
    pub allow_missing_workers: bool,
    /// Where all requests go.
    pub records_file: Option<PathBuf>,
}

/// Makes the plan of a test. Reads its files: data, certificates, descriptors.
///
/// # Errors
///
/// Every file that cannot be read or is not what it should be.
pub fn compile(test: StartTest, context: &CompileContext<'_>) -> Result<Compiled, Vec<Fault>> {
    let mut faults = Vec::new();
    let mut blobs = BTreeMap::new();
    let mut warnings = test.warnings.clone();
    let mut with_files = |draft: &Draft| {
        let tls = certificates(draft, context, &mut blobs, &mut faults);
        let mut plan = ScenarioPlan { tls, ..draft.plan.clone() };
        descriptors::ship(&mut plan.options, &draft.options_at, context, &mut blobs, &mut faults);
        plan
    };
    let mut scenarios: Vec<ScenarioPlan> = test.scenarios.iter().map(&mut with_files).collect();
    let has_stage = !(test.setup.is_empty() && test.teardown.is_empty());
    let mut stage = has_stage.then(|| with_files(&test.stage));
    if test.graceful_stop.0 == 0 && scenarios.iter().any(|scenario| !scenario.on_stop.is_empty()) {
        warnings.push("`graceful_stop` is 0: users that live at the end have no time for `on_stop`".into());
    }

    let mut variables = context.variables.clone();
    variables.extend(test.variables.clone());
    let mut known: BTreeMap<&str, CsvSource> =
        context.sources.iter().map(|source| (&*source.name, source.clone())).collect();
    for (i, order) in test.csv_sources.iter().enumerate() {
        match order.load(context.files) {
            Ok(source) => {
                known.insert(&order.name, source);
            }
            Err(fault) => faults.push(fault.under(&format!("{}/csv_sources/{i}", context.pointer))),
        }
    }

    let records_file = test.records.file.as_deref().map(|file| context.files.place(file)).transpose();
    let checked = records_file.as_ref().map_err(Clone::clone);
    let checked = checked.and_then(|file| file.as_deref().map_or(Ok(()), record_file::check));
    let records_file = records_file.ok().flatten();
    if let Err(why) = checked {
        let message = format!("cannot write `{}`: {why}", test.records.file.as_deref().unwrap_or_default());
        faults.push(Fault::new(format!("{}/records/all", context.pointer), message));
    }

    let (mut env, mut used) = (BTreeMap::new(), BTreeSet::new());
    let mut secrets = BTreeMap::new();
    for key in TEMPLATES.iter().chain(&["host"]) {
        let value = test.arguments.get(*key).unwrap_or(&Value::Null);
        faults.extend(context.secrets.all_missing(value, &format!("{}/{key}", context.pointer)));
        each_text(value, "", &mut |_, text| {
            let known = |name: &str| Some((name.to_owned(), context.secrets.get(name)?));
            secrets.extend(Template::secret_names(text).filter_map(known));
            env.extend(Template::env_names(text).filter_map(|name| Some((name.to_owned(), (context.env)(name)?))));
            used.extend(Template::source_names(text).map(str::to_owned));
        });
    }
    let (mut sources, mut rows) = (Vec::new(), Vec::<Arc<SourceRows>>::new());
    for (name, source) in known.iter().filter(|(name, _)| used.contains(**name)) {
        if source.rows.is_empty() {
            warnings.push(format!("the data source `{name}` has no rows: its placeholders are sent as written"));
        }
        let (plan, bytes) = source_plan(source);
        blobs.insert(plan.blob.clone(), bytes);
        rows.push(Arc::clone(&source.rows));
        sources.push(plan);
    }

    let secrets_blob = (!secrets.is_empty()).then(|| secrets_blob(&secrets, &mut blobs));

    let mut plan = Plan {
        seed: test.seed.unwrap_or(context.seed),
        scenarios: std::mem::take(&mut scenarios),
        variables,
        env,
        sources,
        test_time: test.test_time,
        warmup: test.warmup,
        graceful_stop: test.graceful_stop,
        iterations: test.iterations,
        records: test.records.policy,
        throttles: test.throttle.iter().chain(test.scenarios.iter().flat_map(|s| &s.throttle)).cloned().collect(),
        stage: stage.take(),
        setup: test.setup.clone(),
        teardown: test.teardown.clone(),
        collect: false,
        details: details(&test.thresholds),
        on_worker_loss: test.on_worker_loss,
        on_master_loss: test.on_master_loss,
        allow_targets: test.allow_targets.clone().into_iter().collect(),
        secrets: secrets_blob,
    };
    let bindings = Bindings::new(&plan, rows).with_secrets(secrets.into());
    if plan.variables.len() + extracted(&plan) > usize::from(u16::MAX) {
        let message = format!("a test has at most {} variables", u16::MAX);
        faults.push(Fault::new(context.pointer, message).help("put large tables of values into a CSV source"));
    }
    for key in plan.conflicting_limits() {
        warnings.push(format!("the limit `{key}` has different settings: the first ones hold for all tasks"));
    }
    warn_unresolved(&test.arguments, &bindings, &mut warnings);
    plan.resolve_hosts(&bindings);
    faults.extend(unknown_scenarios(&test.thresholds, &plan.scenarios, context.pointer));
    if !faults.is_empty() {
        return Err(faults);
    }
    let StartTest { thresholds, allow_missing_workers, .. } = test;
    Ok(Compiled { plan: Arc::new(plan), blobs, thresholds, warnings, allow_missing_workers, records_file })
}

/// Puts the secrets beside the plan.
fn secrets_blob(secrets: &BTreeMap<String, String>, blobs: &mut BTreeMap<Digest, Bytes>) -> Digest {
    let blob = SecretBlob { salt: uuid::Uuid::new_v4().to_string(), values: secrets.clone() };
    let bytes = Bytes::from(serde_json::to_vec(&blob).expect("texts have a JSON form"));
    let digest = Digest::of(&bytes);
    blobs.insert(digest.clone(), bytes);
    digest
}

/// A source as the plan holds it, and its rows as a blob.
fn source_plan(source: &CsvSource) -> (SourcePlan, Bytes) {
    let bytes = Bytes::from(serde_json::to_vec(&*source.rows).expect("texts have a JSON form"));
    let plan = SourcePlan {
        name: Arc::clone(&source.name),
        columns: source.columns.clone(),
        rows: source.rows.len() as u64,
        blob: Digest::of(&bytes),
        dealing: source.dealing,
    };
    (plan, bytes)
}

/// Series of which service time and lag are kept apart, each named once.
fn details(thresholds: &[Threshold]) -> Vec<Selector> {
    let mut details: Vec<Selector> = Vec::new();
    for selector in thresholds.iter().filter_map(Threshold::detail) {
        if !details.contains(selector) {
            details.push(selector.clone());
        }
    }
    details
}

fn extracted(plan: &Plan) -> usize {
    let extractors = plan.all_tasks().flat_map(|task| &task.extract);
    extractors.map(|extractor| &*extractor.var).collect::<BTreeSet<&str>>().len()
}

fn warn_unresolved(arguments: &Map<String, Value>, bindings: &Bindings, warnings: &mut Vec<String>) {
    let mut seen = BTreeSet::new();
    for key in TEMPLATES {
        each_text(arguments.get(key).unwrap_or(&Value::Null), &format!("/{key}"), &mut |pointer, text| {
            for placeholder in Template::unresolved(text, bindings) {
                if seen.insert(placeholder.to_owned()) && seen.len() <= MOST_WARNINGS {
                    warnings.push(format!("`{placeholder}` at {pointer} has no value and is sent as written"));
                }
            }
        });
    }
    if seen.len() > MOST_WARNINGS {
        warnings.push(format!("{} more placeholders have no value", seen.len() - MOST_WARNINGS));
    }
}

fn certificates(
    draft: &Draft,
    context: &CompileContext<'_>,
    blobs: &mut BTreeMap<Digest, Bytes>,
    faults: &mut Vec<Fault>,
) -> TlsPlan {
    let mut read = |key: &str, path: &Option<String>, wanted: &str| -> Option<Digest> {
        let path = path.as_ref()?;
        let mut fault = |message: String, help: String| {
            faults.push(Fault::new(format!("{}{}/{key}", context.pointer, draft.tls_at), message).help(help));
        };
        let full = match context.files.place(path) {
            Ok(full) => full,
            Err(why) => {
                fault(why, "put it into the working folder".into());
                return None;
            }
        };
        let bytes = match std::fs::read(&full) {
            Ok(bytes) => bytes,
            Err(error) => {
                fault(format!("cannot read `{path}`: {error}"), format!("it was looked for at {}", full.display()));
                return None;
            }
        };
        if !holds(&bytes, wanted) {
            fault(format!("`{path}` holds no {}", wanted.to_lowercase()), "give a file in PEM form".into());
        }
        let digest = Digest::of(&bytes);
        blobs.insert(digest.clone(), bytes.into());
        Some(digest)
    };
    let ca = read("ca", &draft.tls.ca, "CERTIFICATE");
    let certificate = read("cert", &draft.tls.cert, "CERTIFICATE");
    let mut key = read("key", &draft.tls.key, "PRIVATE KEY");
    if let (Some(file), None) = (&certificate, &key) {
        // one file may hold both, as many tools write it
        if blobs.get(file).is_some_and(|bytes| holds(bytes, "PRIVATE KEY")) {
            key = Some(file.clone());
        } else if draft.tls.key.is_none() {
            let fault =
                Fault::new(format!("{}{}/cert", context.pointer, draft.tls_at), "a client certificate without its key");
            faults.push(fault.help("add `key`, the PEM file of the private key"));
        }
    }
    TlsPlan { verify: draft.plan.tls.verify, ca, certificate, key }
}

/// Whether a PEM text has a section of that kind (`PRIVATE KEY` is the end of several).
fn holds(pem: &[u8], kind: &str) -> bool {
    let text = String::from_utf8_lossy(pem);
    text.lines().any(|line| line.starts_with("-----BEGIN ") && line.trim_end().ends_with(&format!("{kind}-----")))
}
