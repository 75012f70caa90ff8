//! Findings about documents in the form of the seed's linter.
//!
//! Its own rules come first, in its words: `unknown-command`, `invalid-shape`, `missing-tasks`,
//! `hardcoded-url`, `oversize-body`. What only our checker sees follows as `fault`,
//! placeholders without a value as `unresolved-placeholder`.

use crate::placeholders;
use crate::script::{self, Strictness, Vocabulary};
use crate::secrets::SecretStore;
use ld_shared::fault::{Fault, step};
use serde::Serialize;
use serde_json::Value;

/// Bodies larger than this are worth a warning, bytes.
const LARGE_BODY: usize = 64 * 1024;

/// One finding.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Finding {
    /// Which rule.
    pub rule: &'static str,
    /// `error` or `warning`.
    pub severity: &'static str,
    /// What was seen.
    pub message: String,
    /// Where: `actions[2].tasks[0].request_url`; of a fault its JSON pointer.
    pub location: String,
}

/// Every finding about a document, by action.
pub fn findings(document: &Value, commands: &(impl Vocabulary + ?Sized), known: &[String]) -> Vec<Finding> {
    let (list, base) = match document {
        Value::Array(list) => (list.as_slice(), String::new()),
        Value::Object(map) => match map.get("load_density").and_then(Value::as_array) {
            Some(list) => (list.as_slice(), "/load_density".to_owned()),
            None => {
                return vec![error("invalid-shape", "document must hold a list of actions under 'load_density'", "")];
            }
        },
        _ => return vec![error("invalid-shape", "document must be a list or an object", "")],
    };
    let faults = faults(document, commands);
    let mut findings = Vec::new();
    for (index, action) in list.iter().enumerate() {
        let before = findings.len();
        seeds(action, index, commands, known, &mut findings);
        // a finding says what the fault at the same place says
        let is_broken =
            findings.iter().skip(before).any(|f: &Finding| f.severity == "error" && f.rule != "missing-tasks");
        let own = format!("{base}{}", step(&index.to_string()));
        let inside = |fault: &&Fault| fault.pointer == own || fault.pointer.starts_with(&format!("{own}/"));
        let misses_tasks = findings.iter().skip(before).any(|f| f.rule == "missing-tasks");
        let told = |fault: &&Fault| is_broken || (misses_tasks && fault.message.contains("without `tasks`"));
        findings.extend(faults.iter().filter(inside).filter(|fault| !told(fault)).map(|fault| Finding {
            rule: "fault",
            severity: if fault.is_ignored() { "warning" } else { "error" },
            message: match &fault.help {
                Some(help) => format!("{}; {help}", fault.message),
                None => fault.message.clone(),
            },
            location: fault.pointer.clone(),
        }));
    }
    let unresolved = placeholders::unresolved(document, &crate::cli::environment, &SecretStore::default());
    findings.extend(unresolved.into_iter().map(|found| Finding {
        rule: "unresolved-placeholder",
        severity: "warning",
        message: format!("`{}` is sent as written: {}", found.placeholder, found.why),
        location: found.pointer,
    }));
    findings
}

/// What our checker says.
fn faults(document: &Value, commands: &(impl Vocabulary + ?Sized)) -> Vec<Fault> {
    script::read(document.to_string().as_bytes(), Strictness::Strict, commands).err().unwrap_or_default()
}

fn error(rule: &'static str, message: impl Into<String>, location: impl Into<String>) -> Finding {
    Finding { rule, severity: "error", message: message.into(), location: location.into() }
}

/// The seed's rules on one action.
fn seeds(
    action: &Value,
    index: usize,
    commands: &(impl Vocabulary + ?Sized),
    known: &[String],
    findings: &mut Vec<Finding>,
) {
    let location = format!("actions[{index}]");
    let Some([name, rest @ ..]) = action.as_array().map(Vec::as_slice) else {
        return findings.push(error("invalid-shape", "action must be a non-empty list", location));
    };
    let Some(name) = name.as_str() else {
        return findings.push(error("invalid-shape", "action name must be a string", location));
    };
    if commands.signature(name).is_none() && !known.iter().any(|known| known == name) {
        let message = format!("unknown command '{name}'; check spelling or register it via add_command_to_executor");
        return findings.push(error("unknown-command", message, location));
    }
    if name != "LD_start_test" {
        return;
    }
    let arguments = rest.first().unwrap_or(&Value::Null);
    let Some(tasks) = arguments.get("tasks").filter(|tasks| !tasks.is_null()) else {
        if arguments.get("scenarios").is_none() {
            findings.push(error("missing-tasks", "LD_start_test missing 'tasks' key", location));
        }
        return;
    };
    let tasks = tasks.get("tasks").unwrap_or(tasks);
    for (i, task) in tasks.as_array().into_iter().flatten().enumerate() {
        task_findings(task, &format!("{location}.tasks[{i}]"), findings);
    }
}

fn task_findings(task: &Value, location: &str, findings: &mut Vec<Finding>) {
    let warning = |rule, message, key: &str| Finding {
        rule,
        severity: "warning",
        message,
        location: format!("{location}.{key}"),
    };
    for key in ["request_url", "url"] {
        let Some(url) = task.get(key).and_then(Value::as_str) else { continue };
        if (url.starts_with("http://") || url.starts_with("https://")) && !url.contains("${") {
            let message = format!("hard-coded URL '{url}'; consider ${{var.base}} placeholder");
            findings.push(warning("hardcoded-url", message, key));
        }
    }
    for key in ["json", "data"] {
        let Some(body) = task.get(key).filter(|body| !body.is_null()) else { continue };
        let size = body.as_str().map_or_else(|| body.to_string().len(), str::len);
        if size > LARGE_BODY {
            let message = format!("body of {size} bytes is sent with every request");
            findings.push(warning("oversize-body", message, key));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Commands;
    use serde_json::json;

    #[test]
    fn findings_are_the_seeds_and_more() {
        let document = json!([
            ["LD_typo"], ["LD_start_test", {}],
            ["LD_start_test", {"tasks": [{"method": "get", "request_url": "http://127.0.0.1/y"}]}], 5, [], [5]
        ]);
        let golden: Vec<Value> = serde_json::from_str(include_str!("lint/golden.json")).unwrap();
        let findings = findings(&document, &Commands::default(), &[]);
        let (own, seeds): (Vec<_>, Vec<_>) = findings.into_iter().partition(|finding| finding.rule == "fault");
        assert_eq!(json!(seeds), json!(golden));
        let own: Vec<_> = own.iter().map(|f| format!("{} {}", f.location, f.message)).collect();
        assert_eq!(own.len(), 2, "{own:?}");
        assert!(own.iter().all(|text| text.contains("without `user_detail_dict`")), "{own:?}");
    }

    #[test]
    fn our_checker_sees_the_rest() {
        let seen = |document: Value| {
            let findings = findings(&document, &Commands::default(), &["my_command".to_owned()]);
            findings.into_iter().map(|f| format!("{} {} {}", f.rule, f.severity, f.location)).collect::<Vec<_>>()
        };
        let test = json!({"user_detail_dict": {"user": "fast_http_user"}, "usercount": 5, "host": "http://h",
            "tasks": {"mode": "sequence", "tasks": [{"method": "post", "url": "/${var.x}", "data": "x".repeat(70_000)}]}});
        assert_eq!(
            seen(json!({"load_density": [["LD_summary"], ["LD_start_test", test]]})),
            [
                "oversize-body warning actions[1].tasks[0].data",
                "fault warning /load_density/1/1/usercount",
                "unresolved-placeholder warning /load_density/1/1/tasks/tasks/0/url"
            ]
        );
        assert_eq!(seen(json!({"x": []})), ["invalid-shape error "]);
        assert_eq!(seen(json!(5)), ["invalid-shape error "]);
    }
}
