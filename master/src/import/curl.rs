//! A curl command as a task.
//!
//! [`task`] gives what the seed gives: the fields that the command names. [`complete`] adds what
//! curl would send without being told, so that the request is the same one.

use super::{Task, words};
use serde_json::{Map, Value, json};
use std::fmt::Write as _;

/// A command, read.
#[derive(Debug, Default)]
pub struct Command {
    /// The task, as the seed writes it.
    pub task: Task,
    /// Whether the body is a form that curl would label as one.
    form: bool,
    /// `--compressed`.
    compressed: bool,
}

/// What a flag does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flag {
    Method,
    Header,
    Data,
    DataLiteral,
    DataEncoded,
    Json,
    Form,
    FormLiteral,
    User,
    Cookie,
    Agent,
    Referer,
    Url,
    Timeout,
    Bearer,
    Get,
    Head,
    Insecure,
    Location,
    Compressed,
    /// Says how curl runs, not what it sends.
    Silent,
    /// The same, with a value.
    SilentValue,
    /// Belongs to the test, not to a task: refused, saying where it goes.
    Elsewhere(&'static str),
}

/// Flags by short and long name.
const FLAGS: &[(&str, &str, Flag)] = &[
    ("X", "request", Flag::Method),
    ("H", "header", Flag::Header),
    ("d", "data", Flag::Data),
    ("", "data-ascii", Flag::Data),
    ("", "data-binary", Flag::Data),
    ("", "data-raw", Flag::DataLiteral),
    ("", "data-urlencode", Flag::DataEncoded),
    ("", "json", Flag::Json),
    ("F", "form", Flag::Form),
    ("", "form-string", Flag::FormLiteral),
    ("u", "user", Flag::User),
    ("b", "cookie", Flag::Cookie),
    ("A", "user-agent", Flag::Agent),
    ("e", "referer", Flag::Referer),
    ("", "url", Flag::Url),
    ("m", "max-time", Flag::Timeout),
    ("", "oauth2-bearer", Flag::Bearer),
    ("G", "get", Flag::Get),
    ("I", "head", Flag::Head),
    ("k", "insecure", Flag::Insecure),
    ("L", "location", Flag::Location),
    ("", "compressed", Flag::Compressed),
    ("s", "silent", Flag::Silent),
    ("S", "show-error", Flag::Silent),
    ("v", "verbose", Flag::Silent),
    ("i", "include", Flag::Silent),
    ("", "show-headers", Flag::Silent),
    ("f", "fail", Flag::Silent),
    ("", "fail-with-body", Flag::Silent),
    ("N", "no-buffer", Flag::Silent),
    ("g", "globoff", Flag::Silent),
    ("#", "progress-bar", Flag::Silent),
    ("", "no-progress-meter", Flag::Silent),
    ("O", "remote-name", Flag::Silent),
    ("J", "remote-header-name", Flag::Silent),
    ("q", "disable", Flag::Silent),
    ("", "path-as-is", Flag::Silent),
    ("", "basic", Flag::Silent),
    ("o", "output", Flag::SilentValue),
    ("w", "write-out", Flag::SilentValue),
    ("D", "dump-header", Flag::SilentValue),
    ("c", "cookie-jar", Flag::SilentValue),
    ("", "trace", Flag::SilentValue),
    ("", "trace-ascii", Flag::SilentValue),
    ("", "stderr", Flag::SilentValue),
    ("", "max-redirs", Flag::SilentValue),
    ("x", "proxy", Flag::Elsewhere("give `proxy` on the test")),
    ("E", "cert", Flag::Elsewhere("give `tls` on the test: {\"cert\": FILE, \"key\": FILE}")),
    ("", "key", Flag::Elsewhere("give `tls` on the test: {\"cert\": FILE, \"key\": FILE}")),
    ("", "cacert", Flag::Elsewhere("give `tls` on the test: {\"ca\": FILE}")),
    ("", "connect-timeout", Flag::Elsewhere("give `timeouts` on the test: {\"connect\": SECONDS}")),
    ("", "retry", Flag::Elsewhere("give `retry` on the task")),
    ("0", "http1.0", Flag::Elsewhere("give `http_version` on the test")),
    ("", "http1.1", Flag::Elsewhere("give `http_version` on the test")),
    ("", "http2", Flag::Elsewhere("give `http_version` on the test")),
    ("", "http2-prior-knowledge", Flag::Elsewhere("give `http_version` on the test")),
    ("", "http3", Flag::Elsewhere("give `http_version` on the test")),
    ("T", "upload-file", Flag::Elsewhere("write the content into `data` of a put")),
    ("K", "config", Flag::Elsewhere("write its flags into the command")),
    ("", "digest", Flag::Elsewhere("only basic and bearer authentication are known")),
    ("", "ntlm", Flag::Elsewhere("only basic and bearer authentication are known")),
    ("", "negotiate", Flag::Elsewhere("only basic and bearer authentication are known")),
    ("", "next", Flag::Elsewhere("write one command a request")),
];

/// Reads a command.
///
/// # Errors
///
/// Why it is none, or holds something that a task cannot say. The text names the flag.
pub fn task(line: &str) -> Result<Command, String> {
    let words = words::split(line.trim())?;
    let mut words = words.into_iter().peekable();
    words.next_if(|word| word == "$");
    let name = words.next().unwrap_or_default();
    let program = name.rsplit(['/', '\\']).next().unwrap_or_default();
    if program != "curl" && program != "curl.exe" {
        return Err(format!("a curl command begins with `curl`, found `{}`", short(&name)));
    }
    let mut reader = Reader::default();
    let mut only_urls = false;
    while let Some(word) = words.next() {
        if only_urls || !word.starts_with('-') || word == "-" {
            reader.url(word)?;
        } else if word == "--" {
            only_urls = true;
        } else if let Some(long) = word.strip_prefix("--") {
            let flag = FLAGS.iter().find(|(_, name, _)| *name == long).map(|(.., flag)| *flag);
            let negated = long.strip_prefix("no-").and_then(|long| FLAGS.iter().find(|(_, name, _)| *name == long));
            match (flag, negated) {
                (Some(flag), _) => reader.flag(flag, &word, || words.next())?,
                // what is off unless it is asked for
                (None, Some((.., Flag::Silent | Flag::Location | Flag::Insecure | Flag::Compressed))) => {}
                _ => return Err(unknown(&word)),
            }
        } else {
            let mut rest = word.get(1..).unwrap_or_default();
            while let Some(letter) = rest.chars().next() {
                let after = rest.get(letter.len_utf8()..).unwrap_or_default();
                let shown = format!("-{letter}");
                let known = FLAGS.iter().find(|(name, ..)| name.chars().eq([letter]));
                let (.., flag) = known.ok_or_else(|| unknown(&shown))?;
                if flag.takes_value() {
                    // the value is the rest of the word, or the next word
                    let own = (!after.is_empty()).then(|| after.to_owned());
                    reader.flag(*flag, &shown, || own.or_else(|| words.next()))?;
                    break;
                }
                reader.flag(*flag, &shown, || None)?;
                rest = after;
            }
        }
    }
    reader.finish()
}

/// The task with what curl sends by itself.
pub fn complete(command: Command) -> Task {
    let Command { mut task, form, compressed } = command;
    if form {
        super::default_header(&mut task, "Content-Type", "application/x-www-form-urlencoded");
    }
    if compressed {
        super::default_header(&mut task, "Accept-Encoding", "gzip, deflate, br");
    }
    task
}

fn unknown(flag: &str) -> String {
    let flag = flag.split('=').next().unwrap_or_default();
    format!("the flag `{flag}` of this curl command is not known: leave it out, or say the same in the task")
}

fn short(text: &str) -> String {
    text.chars().take(40).collect()
}

impl Flag {
    fn takes_value(self) -> bool {
        match self {
            // the last one is refused before a value would be looked at
            Self::Get
            | Self::Head
            | Self::Insecure
            | Self::Location
            | Self::Compressed
            | Self::Silent
            | Self::Elsewhere(_) => false,
            Self::Method
            | Self::Header
            | Self::Data
            | Self::DataLiteral
            | Self::DataEncoded
            | Self::Json
            | Self::Form
            | Self::FormLiteral
            | Self::User
            | Self::Cookie
            | Self::Agent
            | Self::Referer
            | Self::Url
            | Self::Timeout
            | Self::Bearer
            | Self::SilentValue => true,
        }
    }
}

/// What was read so far.
#[derive(Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of curl's")]
struct Reader {
    task: Task,
    url: Option<String>,
    headers: Map<String, Value>,
    data: Vec<String>,
    form: Map<String, Value>,
    is_json: bool,
    is_multipart: bool,
    get: bool,
    head: bool,
    compressed: bool,
}

impl Reader {
    fn url(&mut self, url: String) -> Result<(), String> {
        if let Some(first) = &self.url {
            let (first, second) = (short(first), short(&url));
            return Err(format!("a command with two URLs, `{first}` and `{second}`: write one command a request"));
        }
        self.url = Some(if url.contains("://") || url.starts_with("${") { url } else { format!("http://{url}") });
        Ok(())
    }

    fn flag(&mut self, flag: Flag, shown: &str, value: impl FnOnce() -> Option<String>) -> Result<(), String> {
        if let Flag::Elsewhere(remedy) = flag {
            return Err(format!("the flag `{shown}` of this curl command has no place in a task: {remedy}"));
        }
        let value = if flag.takes_value() {
            value().ok_or_else(|| format!("the flag `{shown}` of this curl command lacks its value"))?
        } else {
            String::new()
        };
        let file = || format!("`{shown} {}` reads a file: write its content into the command", short(&value));
        match flag {
            Flag::Method => drop(self.task.insert("method".into(), value.to_lowercase().into())),
            Flag::Header | Flag::Data | Flag::Json if value.starts_with('@') => return Err(file()),
            Flag::Header => self.header(&value)?,
            Flag::Data | Flag::DataLiteral => self.data.push(value),
            Flag::DataEncoded => {
                let (name, content) = value.split_once('=').unwrap_or(("", &value));
                if name.contains('@') || (!value.contains('=') && value.contains('@')) {
                    return Err(file());
                }
                let encoded = encoded(content);
                self.data.push(if name.is_empty() { encoded } else { format!("{name}={encoded}") });
            }
            Flag::Json => {
                self.is_json = true;
                self.data.push(value);
            }
            Flag::Form | Flag::FormLiteral => {
                let Some((name, content)) = value.split_once('=') else {
                    return Err(format!("`{shown} {}` is no name=value", short(&value)));
                };
                if flag == Flag::Form && content.starts_with(['@', '<']) {
                    return Err(file());
                }
                self.is_multipart = true;
                super::add_repeated(&mut self.form, name, content.into());
            }
            Flag::User => {
                let (user, password) = value.split_once(':').unwrap_or((&value, ""));
                let auth = json!({"type": "basic", "username": user, "password": password});
                self.task.insert("auth".into(), auth);
            }
            Flag::Bearer => drop(self.task.insert("auth".into(), json!({"type": "bearer", "token": value}))),
            Flag::Cookie if value.contains('=') => drop(self.task.insert("cookies".into(), value.into())),
            Flag::Cookie if value.is_empty() => {}
            Flag::Cookie => return Err(file()),
            Flag::Agent => drop(self.headers.insert("User-Agent".into(), value.into())),
            Flag::Referer => drop(self.headers.insert("Referer".into(), value.trim_end_matches(";auto").into())),
            Flag::Url => self.url(value)?,
            Flag::Timeout => {
                let seconds = value.parse::<f64>().ok().filter(|seconds| *seconds > 0.0);
                let seconds = seconds.ok_or_else(|| format!("`{shown} {}` is no time in seconds", short(&value)))?;
                self.task.insert("timeout".into(), json!(seconds));
            }
            Flag::Get => self.get = true,
            Flag::Head => self.head = true,
            Flag::Insecure => drop(self.task.insert("verify".into(), false.into())),
            Flag::Location => drop(self.task.insert("allow_redirects".into(), true.into())),
            Flag::Compressed => self.compressed = true,
            Flag::Silent | Flag::SilentValue | Flag::Elsewhere(_) => {}
        }
        Ok(())
    }

    /// `Name: value`; `Name:` takes a default header away; `Name;` sends it empty.
    fn header(&mut self, line: &str) -> Result<(), String> {
        let (name, value) = match (line.split_once(':'), line.strip_suffix(';')) {
            (Some((name, value)), _) if value.trim().is_empty() => (name, Value::Null),
            (Some((name, value)), _) => (name, value.trim().into()),
            (None, Some(name)) => (name, "".into()),
            (None, None) => return Err(format!("the header `{}` of this curl command has no colon", short(line))),
        };
        self.headers.insert(name.trim().to_owned(), value);
        Ok(())
    }

    fn finish(mut self) -> Result<Command, String> {
        let mut url = self.url.take().ok_or("a curl command without a URL")?;
        let has_body = !self.data.is_empty() || self.is_multipart;
        if self.get && self.is_multipart {
            return Err("`-G` and `-F` of this curl command exclude each other".to_owned());
        }
        let data = self.data.join(if self.is_json { "" } else { "&" });
        let mut body = has_body && !self.is_multipart;
        if self.get && body {
            let (before, fragment) = url.split_once('#').map_or((url.as_str(), ""), |(a, b)| (a, b));
            let joint = if before.contains('?') { '&' } else { '?' };
            let fragment = if fragment.is_empty() { String::new() } else { format!("#{fragment}") };
            url = format!("{before}{joint}{data}{fragment}");
            body = false;
        }
        let default = match (self.head, has_body && !self.get) {
            (true, _) => "head",
            (false, true) => "post",
            (false, false) => "get",
        };
        let mut task = Task::new();
        task.insert("method".into(), self.task.shift_remove("method").unwrap_or_else(|| default.into()));
        task.extend(self.task);
        if !self.headers.is_empty() {
            task.insert("headers".into(), self.headers.into());
        }
        if self.is_json {
            super::default_header(&mut task, "Content-Type", "application/json");
            super::default_header(&mut task, "Accept", "application/json");
        }
        if body {
            task.insert("data".into(), data.into());
        } else if self.is_multipart {
            task.insert("data".into(), self.form.into());
            task.insert("files".into(), json!({}));
        }
        task.insert("request_url".into(), url.into());
        Ok(Command { task, form: body && !self.is_json, compressed: self.compressed })
    }
}

/// Percent-encoded as curl does it: all but letters, digits and `-._~`.
fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            write!(out, "%{byte:02X}").expect("writing to a String cannot fail");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_are_the_seeds() {
        let line = "curl -X PUT -b c=1 -L --compressed -H 'A: b' -d x=1 --data y=2 'http://127.0.0.1/a?b=1'";
        let golden = r#"{"method":"put","cookies":"c=1","allow_redirects":true,"headers":{"A":"b"},"data":"x=1&y=2","request_url":"http://127.0.0.1/a?b=1"}"#;
        assert_eq!(serde_json::to_string(&task(line).unwrap().task).unwrap(), golden);
        let completed = complete(task(line).unwrap());
        assert_eq!(
            completed["headers"],
            json!({"A": "b", "Content-Type": "application/x-www-form-urlencoded", "Accept-Encoding": "gzip, deflate, br"})
        );
        let line = "curl -X POST http://127.0.0.1/login -H 'Content-Type: application/json' -u u:p -k -d '{\"x\":1}'";
        assert_eq!(
            json!(task(line).unwrap().task),
            json!({
                "method": "post", "auth": {"type": "basic", "username": "u", "password": "p"}, "verify": false,
                "headers": {"Content-Type": "application/json"}, "data": "{\"x\":1}", "request_url": "http://127.0.0.1/login",
            })
        );
    }

    #[test]
    fn flags_mean_what_they_mean_to_curl() {
        let table = [
            ("curl h/x", json!({"method": "get", "request_url": "http://h/x"})),
            (
                "$ /usr/bin/curl -sSLkXDELETE http://h",
                json!({"method": "delete", "allow_redirects": true, "verify": false, "request_url": "http://h"}),
            ),
            (
                "curl -I --url http://h -A me -e http://r -m 2.5 --no-progress-meter --no-silent -o x",
                json!({"method": "head",
                "timeout": 2.5, "headers": {"User-Agent": "me", "Referer": "http://r"}, "request_url": "http://h"}),
            ),
            (
                "curl -G http://h/?a=1#f -d b=2 --data-urlencode 'c=x y&z'",
                json!({"method": "get", "request_url": "http://h/?a=1&b=2&c=x%20y%26z#f"}),
            ),
            (
                "curl -F a=1 -F a=2 --form-string b=@x http://h",
                json!({"method": "post", "data": {"a": ["1", "2"], "b": "@x"},
                "files": {}, "request_url": "http://h"}),
            ),
            (
                "curl --json '{\"a\":' --json '1}' http://h",
                json!({"method": "post", "headers": {"Content-Type": "application/json",
                "Accept": "application/json"}, "data": "{\"a\":1}", "request_url": "http://h"}),
            ),
            (
                "curl -H Accept: -H 'X;' -H 'Y:z' --oauth2-bearer t -- http://h",
                json!({"method": "get", "auth": {"type": "bearer", "token": "t"},
                "headers": {"Accept": null, "X": "", "Y": "z"}, "request_url": "http://h"}),
            ),
            (
                "curl --data-raw @x http://h -u me",
                json!({"method": "post", "auth": {"type": "basic", "username": "me", "password": ""},
                "data": "@x", "request_url": "http://h"}),
            ),
        ];
        for (line, expected) in table {
            assert_eq!(json!(task(line).unwrap().task), expected, "{line}");
        }
    }

    #[test]
    fn what_a_task_cannot_say_is_refused_by_name() {
        let table = [
            ("wget http://h", "a curl command begins with `curl`, found `wget`"),
            ("curl", "a curl command without a URL"),
            ("curl http://h --frobnicate=1", "the flag `--frobnicate` of this curl command is not known"),
            ("curl -sZ http://h", "the flag `-Z` of this curl command is not known"),
            ("curl http://h -d", "the flag `-d` of this curl command lacks its value"),
            ("curl http://h -d @body.json", "`-d @body.json` reads a file"),
            ("curl http://h -b jar.txt", "`-b jar.txt` reads a file"),
            ("curl http://h -F f=@a.png", "`-F f=@a.png` reads a file"),
            ("curl http://h http://i", "two URLs"),
            ("curl -x http://p http://h", "the flag `-x` of this curl command has no place in a task: give `proxy`"),
            ("curl --http2 http://h", "give `http_version`"),
            ("curl 'http://h", "a quote ' is not closed"),
            ("curl -H nocolon http://h", "has no colon"),
            ("curl -m soon http://h", "is no time"),
        ];
        for (line, expected) in table {
            let error = task(line).unwrap_err();
            assert!(error.contains(expected), "{line}: {error}");
        }
    }
}
