//! Placeholders of a document that nothing in it gives a value: they would be sent as written.
//!
//! A document is looked at as a whole: what an earlier action registers, what any task extracts and
//! what any source is named counts, whoever uses it. The environment and secrets are those of this
//! process now.

use crate::command::start_test::{TEMPLATES, each_text};
use crate::secrets::SecretStore;
use ld_shared::fault::{nearest, step};
use ld_shared::template::{Mention, Template};
use serde_json::{Map, Value};
use std::collections::BTreeSet;

/// A placeholder without a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unresolved {
    /// As written: `${var.usr}`.
    pub placeholder: String,
    /// JSON pointer from the document's root of the text that it stands in first.
    pub pointer: String,
    /// Why, and what to do.
    pub why: String,
}

/// What a document gives values to.
#[derive(Default)]
struct Known {
    variables: BTreeSet<String>,
    sources: BTreeSet<String>,
}

/// Every placeholder in the tests of `document` that has no value, once each, in order. `env` and
/// `secrets`: those that there are.
pub fn unresolved(document: &Value, env: &dyn Fn(&str) -> Option<String>, secrets: &SecretStore) -> Vec<Unresolved> {
    let mut known = Known::default();
    known.gather(document);
    let mut found: Vec<Unresolved> = Vec::new();
    each_test(document, "", &mut |test, pointer| {
        for key in TEMPLATES.iter().chain(&["host"]) {
            let Some(value) = test.get(*key) else { continue };
            each_text(value, &format!("{pointer}/{key}"), &mut |pointer, text| {
                for (raw, mention) in Template::mentions(text) {
                    let Some(why) = known.lacks(&mention, env, secrets) else { continue };
                    if !found.iter().any(|known| known.placeholder == raw) {
                        found.push(Unresolved { placeholder: raw.into(), pointer: pointer.into(), why });
                    }
                }
            });
        }
    });
    found
}

impl Known {
    /// Notes what `value` and all in it give values to.
    fn gather(&mut self, value: &Value) {
        match value {
            Value::Array(items) => {
                self.action(items);
                for item in items {
                    self.gather(item);
                }
            }
            Value::Object(map) => {
                self.keys(map);
                for item in map.values() {
                    self.gather(item);
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    /// `[name, arguments]`, if it is that.
    fn action(&mut self, items: &[Value]) {
        let [Value::String(name), arguments] = items else { return };
        let named = |key: &str, at: usize| match arguments {
            Value::Object(map) => map.get(key),
            Value::Array(list) => list.get(at),
            _ => None,
        };
        match name.as_str() {
            "LD_register_variable" => self.variables.extend(text(named("name", 0))),
            "LD_register_variables" => self.variable_keys(named("variables", 0)),
            "LD_register_csv_source" => self.sources.extend(text(named("name", 0))),
            "LD_register_csv_sources" => self.source_names(named("sources", 0)),
            _ => {}
        }
    }

    /// Keys of tests and tasks, wherever they stand.
    fn keys(&mut self, map: &Map<String, Value>) {
        self.variable_keys(map.get("variables"));
        self.source_names(map.get("csv_sources"));
        let extracts = map.get("extract").and_then(Value::as_array).into_iter().flatten();
        self.variables.extend(extracts.filter_map(|extract| text(extract.get("var"))));
    }

    fn variable_keys(&mut self, variables: Option<&Value>) {
        let variables = variables.and_then(Value::as_object).into_iter().flatten();
        self.variables.extend(variables.filter(|(_, value)| !value.is_null()).map(|(name, _)| name.clone()));
    }

    fn source_names(&mut self, sources: Option<&Value>) {
        let sources = sources.and_then(Value::as_array).into_iter().flatten();
        self.sources.extend(sources.filter_map(|source| text(source.get("name"))));
    }

    /// Why a placeholder has no value; `None`: it has one.
    fn lacks(
        &self,
        mention: &Mention<'_>,
        env: &dyn Fn(&str) -> Option<String>,
        secrets: &SecretStore,
    ) -> Option<String> {
        let like = |name: &str, known: &BTreeSet<String>| {
            let known: Vec<&str> = known.iter().map(String::as_str).collect();
            nearest(name, &known).map(|best| format!("; did you mean `{best}`?")).unwrap_or_default()
        };
        Some(match mention {
            Mention::Variable(name) if !self.variables.contains(*name) => {
                format!("nothing registers or extracts `{name}`{}", like(name, &self.variables))
            }
            Mention::Source(name) if !self.sources.contains(*name) => {
                format!("there is no data source `{name}`{}", like(name, &self.sources))
            }
            Mention::Env(name) if env(name).is_none() => format!("the environment has no `{name}` here"),
            Mention::Secret(name) if secrets.get(name).is_none() => {
                format!("there is no secret `{name}`: set LD_SECRET_{name}, or give --secrets FILE to the run")
            }
            Mention::Unknown => "it is of no known kind".into(),
            Mention::Variable(_) | Mention::Source(_) | Mention::Env(_) | Mention::Secret(_) | Mention::Made => {
                return None;
            }
        })
    }
}

fn text(value: Option<&Value>) -> Option<String> {
    value.and_then(Value::as_str).map(str::to_owned)
}

/// Calls `with` for the named arguments of every test in a document, at any depth.
fn each_test(value: &Value, pointer: &str, with: &mut dyn FnMut(&Map<String, Value>, &str)) {
    match value {
        Value::Array(items) => {
            if let [Value::String(name), Value::Object(arguments)] = items.as_slice()
                && name == "LD_start_test"
            {
                with(arguments, &format!("{pointer}/1"));
                return;
            }
            for (i, item) in items.iter().enumerate() {
                each_test(item, &format!("{pointer}/{i}"), with);
            }
        }
        Value::Object(map) => {
            for (key, item) in map {
                each_test(item, &format!("{pointer}{}", step(key)), with);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_nothing_gives_a_value_is_listed_once_with_its_place() {
        let document = json!({"load_density": [
            ["LD_register_variable", {"name": "base", "value": "http://x"}],
            ["LD_register_csv_source", ["users", "u.csv"]],
            ["LD_start_test", {"user_detail_dict": {}, "variables": {"own": 1, "none": null}, "tasks": [
                {"method": "get", "request_url": "${var.base}/${own}/${none}/${tok}", "extract": [{"var": "tok"}]},
                {"method": "get", "request_url": "${csv.users.id}${csv.user.id}${env.HERE}${env.GONE}${uuid()}"},
                {"json": {"a/b": ["${var.bsae}", "${faker.name}", "${nope()}", "${secret.X}", "${var.bsae}"]}},
            ]}],
        ]});
        let env = |name: &str| (name == "HERE").then(String::new);
        let found = unresolved(&document, &env, &SecretStore::default());
        let lines: Vec<String> = found.iter().map(|u| format!("{} {} {}", u.placeholder, u.pointer, u.why)).collect();
        assert_eq!(
            lines,
            [
                "${none} /load_density/2/1/tasks/0/request_url nothing registers or extracts `none`",
                "${csv.user.id} /load_density/2/1/tasks/1/request_url there is no data source `user`; did you mean `users`?",
                "${env.GONE} /load_density/2/1/tasks/1/request_url the environment has no `GONE` here",
                "${var.bsae} /load_density/2/1/tasks/2/json/a~1b/0 nothing registers or extracts `bsae`; did you mean `base`?",
                "${nope()} /load_density/2/1/tasks/2/json/a~1b/2 it is of no known kind",
                "${secret.X} /load_density/2/1/tasks/2/json/a~1b/3 there is no secret `X`: set LD_SECRET_X, or give --secrets FILE to the run",
            ]
        );
    }
}
