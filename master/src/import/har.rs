//! HAR recordings, version 1.2, read leniently: browsers leave fields out and add their own.

use super::credentials::{self, Credentials};
use super::{ImportError, Imported, Task, exact_json, list, text};
use chrono::DateTime;
use regex::Regex;
use serde_json::{Map, Value, json};

/// Headers that belong to the recorded connection.
const DROPPED: [&str; 7] = ["host", "content-length", "connection", ":authority", ":method", ":path", ":scheme"];

/// What becomes of a recording beyond its requests.
#[derive(Clone, Copy, Debug, Default)]
pub struct HarOptions {
    /// Whether the pauses between requests become `think_time`.
    pub pauses: bool,
    /// What becomes of credentials.
    pub credentials: Credentials,
}

/// Which URLs are taken.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    include: Vec<Regex>,
    exclude: Vec<Regex>,
}

impl Filter {
    /// From lists of regular expressions, which are searched anywhere in the URL.
    ///
    /// # Errors
    ///
    /// An expression that is none.
    pub fn new(include: &[String], exclude: &[String]) -> Result<Self, ImportError> {
        let compile = |patterns: &[String]| patterns.iter().map(|pattern| compile(pattern)).collect::<Result<_, _>>();
        Ok(Self { include: compile(include)?, exclude: compile(exclude)? })
    }

    fn takes(&self, url: &str) -> bool {
        let any = |patterns: &[Regex]| patterns.iter().any(|pattern| pattern.is_match(url));
        (self.include.is_empty() || any(&self.include)) && !any(&self.exclude)
    }
}

/// Compiles one expression.
fn compile(pattern: &str) -> Result<Regex, ImportError> {
    Regex::new(pattern).map_err(|error| {
        let text = error.to_string();
        // its last line says why, those before draw the place
        let reason = text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
        ImportError::Pattern { pattern: pattern.to_owned(), reason }
    })
}

/// The requests of a recording as tasks.
///
/// # Errors
///
/// Something that is no recording.
pub fn tasks(har: &Value, filter: &Filter, options: HarOptions) -> Result<Imported, ImportError> {
    let entries = har
        .get("log")
        .and_then(|log| log.get("entries"))
        .and_then(Value::as_array)
        .ok_or_else(|| ImportError::Shape("this is no HAR recording: it has no list `log.entries`".to_owned()))?;
    let mut imported = Imported::default();
    let mut pauses = Pauses::default();
    for entry in entries {
        let Some((url, task)) = task(entry).filter(|(url, _)| filter.takes(url)) else { continue };
        if options.pauses
            && let Some(seconds) = pauses.before(entry)
            && let Some(previous) = imported.tasks.last_mut()
        {
            previous.insert("think_time".into(), json!(seconds));
        }
        if !url.starts_with("http://") && !url.starts_with("https://") {
            let scheme = url.split(':').next().unwrap_or_default();
            imported.notes.push(format!(
                "`{}` is no HTTP request: no HTTP user can make it, leave it out with \"exclude\": [\"^{scheme}:\"]",
                url.chars().take(60).collect::<String>()
            ));
        }
        imported.tasks.push(task);
    }
    if let Some(form) = options.credentials.placeholder() {
        credentials::replace(&mut imported, form);
    }
    Ok(imported)
}

/// The URL and the task of an entry; `None` if it has no request, method or URL.
fn task(entry: &Value) -> Option<(&str, Task)> {
    let request = entry.get("request")?;
    let method = text(request, "method")?;
    let url = text(request, "url")?;
    let mut task = Task::new();
    task.insert("method".into(), method.to_lowercase().into());
    task.insert("request_url".into(), url.into());
    task.insert("name".into(), format!("{} {}", method.to_uppercase(), path_of(url)).into());
    let headers = headers(request);
    if !headers.is_empty() {
        task.insert("headers".into(), headers.into());
    }
    if let Some((key, body)) = request.get("postData").and_then(body) {
        task.insert(key.into(), body);
    }
    let status = entry.get("response").and_then(|response| response.get("status"));
    if let Some(status) = status.filter(|status| status.as_i64().is_some_and(|status| status != 0)) {
        task.insert("assertions".into(), json!([{"type": "status_code", "value": status}]));
    }
    Some((url, task))
}

/// Path, query and fragment of a URL, or the whole if it has no `scheme://`.
fn path_of(url: &str) -> String {
    let Some((_, rest)) = url.split_once("://") else { return url.to_owned() };
    let path = rest.find(['/', '?', '#']).and_then(|at| rest.get(at..)).unwrap_or_default();
    if path.starts_with('/') { path.to_owned() } else { format!("/{path}") }
}

fn headers(request: &Value) -> Map<String, Value> {
    let mut headers = Map::new();
    for header in list(request, "headers") {
        let Some(name) = text(header, "name") else { continue };
        if !DROPPED.contains(&name.to_ascii_lowercase().as_str()) {
            let value = header.get("value").and_then(Value::as_str).unwrap_or_default();
            headers.insert(name.into(), value.into());
        }
    }
    headers
}

/// The field that holds a body, and its value.
fn body(post: &Value) -> Option<(&'static str, Value)> {
    let content = text(post, "text");
    let is_json = text(post, "mimeType").is_some_and(|kind| kind.to_ascii_lowercase().contains("application/json"));
    if let Some(content) = content.filter(|_| is_json) {
        return Some(match exact_json(content) {
            Some(value) => ("json", value),
            None => ("data", content.into()),
        });
    }
    let mut fields = Map::new();
    for field in list(post, "params") {
        let Some(name) = field.get("name").and_then(Value::as_str) else { continue };
        fields.insert(name.into(), field.get("value").cloned().unwrap_or_default());
    }
    if !fields.is_empty() {
        return Some(("data", fields.into()));
    }
    content.map(|content| ("data", content.into()))
}

/// Pauses between requests: from when everything before had ended to the next start.
#[derive(Debug, Default)]
struct Pauses {
    /// When the last of the requests so far ended, seconds since 1970.
    ended: Option<f64>,
}

impl Pauses {
    /// Seconds before this entry, if there was a pause of at least a millisecond.
    fn before(&mut self, entry: &Value) -> Option<f64> {
        let started = DateTime::parse_from_rfc3339(text(entry, "startedDateTime")?).ok()?;
        let started = started.timestamp_micros() as f64 / 1e6;
        let took = entry.get("time").and_then(Value::as_f64).filter(|ms| *ms > 0.0).unwrap_or(0.0);
        let before = self.ended;
        let ended = started + took / 1e3;
        self.ended = Some(before.map_or(ended, |before| before.max(ended)));
        let pause = ((started - before?) * 1e3).round() / 1e3;
        (pause > 0.0).then_some(pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn golden(name: &str) -> Value {
        let text = match name {
            "tasks" => include_str!("tests/har/tasks.json"),
            "action" => include_str!("tests/har/action.json"),
            "action2" => include_str!("tests/har/action2.json"),
            _ => include_str!("tests/har/recording.har"),
        };
        serde_json::from_str(text).unwrap()
    }

    fn import(har: &Value, include: &[&str], exclude: &[&str], options: HarOptions) -> Imported {
        let owned = |patterns: &[&str]| patterns.iter().map(|&p| p.to_owned()).collect::<Vec<_>>();
        tasks(har, &Filter::new(&owned(include), &owned(exclude)).unwrap(), options).unwrap()
    }

    /// Equal to the byte: values, and the order of keys.
    fn assert_same(ours: &Value, theirs: &Value) {
        assert_eq!(serde_json::to_string_pretty(ours).unwrap(), serde_json::to_string_pretty(theirs).unwrap());
    }

    #[test]
    fn tasks_and_documents_are_the_seeds() {
        let har = golden("recording");
        let all = import(&har, &[], &[], HarOptions::default());
        assert_same(&json!(all.tasks), &golden("tasks"));
        assert_eq!(all.notes.len(), 2, "data: and ws: {:?}", all.notes);
        let load = |user: &str, count: u64, rate: u64, time: u64| super::super::Load {
            user: user.into(),
            user_count: count.into(),
            spawn_rate: rate.into(),
            test_time: time.into(),
        };
        let some = import(&har, &[], &["/assets/", "^data:", "^ws:", ":18080$"], HarOptions::default());
        assert_same(&super::super::document(&some, &load("fast_http_user", 10, 5, 60)), &golden("action"));
        let one = import(&har, &["/login$"], &[], HarOptions::default());
        assert_same(&super::super::document(&one, &load("http_user", 3, 2, 9)), &golden("action2"));
    }

    #[test]
    fn pauses_run_from_the_last_end_to_the_next_start() {
        let entry = |url: &str, at: &str, ms: Value| json!({"startedDateTime": at, "time": ms, "request": {"method": "GET", "url": url}});
        let har = json!({"log": {"entries": [
            entry("http://h/a", "2026-01-05T10:00:00.000Z", json!(1000)),
            entry("http://h/within", "2026-01-05T10:00:00.100Z", json!(100)),
            entry("http://h/c", "2026-01-05T11:00:01.500+01:00", Value::Null),
            entry("http://h/nowhen", "", json!(5)),
            entry("http://h/d", "2026-01-05T10:00:03.7504Z", json!(1)),
        ]}});
        let options = HarOptions { pauses: true, ..HarOptions::default() };
        let pauses: Vec<_> =
            import(&har, &[], &[], options).tasks.iter().map(|task| task.get("think_time").cloned()).collect();
        assert_eq!(pauses, [None, Some(json!(0.5)), None, Some(json!(2.25)), None]);
    }

    #[test]
    fn what_is_odd_is_taken_as_it_is() {
        let post = |post: Value| {
            let entry = json!({"request": {"method": "Post", "url": "http://h?x=1#f", "postData": post}});
            let task = import(
                &json!({"log": {"entries": [5, {}, {"request": {"url": "x"}}, entry]}}),
                &[],
                &[],
                HarOptions::default(),
            )
            .tasks
            .remove(0);
            assert_eq!((&task["method"], &task["name"]), (&json!("post"), &json!("POST /?x=1#f")));
            (task.get("json").cloned(), task.get("data").cloned())
        };
        let big = r#"{"id": 123456789012345678901}"#;
        let table = [
            (json!({"mimeType": "Application/JSON", "text": "[1]"}), (Some(json!([1])), None)),
            (json!({"mimeType": "application/json", "text": big}), (None, Some(json!(big)))),
            (json!({"mimeType": "application/json", "params": [{"name": "a"}]}), (None, Some(json!({"a": null})))),
            (json!({"text": "x"}), (None, Some(json!("x")))),
            (json!(null), (None, None)),
        ];
        for (data, expected) in table {
            assert_eq!(post(data.clone()), expected, "{data}");
        }
        for no_har in [json!({}), json!({"log": {}}), json!([])] {
            assert!(tasks(&no_har, &Filter::default(), HarOptions::default()).is_err(), "{no_har}");
        }
        let bad = Filter::new(&["(".into()], &[]).unwrap_err();
        assert_eq!((bad.kind(), bad.to_string()), ("error", "`(` is no regular expression: unclosed group".into()));
        assert_eq!(path_of("https://u:p@h:1/a?b#c"), "/a?b#c");
    }
}
