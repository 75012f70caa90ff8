//! Secrets of the master: where `${secret.NAME}` comes from, and what keeps them in.
//!
//! A file given by `--secrets` comes first, then `LD_SECRET_NAME` of the environment. Values leave
//! the process in one way only: as a blob to workers. A test that uses secrets does not run where that
//! link is not encrypted.

use crate::cli::environment;
use crate::cluster::{ClusterOptions, TlsMode};
use crate::script::Fault;
use ld_shared::fault::{nearest, step};
use ld_shared::template::Template;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::{self, Debug, Formatter};
use std::path::Path;

/// Secrets by name.
#[derive(Clone, Default)]
pub struct SecretStore {
    file: BTreeMap<String, String>,
}

/// Names only.
impl Debug for SecretStore {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.file.keys()).finish()
    }
}

impl SecretStore {
    /// From a file: a JSON object of texts, or lines `NAME=VALUE`.
    ///
    /// # Errors
    ///
    /// What is wrong with it, without a word of what it holds.
    pub fn read(path: &Path) -> Result<Self, String> {
        let name = path.display();
        let text =
            std::fs::read_to_string(path).map_err(|error| format!("cannot read the secrets `{name}`: {error}"))?;
        parse(&text).map(|file| Self { file }).map_err(|why| format!("the secrets `{name}`: {why}"))
    }

    /// The value of a secret.
    pub fn get(&self, name: &str) -> Option<String> {
        self.file.get(name).cloned().or_else(|| environment(&format!("LD_SECRET_{name}")))
    }

    /// The fault of a secret that there is not.
    pub(crate) fn missing(&self, name: &str, pointer: &str) -> Fault {
        let known: Vec<&str> = self.file.keys().map(String::as_str).collect();
        let meant = nearest(name, &known).map(|best| format!("did you mean `{best}`? else ")).unwrap_or_default();
        let help = format!("{meant}set LD_SECRET_{name}, or name a file that has it by --secrets FILE");
        Fault::new(pointer, format!("there is no secret `{name}`")).help(help)
    }

    /// Every secret that texts in `value` name and that there is not, with where it is named first.
    pub(crate) fn all_missing(&self, value: &Value, pointer: &str) -> Vec<Fault> {
        let mut missing: BTreeMap<String, String> = BTreeMap::new();
        each_secret(value, pointer, &mut |name, pointer| {
            if self.get(name).is_none() {
                missing.entry(name.to_owned()).or_insert_with(|| pointer.to_owned());
            }
        });
        missing.iter().map(|(name, pointer)| self.missing(name, pointer)).collect()
    }
}

/// Whether any text in `value` names a secret.
pub(crate) fn uses_secrets(value: &Value) -> bool {
    let mut uses = false;
    each_secret(value, "", &mut |_, _| uses = true);
    uses
}

/// Why a test with secrets does not run over this cluster; `None`: it may.
pub(crate) fn open_to_others(cluster: &ClusterOptions) -> Option<(String, String)> {
    let bound = cluster.bind.filter(|_| cluster.security.tls == TlsMode::Off)?;
    let message = format!("secrets would go to workers in the clear: this master listens on {bound} with --tls off");
    Some((message, "start master and workers without --tls off".to_owned()))
}

fn each_secret(value: &Value, pointer: &str, with: &mut dyn FnMut(&str, &str)) {
    match value {
        Value::String(text) => Template::secret_names(text).for_each(|name| with(name, pointer)),
        Value::Array(items) => {
            for (i, item) in items.iter().enumerate() {
                each_secret(item, &format!("{pointer}/{i}"), with);
            }
        }
        Value::Object(map) => {
            for (key, item) in map {
                each_secret(item, &format!("{pointer}{}", step(key)), with);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn parse(text: &str) -> Result<BTreeMap<String, String>, String> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.trim_start().starts_with('{') {
        // not the parser's words: they might quote a value
        let object: BTreeMap<String, Value> = serde_json::from_str(text).map_err(|error| {
            format!("no JSON object: line {}, column {} is not as it should be", error.line(), error.column())
        })?;
        let value = |(name, value)| match value {
            Value::String(text) => Ok((name, text)),
            value @ (Value::Number(_) | Value::Bool(_)) => Ok((name, value.to_string())),
            Value::Null | Value::Array(_) | Value::Object(_) => {
                Err(format!("the value of `{name}` is not a text or a number"))
            }
        };
        return object.into_iter().map(value).collect();
    }
    let mut secrets = BTreeMap::new();
    for (i, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let line = line.strip_prefix("export ").unwrap_or(line);
        let Some((name, value)) = line.split_once('=') else {
            return Err(format!("line {} is not NAME=VALUE", i + 1));
        };
        let value = value.trim();
        let unquoted = ['"', '\''].iter().find_map(|quote| value.strip_prefix(*quote)?.strip_suffix(*quote));
        secrets.insert(name.trim().to_owned(), unquoted.unwrap_or(value).to_owned());
    }
    Ok(secrets)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Security;
    use serde_json::json;

    #[test]
    fn both_forms_of_the_file() {
        let lines = "# ours\nexport A = 'x y'\nB=\"q\"\nC=a=b\n\nD=\n";
        let of = |text| parse(text).map(|map| map.into_iter().map(|(k, v)| format!("{k}:{v}")).collect::<Vec<_>>());
        assert_eq!(of(lines).unwrap(), ["A:x y", "B:q", "C:a=b", "D:"]);
        assert_eq!(of("\u{feff} {\"A\": \"x\", \"N\": 5}").unwrap(), ["A:x", "N:5"]);
        assert_eq!(of("A=1\nhunter2\n").unwrap_err(), "line 2 is not NAME=VALUE");
        assert!(!of("{\"A\": [\"hunter2\"]}").unwrap_err().contains("hunter2"));
        assert!(!of("{\"A\": hunter2}").unwrap_err().contains("hunter2"));
    }

    #[test]
    fn what_is_missing_is_named_once_with_its_place() {
        let store = SecretStore { file: BTreeMap::from([("TOKEN".to_owned(), "hunter2".to_owned())]) };
        let tasks = json!({"tasks": [{"a/b": "${secret.TOKEN} ${secret.TOKN}"}, "${secret.TOKN}"]});
        let faults: Vec<String> = store.all_missing(&tasks, "/1/1").iter().map(ToString::to_string).collect();
        assert_eq!(
            faults,
            ["error: there is no secret `TOKN` at /1/1/tasks/0/a~1b\n help: did you mean `TOKEN`? else set \
              LD_SECRET_TOKN, or name a file that has it by --secrets FILE"]
        );
        assert!(uses_secrets(&tasks) && !uses_secrets(&json!(["${var.x}"])));
        assert!(!format!("{store:?}").contains("hunter2"));
    }

    #[test]
    fn secrets_go_nowhere_in_the_clear() {
        let cluster = |bind: Option<&str>, tls| ClusterOptions {
            bind: bind.map(|bind| bind.parse().unwrap()),
            local_cores: None,
            expected_workers: 1,
            wait: std::time::Duration::ZERO,
            security: Security { tls, ..Security::default() },
        };
        assert!(open_to_others(&cluster(None, TlsMode::Off)).is_none());
        assert!(open_to_others(&cluster(Some("0.0.0.0:5557"), TlsMode::Auto)).is_none());
        let (message, help) = open_to_others(&cluster(Some("127.0.0.1:5557"), TlsMode::Off)).unwrap();
        assert!(message.contains("127.0.0.1:5557") && help.contains("without --tls off"));
    }
}
