//! `lint`: every fault of documents at once, by the checker that `run` uses. Nothing is run.

use crate::command::Commands;
use crate::console::Console;
use crate::placeholders;
use crate::run::verdict::exit;
use crate::script::{self, Strictness};
use crate::secrets::SecretStore;
use ld_shared::fault::Fault;
use serde_json::json;
use std::path::{Path, PathBuf};

/// Looks at each document. `as_json`: findings as JSON lines on stdout, for programs.
pub(super) fn run(console: &Console, files: &[PathBuf], as_json: bool) -> u8 {
    let commands = Commands::default();
    let mut code = exit::PASSED;
    for file in files {
        let findings = look(file, &commands);
        let errors = findings.iter().filter(|finding| finding.is_error).count();
        if errors > 0 {
            code = exit::REFUSED;
        }
        for finding in &findings {
            if as_json {
                console.lines(&format!("{}\n", finding.json(file)));
            } else {
                console.error(&finding.text());
            }
        }
        if !as_json {
            let count = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
            let (errors, warnings) = (count(errors, "fault"), count(findings.len() - errors, "warning"));
            console.lines(&format!("{}: {errors}, {warnings}\n", file.display()));
        }
    }
    code
}

/// Something about a document.
struct Finding {
    fault: Fault,
    is_error: bool,
}

impl Finding {
    fn text(&self) -> String {
        let text = self.fault.to_string();
        if self.is_error { text } else { text.replacen("error:", "warning:", 1) }
    }

    fn json(&self, file: &Path) -> serde_json::Value {
        let Fault { pointer, message, help, .. } = &self.fault;
        let severity = if self.is_error { "error" } else { "warning" };
        json!({"file": file, "severity": severity, "pointer": pointer, "message": message, "help": help})
    }
}

/// The faults of a document and, if it has a shape at all, its placeholders that nothing gives a value.
fn look(file: &Path, commands: &Commands) -> Vec<Finding> {
    let error = |fault| Finding { fault, is_error: true };
    let text = match std::fs::read(file) {
        Ok(text) => text,
        Err(why) => {
            return vec![error(Fault::new("", format!("cannot read the document `{}`: {why}", file.display())))];
        }
    };
    let mut findings = Vec::new();
    match script::read(&text, Strictness::Strict, commands) {
        Ok(document) => {
            let warning = |text: &String| Finding { fault: Fault::new("", text.as_str()), is_error: false };
            findings.extend(document.warnings.iter().map(warning));
        }
        Err(faults) => findings.extend(faults.into_iter().map(error)),
    }
    if let Ok(document) = serde_json::from_slice(&text) {
        let unresolved = placeholders::unresolved(&document, &super::environment, &SecretStore::default());
        findings.extend(unresolved.into_iter().map(|found| {
            let message = format!("`{}` is sent as written", found.placeholder);
            Finding { fault: Fault::new(found.pointer, message).help(found.why), is_error: false }
        }));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_and_placeholders_without_a_value() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.json");
        let document = json!([["LD_start_test", {
            "user_detail_dict": {"user": "fast_http_user"}, "user_cuont": 5,
            "tasks": [{"method": "get", "request_url": "http://h/${var.nobody}"}],
        }], ["LD_sumary"]]);
        std::fs::write(&file, document.to_string()).unwrap();
        let findings = look(&file, &Commands::default());
        let places: Vec<_> = findings.iter().map(|f| (f.fault.pointer.as_str(), f.is_error)).collect();
        assert_eq!(places, [("/0/1/user_cuont", true), ("/1/0", true), ("/0/1/tasks/0/request_url", false)]);
        assert!(findings[1].text().contains("did you mean `LD_summary`?"));
        assert!(findings[2].text().starts_with("warning: `${var.nobody}` is sent as written"));
        assert_eq!(run(&Console::silent(), &[file], false), exit::REFUSED);
        assert_eq!(run(&Console::silent(), &[folder.path().join("none")], false), exit::REFUSED);
        let good = folder.path().join("b.json");
        std::fs::write(&good, r#"[["LD_summary"]]"#).unwrap();
        assert_eq!(run(&Console::silent(), &[good], true), exit::PASSED);
    }
}
