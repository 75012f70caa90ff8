//! Action documents: read as a whole and checked as a whole before anything of them runs.
//!
//! ```json
//! {"load_density": [["LD_clear_records"], ["LD_start_test", {"user_detail_dict": {"user": "fast_http_user"}}]]}
//! ```
//!
//! A document is a list of actions, or an object whose `load_density` is that list. An action is
//! `[name]`, `[name, {arguments by name}]` or `[name, [arguments by position]]`.

mod json;
mod later;
pub(crate) mod reader;
pub mod spec;
pub mod units;

pub use ld_shared::fault::Fault;
pub use spec::{CommandSpec, Kind, Parameter};

use ld_shared::fault::{did_you_mean, nearest, step};
use serde_json::{Map, Value};
use spec::shown;

/// A document: what is to be done, in order.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    /// The actions.
    pub actions: Vec<Action>,
}

/// One action.
#[derive(Clone, Debug, PartialEq)]
pub struct Action {
    /// Its place in the document, from 0.
    pub index: usize,
    /// Where it stands: `/load_density/1`.
    pub pointer: String,
    /// Name of its command.
    pub name: String,
    /// What the command is given.
    pub arguments: Arguments,
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

/// Reads a document (UTF-8 JSON).
///
/// # Errors
///
/// Every fault of its shape. What commands make of their arguments is [`check`]'s matter.
pub fn parse(text: &[u8]) -> Result<Document, Vec<Fault>> {
    let (document, faults) = walk(&value(text)?);
    if faults.is_empty() { Ok(document) } else { Err(faults) }
}

/// Reads and checks a document: [`parse`] and [`check`] in one, so that faults of both kinds are
/// reported at once.
///
/// # Errors
///
/// Every fault of the document, in its order.
pub fn read(text: &[u8], commands: &[CommandSpec]) -> Result<Document, Vec<Fault>> {
    let (document, mut faults) = walk(&value(text)?);
    faults.extend(check(&document, commands));
    faults.sort_by_key(|fault| place(&fault.pointer));
    if faults.is_empty() { Ok(document) } else { Err(faults) }
}

/// Every fault of a document against the commands that there are.
pub fn check(document: &Document, commands: &[CommandSpec]) -> Vec<Fault> {
    let mut faults = Vec::new();
    for action in &document.actions {
        match commands.iter().find(|command| command.name == action.name) {
            Some(command) => check_action(action, command, &mut faults),
            None => faults.push(unknown_command(action, commands)),
        }
    }
    faults
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

    /// Where the argument of a parameter stands: by position it is a number.
    fn argument_pointer(&self, command: &CommandSpec, name: &str) -> String {
        let place = positional(command).position(|parameter| parameter.name == name);
        match (&self.arguments, place) {
            (Arguments::Positional(_), Some(place)) => format!("{}/1/{place}", self.pointer),
            _ => format!("{}/1{}", self.pointer, step(name)),
        }
    }
}

fn positional(command: &CommandSpec) -> impl Iterator<Item = &'static Parameter> + use<> {
    command.parameters.iter().filter(|parameter| parameter.positional)
}

/// Number of the action that a pointer leads into; before all of them what is about the whole.
fn place(pointer: &str) -> Option<usize> {
    let rest = pointer.strip_prefix(&step(KEY)).unwrap_or(pointer);
    rest.split('/').nth(1)?.parse().ok()
}

fn value(text: &[u8]) -> Result<Value, Vec<Fault>> {
    let fault = |message: String, help: &str| vec![Fault::new("", message).help(help)];
    if text.starts_with(b"\xef\xbb\xbf") {
        let help = "save the file as UTF-8 without byte order mark (BOM)";
        return Err(fault("the document begins with a byte order mark".into(), help));
    }
    let text = std::str::from_utf8(text).map_err(|error| {
        let before = text.get(..error.valid_up_to()).unwrap_or_default();
        let line = before.split(|byte| *byte == b'\n').count();
        fault(format!("the document is not UTF-8: line {line} has other bytes"), "save the file as UTF-8")
    })?;
    if text.trim().is_empty() {
        return Err(fault("the document is empty".into(), EXAMPLE));
    }
    json::parse(text).map_err(|error| vec![syntax(text, &error)])
}

const EXAMPLE: &str = r#"write a list of actions, like [["LD_start_test", {…}]], or {"load_density": [ … ]}"#;

/// A JSON error with the line where it is.
fn syntax(text: &str, error: &serde_json::Error) -> Fault {
    const SHOWN: usize = 60;
    let (line, column) = (error.line(), error.column());
    let whole = error.to_string();
    let what = whole.split(" at line ").next().unwrap_or_default().to_owned();
    let shown = text.lines().nth(line.saturating_sub(1)).unwrap_or_default();
    // the column counts bytes; a caret stands below characters
    let caret = shown.get(..column.saturating_sub(1)).unwrap_or(shown).chars().count();
    let from = caret.saturating_sub(SHOWN / 2);
    let cut: String = shown.chars().skip(from).take(SHOWN).collect();
    let gutter = " ".repeat(line.to_string().len());
    let pad = " ".repeat(caret - from);
    let message = format!(
        "the document cannot be read as JSON: {what} in line {line}, column {column}\n  {line} | {cut}\n  {gutter} | {pad}^"
    );
    let found = shown.chars().nth(caret);
    let help = match what.as_str() {
        "expected value" if found == Some('\'') => "texts stand in double quotes",
        "expected value" if matches!(found, Some('T' | 'F' | 'N')) => "JSON writes true, false and null",
        "trailing comma" => "JSON has no comma after the last element: remove it",
        "key must be a string" => "keys stand in double quotes",
        _ if what.starts_with(json::TWICE) => "only the last one would count: rename or remove one",
        "trailing characters" => "one document holds one list or one object: remove what follows it",
        _ if error.is_eof() => "the document ends too early: a bracket, brace or quote is not closed",
        _ => return Fault::new("", message),
    };
    Fault::new("", message).help(help)
}

/// The actions of a document, and every fault of its shape.
fn walk(root: &Value) -> (Document, Vec<Fault>) {
    let mut faults = Vec::new();
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
            Err(fault) => faults.push(fault),
        }
    }
    (Document { actions }, faults)
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
        faults.push(fault.help(format!("accepted: {KEY}, {}", about.join(", "))));
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
    Ok(Action { index, pointer, name: name.clone(), arguments })
}

fn unknown_command(action: &Action, commands: &[CommandSpec]) -> Fault {
    let name = &action.name;
    let pointer = format!("{}/0", action.pointer);
    if later::LATER.contains(&name.as_str()) {
        return Fault::new(pointer, format!("`{name}` comes with a later version")).help("leave the action out");
    }
    let names: Vec<&str> = commands.iter().map(|command| command.name).collect();
    let help = match nearest(name, &names) {
        Some(best) => format!("did you mean `{best}`?"),
        None => format!("accepted: {}", names.join(", ")),
    };
    Fault::new(pointer, format!("unknown command `{name}`")).help(help)
}

fn check_action(action: &Action, command: &CommandSpec, faults: &mut Vec<Fault>) {
    let name = command.name;
    if let Arguments::Positional(values) = &action.arguments {
        let most = positional(command).count();
        if values.len() > most {
            let names: Vec<&str> = positional(command).map(|parameter| parameter.name).collect();
            let message = format!("`{name}` takes at most {most} arguments by position, found {}", values.len());
            let help =
                if most == 0 { "give them by name".into() } else { format!("their order: {}", names.join(", ")) };
            faults.push(Fault::new(format!("{}/1/{most}", action.pointer), message).help(help));
        }
    }
    let arguments = action.named(command);
    let mut sound = Map::new();
    for (key, value) in &arguments {
        let pointer = action.argument_pointer(command, key);
        let Some(parameter) = command.parameters.iter().find(|parameter| parameter.name == key) else {
            let known = command.parameters.iter().map(|parameter| parameter.name);
            let help = if command.parameters.is_empty() {
                format!("`{name}` takes no arguments")
            } else {
                did_you_mean(key, known.filter(|known| !is_later(command, known)))
            };
            faults.push(Fault::new(pointer, format!("unknown key `{key}` of `{name}`")).help(help));
            continue;
        };
        if parameter.kind.accepts(value) {
            sound.insert(key.clone(), value.clone());
        } else if parameter.kind == Kind::Later {
            faults.push(Fault::new(pointer, format!("`{key}` comes with a later version")).help("leave it out"));
        } else {
            let words = parameter.kind.words();
            faults.push(Fault::new(pointer, format!("`{key}` takes {words}, found {}", shown(value))));
        }
    }
    for parameter in command.parameters.iter().filter(|p| p.required && !arguments.contains_key(p.name)) {
        let message = format!("`{name}` without `{}`", parameter.name);
        let help = format!("add `{}`: {}", parameter.name, parameter.kind.words());
        faults.push(Fault::new(action.pointer.as_str(), message).help(help));
    }
    if let Some(deep) = command.check {
        let from = faults.len();
        let base = action.arguments_pointer();
        deep(&sound, &base, faults);
        for fault in faults.iter_mut().skip(from) {
            // arguments by position have no names to point at
            let inside = fault.pointer.strip_prefix(&base).and_then(|rest| rest.strip_prefix('/'));
            let Some(rest) = inside else { continue };
            let (key, deeper) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            fault.pointer = format!("{}{deeper}", action.argument_pointer(command, key));
        }
    }
}

fn is_later(command: &CommandSpec, name: &str) -> bool {
    command.parameters.iter().any(|parameter| parameter.name == name && parameter.kind == Kind::Later)
}

#[cfg(test)]
mod tests;
