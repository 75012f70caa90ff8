//! Records: what became of each action, as the seed keys and writes it.

use super::Outcome;
use super::mask::masked;
use crate::command::CommandError;
use ld_shared::pytext::{Repr, Str};
use serde_json::{Map, Value, json};

/// Longest key, and longest value, that is shown to people.
const LONGEST: [usize; 2] = [200, 10_000];
/// Commands whose result is a pair in Python.
const PAIRS: [&str; 6] = [
    "divmod",
    "LD_generate_html",
    "LD_generate_json",
    "LD_generate_json_report",
    "LD_generate_xml",
    "LD_generate_xml_report",
];

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

/// The records of a document for people: each key on a line and its value on the next, in Python
/// notation, secrets hidden and what is very long cut.
pub fn text(outcomes: &[Outcome]) -> String {
    let mut records = Map::new();
    for outcome in outcomes {
        records.insert(key(&masked(&outcome.source)), shown(outcome).into());
    }
    let line = |(key, value): (&String, &Value)| {
        format!("{}\n{}\n", cut(key, LONGEST[0]), cut(&Str(value).to_string(), LONGEST[1]))
    };
    records.iter().map(line).collect()
}

/// The values of the records of a document, in the order of [`map`]: as people read them, but whole.
pub fn values(outcomes: &[Outcome]) -> Vec<String> {
    let mut records = Map::new();
    for outcome in outcomes {
        records.insert(key(&outcome.source), shown(outcome).into());
    }
    records.values().map(|value| Str(value).to_string()).collect()
}

/// A result as people read it.
fn shown(outcome: &Outcome) -> String {
    match &outcome.result {
        Err(error) => raised(error),
        Ok(_) if !outcome.nested.is_empty() => {
            let documents: Vec<String> = outcome.nested.iter().map(|outcomes| braced(outcomes)).collect();
            if matches!(&outcome.result, Ok(Value::Array(_))) {
                return format!("[{}]", documents.join(", "));
            }
            documents.concat()
        }
        Ok(Value::Array(items)) if items.len() == 2 && PAIRS.contains(&outcome.command.as_str()) => {
            format!("({}, {})", Repr(&items[0]), Repr(&items[1]))
        }
        Ok(value) => Str(&masked(value)).to_string(),
    }
}

/// The records of a document within another one.
fn braced(outcomes: &[Outcome]) -> String {
    let mut records: Vec<(String, String)> = Vec::new();
    for outcome in outcomes {
        let key = Repr(&key(&masked(&outcome.source)).into()).to_string();
        let value = match &outcome.result {
            Ok(Value::String(_)) | Err(_) => Repr(&shown(outcome).into()).to_string(),
            Ok(_) => shown(outcome),
        };
        match records.iter_mut().find(|(known, _)| *known == key) {
            Some(record) => record.1 = value,
            None => records.push((key, value)),
        }
    }
    let records: Vec<String> = records.into_iter().map(|(key, value)| format!("{key}: {value}")).collect();
    format!("{{{}}}", records.join(", "))
}

fn cut(text: &str, longest: usize) -> String {
    match text.char_indices().nth(longest) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(source: Value, result: Result<Value, CommandError>) -> Outcome {
        let command = source[0].as_str().unwrap_or_default().to_owned();
        Outcome { index: 0, command, source, result, nested: Vec::new() }
    }

    #[test]
    fn records_are_written_as_the_seed_writes_them() {
        let failed = CommandError::failed("ValueError", "it's bad");
        let outcomes = [
            outcome(json!(["len", [[1, 2]]]), Ok(json!(2))),
            outcome(json!(["print", ["a"]]), Ok(Value::Null)),
            outcome(json!(["divmod", [7, 2]]), Ok(json!([3, 1]))),
            outcome(json!(["LD_x"]), Err(failed)),
            outcome(json!(["len", [[1, 2]]]), Ok(json!(5))),
        ];
        let expected = "execute: ['len', [[1, 2]]]\n5\nexecute: ['print', ['a']]\nNone\n\
                        execute: ['divmod', [7, 2]]\n(3, 1)\nexecute: ['LD_x']\nValueError(\"it's bad\")\n";
        assert_eq!(text(&outcomes), expected);
        assert_eq!(map(&outcomes).len(), 4);
        let mut outer = outcome(json!(["LD_execute_action", [[["len", [[1, 2]]]]]]), Ok(Value::Object(map(&outcomes))));
        outer.nested = vec![outcomes[1..4].to_vec()];
        let shown = text(std::slice::from_ref(&outer));
        let value = shown.lines().nth(1).unwrap();
        assert_eq!(
            value,
            "{\"execute: ['print', ['a']]\": None, \"execute: ['divmod', [7, 2]]\": (3, 1), \
             \"execute: ['LD_x']\": 'ValueError(\"it\\'s bad\")'}"
        );
    }

    #[test]
    fn long_keys_are_cut_and_secrets_hidden_on_the_screen_only() {
        let source = json!(["LD_x", {"password": "p", "tasks": "x".repeat(1_000)}]);
        let outcomes = [outcome(source, Ok(Value::Null))];
        let shown = text(&outcomes);
        assert!(shown.contains("'password': '***'") && shown.chars().count() < 220, "{shown}");
        assert!(map(&outcomes).keys().next().unwrap().len() > 1_000);
    }
}
