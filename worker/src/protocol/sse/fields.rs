//! Fields of a task: HTTP's that make sense, and when its stream has come to its end.

use crate::protocol::Fault;
use crate::protocol::expect::{self, ExpectField};
use crate::protocol::http::requests::{self, Requests, SSE_USER};
use crate::protocol::reader::Reader;
use ld_shared::json_schema::{about, boolean, default, or_null, text};
use ld_shared::plan::ScenarioPlan;
use serde_json::{Map, Value, json};

/// Seconds for a task that names no time-out.
const TIMEOUT: f64 = 60.0;

/// Names of the fields; HTTP's stand first.
pub(super) const FIELDS: &[&str] = &[
    "method",
    "request_url",
    "url",
    "params",
    "headers",
    "cookies",
    "json",
    "data",
    "auth",
    "timeout",
    "verify",
    "events",
    "until",
    "event",
    "duration",
    "resume",
];
/// So many of them are HTTP's.
const OF_HTTP: usize = 11;

/// When a stream has come to its end, and what is kept of it.
#[derive(Clone, Debug)]
pub(super) struct Fields {
    /// So many events came.
    pub(super) events: Option<u64>,
    /// An event holds this.
    pub(super) until: Option<ExpectField>,
    /// The type of the events that count; `None`: all do.
    pub(super) event: Option<String>,
    /// Seconds since the request.
    pub(super) duration: Option<f64>,
    pub(super) resumes: bool,
    pub(super) timeout: f64,
}

/// The fields of the request, as HTTP reads them.
pub(super) fn request(fields: &Map<String, Value>) -> Map<String, Value> {
    let is_http = |key: &str| FIELDS[..OF_HTTP].contains(&key);
    let mut request: Map<String, Value> =
        fields.iter().filter(|(key, _)| is_http(key)).map(|(key, value)| (key.clone(), value.clone())).collect();
    if request.get("method").is_none_or(Value::is_null) {
        request.insert("method".to_owned(), "get".into());
    }
    let headers = request.entry("headers").or_insert_with(|| json!({}));
    if headers.is_null() {
        *headers = json!({});
    }
    if let Value::Object(headers) = headers {
        for (name, value) in [("Accept", "text/event-stream"), ("Cache-Control", "no-cache")] {
            if !headers.keys().any(|own| own.eq_ignore_ascii_case(name)) {
                headers.insert(name.to_owned(), value.into());
            }
        }
    }
    request
}

/// Reads the fields; `Err` holds every fault.
pub(super) fn parse(fields: &Map<String, Value>, scenario: &ScenarioPlan) -> Result<Fields, Vec<Fault>> {
    let mut reader = Reader::new(fields);
    let timeout =
        reader.get("timeout").and_then(|value| value.as_f64().or_else(|| value.as_str()?.trim().parse().ok()));
    let duration = reader.seconds("duration");
    let parsed = Fields {
        events: reader.whole("events", 1, u64::MAX),
        until: ExpectField::read(&mut reader, "until"),
        event: reader.text("event").map(str::to_owned),
        duration,
        resumes: reader.flag("resume").unwrap_or(false),
        timeout: timeout.unwrap_or(TIMEOUT + duration.unwrap_or(0.0)),
    };
    if let (Some(duration), Some(timeout)) = (duration, timeout)
        && duration >= timeout
    {
        let fault = Fault::new("/duration", format!("{duration} s are not shorter than the time-out of {timeout} s"));
        reader.fault(fault.help("raise `timeout`, or leave it out"));
    }
    if parsed.event.is_some() && parsed.events.is_none() && parsed.until.is_none() {
        let fault = Fault::new("/event", "`event` says which events count, but none are waited for");
        reader.fault(fault.help("give `events` or `until`"));
    }
    if fields.get("method").and_then(Value::as_str).is_some_and(|method| method.trim().eq_ignore_ascii_case("head")) {
        reader.fault(Fault::new("/method", "an answer to HEAD has no events").help("use get or post"));
    }
    for fault in Requests::check(&request(fields), scenario, SSE_USER) {
        reader.fault(fault);
    }
    reader.finish(parsed)
}

/// JSON Schema of a task.
pub(super) fn schema() -> Value {
    let properties: Map<String, Value> = FIELDS.iter().map(|name| ((*name).to_owned(), field(name))).collect();
    json!({"properties": properties, "anyOf": [{"required": ["request_url"]}, {"required": ["url"]}]})
}

fn field(name: &str) -> Value {
    let seconds = json!({"anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"type": "string", "pattern": "^\\s*[0-9.eE+-]+\\s*$"}]});
    let (schema, words) = match name {
        "timeout" => (default(seconds, TIMEOUT), "Seconds; after them the task has failed"),
        "events" => (json!({"type": ["integer", "string"], "minimum": 1}), "The task ends with so many events"),
        "until" => return or_null(expect::schema("The task ends with an event whose data holds this")),
        "event" => (text(), "Only events of this type count"),
        "duration" => (seconds, "The task ends after so many seconds, well if it waits for no event"),
        "resume" => (default(boolean(), false), "Send the last event's id with the user's next request to this URL"),
        http => return requests::schema(http),
    };
    about(or_null(schema), words)
}
