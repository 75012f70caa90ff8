//! Action documents: read as a whole and checked as a whole before anything of them runs.
//!
//! ```json
//! {"load_density": [["LD_clear_records"], ["LD_start_test", {"user_detail_dict": {"user": "fast_http_user"}}]]}
//! ```
//!
//! A document is a list of actions, or an object whose `load_density` is that list. An action is
//! `[name]`, `[name, {arguments by name}]` or `[name, [arguments by position]]`.

mod absent;
mod check;
mod json;
mod later;
pub(crate) mod reader;
mod seed;
pub mod spec;
pub mod units;

pub(crate) use check::MOST_DEEP;
pub use check::{Checker, check};
pub use ld_shared::fault::Fault;
pub(crate) use seed::{EXECUTE as EXECUTE_EXCEPTION, type_name};
pub use spec::{CommandSpec, Kind, Parameter, Signature, Vocabulary};

use ld_shared::fault::{Seed, step};
use serde_json::{Map, Value};
use spec::shown;

/// How a document is taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Strictness {
    /// Any fault refuses the whole of it, before anything runs.
    #[default]
    Strict,
    /// What the seed would run, runs: what it passes over becomes a warning, other faults fail
    /// their action when its turn comes.
    Lenient,
}

/// A document: what is to be done, in order.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    /// The actions.
    pub actions: Vec<Action>,
    /// How it is taken.
    pub strictness: Strictness,
    /// What was passed over, one sentence each.
    pub warnings: Vec<String>,
}

/// One action.
#[derive(Clone, Debug, PartialEq)]
pub struct Action {
    /// Its place in the document, from 0.
    pub index: usize,
    /// Where it stands: `/load_density/1`.
    pub pointer: String,
    /// The whole of it as written.
    pub source: Value,
    /// Name of its command; what stands in its place if it is malformed.
    pub name: String,
    /// What the command is given.
    pub arguments: Arguments,
    /// Why it cannot run, if it is malformed: only in a document that is taken leniently.
    pub malformed: Option<Box<Fault>>,
}

/// What a command is given.
#[derive(Clone, Debug, PartialEq)]
pub enum Arguments {
    /// Nothing: `[name]`.
    None,
    /// By name: `[name, {…}]`.
    Named(Map<String, Value>),
    /// By position: `[name, […]]`.
    Positional(Vec<Value>),
}

/// The document's key for the list of actions.
const KEY: &str = "load_density";
const EXAMPLE: &str = r#"write a list of actions, like [["LD_start_test", {…}]], or {"load_density": [ … ]}"#;

/// Reads a document (UTF-8 JSON).
///
/// # Errors
///
/// Every fault of its shape; leniently only those for which the seed refuses the whole of it.
/// What commands make of their arguments is [`check`]'s matter.
pub fn parse(text: &[u8], strictness: Strictness) -> Result<Document, Vec<Fault>> {
    let (root, faults) = json::read(text)?;
    settle(walk(&root, strictness, faults))
}

/// A document from a value that stands inside another one.
///
/// # Errors
///
/// As [`parse`]; pointers begin at the value.
pub fn from_value(root: &Value, strictness: Strictness) -> Result<Document, Vec<Fault>> {
    settle(walk(root, strictness, Vec::new()))
}

/// Reads and checks a document: [`parse`] and [`check`] in one, so that faults of both kinds are
/// reported at once. Leniently, commands are checked when their turn comes.
///
/// # Errors
///
/// Every fault of the document, in its order.
pub fn read(
    text: &[u8],
    strictness: Strictness,
    commands: &(impl Vocabulary + ?Sized),
) -> Result<Document, Vec<Fault>> {
    let (root, faults) = json::read(text)?;
    let (document, mut faults) = walk(&root, strictness, faults);
    if strictness == Strictness::Strict {
        faults.extend(check(&document, commands));
        faults.sort_by_key(|fault| place(&fault.pointer));
    }
    settle((document, faults))
}

/// The document, unless a fault stands in its way.
fn settle((mut document, faults): (Document, Vec<Fault>)) -> Result<Document, Vec<Fault>> {
    let lenient = document.strictness == Strictness::Lenient;
    let (passed, refusing): (Vec<_>, Vec<_>) = faults.into_iter().partition(|fault| lenient && fault.is_ignored());
    if !refusing.is_empty() {
        return Err(refusing);
    }
    document.warnings = passed.iter().map(warning).collect();
    Ok(document)
}

/// A fault that was passed over, as a warning.
pub fn warning(fault: &Fault) -> String {
    let place = if fault.pointer.is_empty() { String::new() } else { format!(" at {}", fault.pointer) };
    let what = if fault.seed == Seed::Records { "recorded as failed" } else { "passed over" };
    format!("{}{place}: {what}, as the seed does", fault.message)
}

impl Action {
    /// The arguments by name: those by position get the names of the command's parameters. What
    /// has no name ([`check`] refuses it) is left out.
    pub fn named(&self, command: &CommandSpec) -> Map<String, Value> {
        match &self.arguments {
            Arguments::None => Map::new(),
            Arguments::Named(map) => map.clone(),
            Arguments::Positional(values) => positional(command)
                .zip(values)
                .map(|(parameter, value)| (parameter.name.into(), value.clone()))
                .collect(),
        }
    }

    /// Where its arguments stand.
    pub fn arguments_pointer(&self) -> String {
        format!("{}/1", self.pointer)
    }
}

/// Parameters that may be given by position, in their order.
pub(crate) fn positional(command: &CommandSpec) -> impl Iterator<Item = &'static Parameter> + use<> {
    command.parameters.iter().filter(|parameter| parameter.positional)
}

/// Number of the action that a pointer leads into; before all of them what is about the whole.
fn place(pointer: &str) -> Option<usize> {
    let rest = pointer.strip_prefix(&step(KEY)).unwrap_or(pointer);
    rest.split('/').nth(1)?.parse().ok()
}

/// The actions of a document, and every fault of its shape.
fn walk(root: &Value, strictness: Strictness, mut faults: Vec<Fault>) -> (Document, Vec<Fault>) {
    let (list, base) = match root {
        Value::Array(list) => (Some(list), String::new()),
        Value::Object(map) => (list_of(map, &mut faults), format!("/{KEY}")),
        other => {
            faults
                .push(Fault::new("", format!("a document is a list of actions, found {}", shown(other))).help(EXAMPLE));
            (None, String::new())
        }
    };
    if list.is_some_and(Vec::is_empty) {
        faults.push(Fault::new(base.as_str(), "the list of actions is empty: there is nothing to do").help(EXAMPLE));
    }
    let mut actions = Vec::new();
    for (index, value) in list.into_iter().flatten().enumerate() {
        match action(index, format!("{base}/{index}"), value) {
            Ok(action) => actions.push(action),
            Err(fault) if strictness == Strictness::Lenient => {
                actions.push(seed::action(index, format!("{base}/{index}"), value, fault));
            }
            Err(fault) => faults.push(fault),
        }
    }
    (Document { actions, strictness, warnings: Vec::new() }, faults)
}

fn list_of<'a>(map: &'a Map<String, Value>, faults: &mut Vec<Fault>) -> Option<&'a Vec<Value>> {
    // what describes the document to people and editors is none of our business
    let about = ["metadata", "$schema"];
    let keys: Vec<&str> = map.keys().map(String::as_str).filter(|key| !about.contains(key)).collect();
    let Some(value) = map.get(KEY) else {
        let found = if keys.is_empty() { "it is empty".into() } else { format!("it has {}", quoted(&keys)) };
        let help = match keys.as_slice() {
            [key] => format!("rename `{key}` to `{KEY}`"),
            _ => EXAMPLE.into(),
        };
        faults.push(Fault::new("", format!("the document has no `{KEY}`, the list of actions; {found}")).help(help));
        return None;
    };
    for key in keys.into_iter().filter(|key| *key != KEY) {
        let fault = Fault::new(step(key), format!("unknown key `{key}` beside `{KEY}`"));
        faults.push(fault.help(format!("accepted: {KEY}, {}", about.join(", "))).ignored());
    }
    if !value.is_array() {
        let message = format!("`{KEY}` is the list of actions, found {}", shown(value));
        faults.push(Fault::new(format!("/{KEY}"), message).help(EXAMPLE));
    }
    value.as_array()
}

fn quoted(keys: &[&str]) -> String {
    keys.iter().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", ")
}

fn action(index: usize, pointer: String, value: &Value) -> Result<Action, Fault> {
    let help = r#"write ["NAME"], ["NAME", {"key": value}] or ["NAME", [value, …]]"#;
    let Value::Array(elements) = value else {
        let example = value.as_str().map_or(help.to_owned(), |name| format!("write [\"{name}\"]"));
        return Err(Fault::new(pointer, format!("an action is a list, found {}", shown(value))).help(example));
    };
    let (name, payload) = match elements.as_slice() {
        [name] => (name, None),
        [name, payload] => (name, Some(payload)),
        [] => return Err(Fault::new(pointer, "an action without a name").help(help)),
        more => {
            let message =
                format!("an action has a name and one object or list of arguments, found {} elements", more.len());
            return Err(Fault::new(pointer, message).help(help));
        }
    };
    let Value::String(name) = name else {
        return Err(
            Fault::new(format!("{pointer}/0"), format!("a command's name is a text, found {}", shown(name))).help(help)
        );
    };
    let arguments = match payload {
        None => Arguments::None,
        Some(Value::Object(map)) => Arguments::Named(map.clone()),
        Some(Value::Array(list)) => Arguments::Positional(list.clone()),
        Some(other) => {
            let message = format!("arguments are an object or a list, found {}", shown(other));
            return Err(Fault::new(format!("{pointer}/1"), message).help(help));
        }
    };
    Ok(Action { index, pointer, source: value.clone(), name: name.clone(), arguments, malformed: None })
}

#[cfg(test)]
mod tests;
