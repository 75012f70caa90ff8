//! What is answered, line by line.

use crate::command::CommandError;
use crate::executor::{Outcome, records};
use crate::remote::{Finished, SubmitError};
use serde_json::{Map, Value, json};

/// The line after the values of a document.
pub const END: &str = "Return_Data_Over_JE\n";
/// What the server says last.
const BYE: &str = "Server shutting down";

/// How a client is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// As the seed answers: values in Python notation, one after another, and an end line.
    #[default]
    Python,
    /// A JSON object a line: one an action, as `--results` writes them, and a last one with `end`.
    Json,
}

impl Form {
    /// The form of that name.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "python" => Some(Self::Python),
            "json" => Some(Self::Json),
            _ => None,
        }
    }

    /// Nothing was to be done.
    pub fn nothing(self) -> Vec<String> {
        match self {
            Self::Python => vec![END.to_owned()],
            Self::Json => vec![line(&json!({"end": true, "exit_code": 0, "runs": []}))],
        }
    }

    /// What became of a document.
    pub fn outcomes(self, finished: &Finished, runs: &[String]) -> Vec<String> {
        let outcomes = &finished.outcomes;
        match self {
            Self::Python => {
                let outcomes: Vec<Outcome> = outcomes.iter().map(as_the_seed).collect();
                let values = records::values(&outcomes).into_iter().map(|value| format!("{value}\n"));
                values.chain([END.to_owned()]).collect()
            }
            Self::Json => {
                let end = json!({"end": true, "exit_code": finished.exit_code, "runs": runs});
                outcomes.iter().map(records::line).chain([end]).map(|value| line(&value)).collect()
            }
        }
    }

    /// A document that was not run.
    pub fn unreadable(self, why: &str) -> Vec<String> {
        match self {
            Self::Python => vec![format!("Error: {why}\n"), END.to_owned()],
            Self::Json => vec![error("LoadDensityTestExecuteException", why)],
        }
    }

    /// A document that was not taken.
    pub fn not_taken(self, error: &SubmitError) -> Vec<String> {
        let why = match error {
            SubmitError::Faults(faults) => {
                let text = |fault: &ld_shared::fault::Fault| {
                    let place = if fault.pointer.is_empty() { String::new() } else { format!(" at {}", fault.pointer) };
                    format!("{}{place}", fault.message)
                };
                faults.iter().map(text).collect::<Vec<_>>().join("; ")
            }
            SubmitError::Full { .. } | SubmitError::Ending => error.to_string(),
        };
        self.unreadable(&why)
    }

    /// A client that may not ask.
    pub fn refused(self, why: &str) -> Vec<String> {
        match self {
            Self::Python => vec![format!("Error: {why}\n")],
            Self::Json => vec![error("LoadDensityTestExecuteException", why)],
        }
    }

    /// The server ends.
    pub fn bye(self) -> Vec<String> {
        match self {
            Self::Python => vec![format!("{BYE}\n")],
            Self::Json => vec![line(&json!({"end": true, "message": BYE}))],
        }
    }
}

fn error(kind: &str, message: &str) -> String {
    line(&json!({"end": true, "error": {"kind": kind, "message": message}}))
}

fn line(value: &Value) -> String {
    format!("{value}\n")
}

/// The outcome with what its command gives in the seed: there a summary has fewer keys, and old clients
/// compare.
fn as_the_seed(outcome: &Outcome) -> Outcome {
    let nested = outcome.nested.iter().map(|outcomes| outcomes.iter().map(as_the_seed).collect()).collect();
    let result = match &outcome.result {
        Ok(value) if outcome.command == "LD_summary" => Ok(seeds_summary(value)),
        other => other.clone(),
    };
    Outcome { nested, result: result as Result<Value, CommandError>, ..outcome.clone() }
}

const TOTALS: [&str; 4] = ["requests", "successes", "failures", "failure_rate"];
const OVERALL: [&str; 6] = ["count", "p50_ms", "p90_ms", "p95_ms", "p99_ms", "max_ms"];
const NAME: [&str; 8] = ["count", "min_ms", "max_ms", "mean_ms", "p50_ms", "p90_ms", "p95_ms", "p99_ms"];

fn seeds_summary(value: &Value) -> Value {
    let only = |from: &Value, keys: &[&str]| -> Value {
        let known = keys.iter().filter_map(|key| Some(((*key).to_owned(), from.get(key)?.clone())));
        Value::Object(known.collect())
    };
    let names: Map<String, Value> = value["per_name"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, numbers)| (name.clone(), only(numbers, &NAME)))
        .collect();
    json!({
        "totals": only(&value["totals"], &TOTALS),
        "latency_overall": only(&value["latency_overall"], &OVERALL),
        "per_name": names,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ld_shared::boot::clock;

    fn outcome(index: usize, source: Value, result: Result<Value, CommandError>) -> Outcome {
        let command = source[0].as_str().unwrap_or_default().to_owned();
        Outcome { index, command, source, result, nested: Vec::new() }
    }

    fn finished() -> Finished {
        let number = |n: f64| json!({"count": 1, "min_ms": n, "p50_ms": n, "p90_ms": n, "p95_ms": n, "p99_ms": n, "max_ms": n, "mean_ms": n, "p999_ms": n});
        let summary = json!({
            "verdict": {"passed": true},
            "totals": {"requests": 1, "failures": 0, "successes": 1, "rate": 5.0, "failure_rate": 0.0},
            "latency_overall": number(1.5),
            "per_name": {"it's": number(2.0)},
        });
        let outcomes = vec![
            outcome(0, json!(["print", ["hi"]]), Ok(Value::Null)),
            outcome(1, json!(["LD_nope"]), Err(CommandError::failed("X", "it's bad"))),
            outcome(2, json!(["LD_summary"]), Ok(summary)),
            outcome(3, json!(["print", ["hi"]]), Ok(Value::Null)),
        ];
        Finished { outcomes, exit_code: 1, at: clock::wall() }
    }

    #[test]
    fn old_clients_read_the_seeds_bytes() {
        let summary = "{'totals': {'requests': 1, 'successes': 1, 'failures': 0, 'failure_rate': 0.0}, \
                       'latency_overall': {'count': 1, 'p50_ms': 1.5, 'p90_ms': 1.5, 'p95_ms': 1.5, 'p99_ms': 1.5, 'max_ms': 1.5}, \
                       'per_name': {\"it's\": {'count': 1, 'min_ms': 2.0, 'max_ms': 2.0, 'mean_ms': 2.0, 'p50_ms': 2.0, \
                       'p90_ms': 2.0, 'p95_ms': 2.0, 'p99_ms': 2.0}}}\n";
        let lines = Form::Python.outcomes(&finished(), &[]);
        assert_eq!(lines, ["None\n", "X(\"it's bad\")\n", summary, END]);
        assert_eq!(Form::Python.nothing(), [END]);
        assert_eq!(Form::Python.unreadable("x"), ["Error: x\n", END]);
        assert_eq!(Form::Python.refused("token required"), ["Error: token required\n"]);
        assert_eq!(Form::Python.bye(), ["Server shutting down\n"]);
    }

    #[test]
    fn json_replies_are_a_line_an_action_and_one_that_ends() {
        let lines = Form::Json.outcomes(&finished(), &["r1".to_owned()]);
        assert!(lines.iter().all(|line| line.ends_with('\n') && line.matches('\n').count() == 1));
        let lines: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 5, "equal actions are all told");
        assert_eq!(
            lines[1],
            json!({"index": 1, "command": "LD_nope", "ok": false, "error": {"kind": "X", "message": "it's bad"}})
        );
        assert_eq!(lines[2]["value"]["verdict"]["passed"], true);
        assert_eq!(lines[4], json!({"end": true, "exit_code": 1, "runs": ["r1"]}));
        for lines in [Form::Json.nothing(), Form::Json.unreadable("x"), Form::Json.refused("x"), Form::Json.bye()] {
            assert_eq!(serde_json::from_str::<Value>(&lines[0]).unwrap()["end"], true);
        }
    }
}
