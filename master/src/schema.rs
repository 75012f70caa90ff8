//! JSON Schema (2020-12) of action documents, so that editors complete and check them.
//!
//! Made of the table of commands: names, parameters, kinds, descriptions. What `LD_start_test` takes
//! in depth stands in [`start_test`] and [`task`]. The schema is never stricter than the checker of
//! documents: it refuses what has a wrong shape; meanings (URLs, rules, files) are the checker's.

mod start_test;
mod task;
mod words;

use crate::command::Commands;
use crate::script::spec::{Function, Signature};
use crate::script::{CommandSpec, Kind, Parameter, Vocabulary as _};
use ld_shared::json_schema as value;
use serde_json::{Map, Value, json};

/// The dialect.
const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";

/// The schema of documents of these commands.
pub fn of(commands: &Commands) -> Value {
    let mut definitions = Map::new();
    let mut names = Vec::new();
    let mut arguments = Vec::new();
    for name in commands.names() {
        let Some(signature) = commands.signature(name) else { continue };
        let about = about(commands, name);
        names.push(json!({"const": name, "description": about}));
        let (schema, is_needed) = match signature {
            Signature::Fixed(spec) => fixed(spec, &about),
            Signature::Function(function) => self::function(&function, &about),
            Signature::Open => continue,
        };
        definitions.insert(name.into(), schema);
        arguments.push(json!({
            "if": {"minItems": 1, "prefixItems": [{"const": name}]},
            "then": {"minItems": if is_needed { 2 } else { 1 }, "prefixItems": [true, reference(name)]},
        }));
    }
    // commands of packages are known only when they are added
    names.push(json!({"type": "string", "pattern": "^(?!LD_)", "description": "A command of a package"}));
    definitions.insert(
        "action".into(),
        json!({
            "description": "[NAME], [NAME, {\"key\": value}] or [NAME, [value, …]]",
            "type": "array", "minItems": 1, "maxItems": 2,
            "prefixItems": [
                {"description": "Name of the command", "anyOf": names},
                {"description": "Arguments by name or by position", "type": ["object", "array"]},
            ],
            "allOf": arguments,
        }),
    );
    definitions.insert(
        "actions".into(),
        json!({"description": "What is to be done, in order", "type": "array", "minItems": 1, "items": reference("action")}),
    );
    definitions.insert(
        "document".into(),
        json!({
            "anyOf": [reference("actions"), {
                "type": "object",
                "properties": {
                    "$schema": {"description": "Where editors find this schema", "type": "string"},
                    "metadata": {"description": "What describes the document to people: name, owner, tags, …"},
                    "load_density": reference("actions"),
                },
                "required": ["load_density"],
                "additionalProperties": false,
            }],
        }),
    );
    start_test::define(&mut definitions);
    task::define(&mut definitions);
    json!({
        "$schema": DIALECT,
        "$id": "https://loaddensity.readthedocs.io/schema/action-1.0.json",
        "title": "LoadDensity action document",
        "description": "A list of actions, or {\"load_density\": [ … ]}",
        "$ref": "#/$defs/document",
        "$defs": definitions,
    })
}

/// The schema as text.
pub fn text(commands: &Commands) -> String {
    let mut text = serde_json::to_string_pretty(&of(commands)).expect("a value has a JSON form");
    text.push('\n');
    text
}

/// A reference to a definition.
fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/$defs/{name}")})
}

fn about(commands: &Commands, name: &str) -> String {
    let entry = commands.table().iter().find(|entry| entry.spec.name == name);
    entry.map_or_else(|| format!("Python's `{name}`"), |entry| entry.about.to_owned())
}

/// Arguments of a command of the table, and whether it needs any.
fn fixed(spec: &CommandSpec, about: &str) -> (Value, bool) {
    let mut properties = Map::new();
    let mut positional = Vec::new();
    let mut least = 0;
    for parameter in spec.parameters.iter().filter(|parameter| parameter.kind != Kind::Later) {
        properties.insert(parameter.name.into(), self::parameter(spec, parameter));
    }
    for parameter in spec.parameters.iter().filter(|parameter| parameter.positional) {
        positional.push(match parameter.kind {
            Kind::Later => json!({"type": "null"}),
            _ => self::parameter(spec, parameter),
        });
        if parameter.required {
            least = positional.len();
        }
    }
    let required: Vec<&str> = spec.parameters.iter().filter(|p| p.required).map(|p| p.name).collect();
    let mut named = json!({"type": "object", "properties": properties, "additionalProperties": false});
    if !required.is_empty() {
        named["required"] = json!(required);
    }
    if spec.name == start_test::NAME {
        start_test::complete(&mut named);
    }
    let list = if positional.is_empty() {
        json!({"type": "array", "maxItems": 0})
    } else {
        json!({"type": "array", "minItems": least, "prefixItems": positional, "items": false})
    };
    let needed = !required.is_empty() || spec.name == start_test::NAME;
    (json!({"description": about, "anyOf": [named, list]}), needed)
}

/// Arguments of a function of values.
fn function(function: &Function, about: &str) -> (Value, bool) {
    let keywords: Map<String, Value> = function.keywords.iter().map(|key| ((*key).to_owned(), json!({}))).collect();
    let named = json!({"type": "object", "properties": keywords, "additionalProperties": false});
    let mut list = json!({"type": "array", "minItems": function.least});
    // `print` takes as many as there are
    if u32::try_from(function.most).is_ok() {
        list["maxItems"] = function.most.into();
    }
    (json!({"description": about, "anyOf": [list, named]}), false)
}

/// What one parameter takes.
fn parameter(spec: &CommandSpec, parameter: &Parameter) -> Value {
    let mut schema = match start_test::key(parameter.name).filter(|_| spec.name == start_test::NAME) {
        Some(schema) => schema,
        None => words::deep(spec.name, parameter.name).unwrap_or_else(|| kind(parameter.kind)),
    };
    let about = if parameter.about.is_empty() { words::about(parameter.name) } else { Some(parameter.about) };
    if let (Some(about), None) = (about, schema.get("description")) {
        schema["description"] = about.into();
    }
    schema
}

/// What a kind takes.
fn kind(kind: Kind) -> Value {
    match kind {
        Kind::Text => json!({"type": "string"}),
        Kind::Number => json!({"type": "number"}),
        Kind::Integer => json!({"type": "integer"}),
        Kind::Boolean => json!({"type": "boolean"}),
        Kind::Object => json!({"type": "object"}),
        Kind::List => json!({"type": "array"}),
        Kind::Any => json!({}),
        Kind::Document => reference("document"),
        Kind::OrNull(kind) => value::or_null(self::kind(*kind)),
        Kind::Later => json!({"type": "null"}),
    }
}

#[cfg(test)]
mod tests;
