//! What the seed makes of faulty fields of an HTTP task.

use crate::script::Fault;
use serde_json::{Map, Value};

/// What the seed passes over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Passes {
    /// The whole task: it makes no request and leaves no record.
    Task,
    /// One field of it.
    Field(&'static str),
}

/// What the seed passes over because of this fault of the fields of an HTTP task; `None`: nothing.
/// Its other users record a step that they do not understand as failed.
pub(super) fn passes_over(fault: &Fault, fields: &Map<String, Value>) -> Option<Passes> {
    let field = fault.pointer.split('/').nth(1)?;
    match field {
        "method" => Some(Passes::Task),
        "request_url" | "url" if url(fields).is_none() => Some(Passes::Task),
        "auth" => Some(Passes::Field("auth")),
        "timeout" => Some(Passes::Field("timeout")),
        _ => None,
    }
}

/// The URL that the seed would request.
fn url(fields: &Map<String, Value>) -> Option<&str> {
    let text = |key: &str| fields.get(key).and_then(Value::as_str).filter(|url| !url.trim().is_empty());
    text("request_url").or_else(|| text("url"))
}
