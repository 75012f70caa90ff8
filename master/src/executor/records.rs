//! Records: what became of each action, as the seed keys and writes it.

use super::Outcome;
use crate::command::CommandError;
use ld_shared::pytext::{Repr, Str};
use serde_json::{Map, Value, json};

/// The key of an action's record: `execute: ['len', [[1, 2]]]`.
pub fn key(action: &Value) -> String {
    format!("execute: {}", Str(action))
}

/// An error as a record: `ClassName('message')`.
pub fn raised(error: &CommandError) -> String {
    format!("{}({})", error.kind, Repr(&error.message.as_str().into()))
}

/// The records of a document. Of equal actions the last result stands, at the place of the first.
pub fn map(outcomes: &[Outcome]) -> Map<String, Value> {
    let mut records = Map::new();
    for outcome in outcomes {
        let value = match &outcome.result {
            Ok(value) => value.clone(),
            Err(error) => raised(error).into(),
        };
        records.insert(key(&outcome.source), value);
    }
    records
}

/// The line of an action in `--results`.
pub fn line(outcome: &Outcome) -> Value {
    let Outcome { index, command, .. } = outcome;
    match &outcome.result {
        Ok(value) => json!({"index": index, "command": command, "ok": true, "value": value}),
        Err(error) => {
            let error = json!({"kind": error.kind, "message": error.message});
            json!({"index": index, "command": command, "ok": false, "error": error})
        }
    }
}
