//! A JSON value in a check or a condition, with placeholders in its texts.

use crate::sample::Failure;
use crate::scope::{Bindings, Scope};
use crate::template::Template;
use serde_json::{Map, Value};
use std::borrow::Cow;

/// A value, compiled.
#[derive(Clone, Debug)]
pub enum Operand {
    /// Always this.
    Constant(Value),
    /// A text with placeholders.
    Text(Template),
    /// Some of its items have placeholders.
    List(Vec<Self>),
    /// Some of its values have placeholders.
    Object(Vec<(String, Self)>),
}

impl Operand {
    /// Compiles the texts (not the keys) of `value`.
    pub fn compile(value: &Value, bindings: &Bindings) -> Self {
        match value {
            Value::String(text) => {
                let template = Template::compile(text, bindings);
                match template.literal() {
                    Some(text) => Self::Constant(text.into()),
                    None => Self::Text(template),
                }
            }
            Value::Array(items) => {
                let items: Vec<Self> = items.iter().map(|item| Self::compile(item, bindings)).collect();
                match items.iter().map(|item| item.constant().cloned()).collect() {
                    Some(items) => Self::Constant(Value::Array(items)),
                    None => Self::List(items),
                }
            }
            Value::Object(map) => {
                let items: Vec<(String, Self)> =
                    map.iter().map(|(key, item)| (key.clone(), Self::compile(item, bindings))).collect();
                match items.iter().map(|(key, item)| Some((key.clone(), item.constant()?.clone()))).collect() {
                    Some(map) => Self::Constant(Value::Object(map)),
                    None => Self::Object(items),
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => Self::Constant(value.clone()),
        }
    }

    /// The value, if it is always the same.
    pub fn constant(&self) -> Option<&Value> {
        match self {
            Self::Constant(value) => Some(value),
            _ => None,
        }
    }

    /// The value, with every placeholder filled in.
    pub fn value(&self, bindings: &Bindings, scope: &mut Scope) -> Result<Cow<'_, Value>, Failure> {
        Ok(match self {
            Self::Constant(value) => Cow::Borrowed(value),
            Self::Text(template) => Cow::Owned(Value::String(template.render_text(bindings, scope)?)),
            Self::List(items) => {
                let items = items.iter().map(|item| Ok(item.value(bindings, scope)?.into_owned()));
                Cow::Owned(Value::Array(items.collect::<Result<_, Failure>>()?))
            }
            Self::Object(items) => {
                let items =
                    items.iter().map(|(key, item)| Ok((key.clone(), item.value(bindings, scope)?.into_owned())));
                Cow::Owned(Value::Object(items.collect::<Result<Map<_, _>, Failure>>()?))
            }
        })
    }

    /// Indices of the data sources that it names.
    pub fn sources(&self) -> Vec<u32> {
        match self {
            Self::Constant(_) => Vec::new(),
            Self::Text(template) => template.sources().collect(),
            Self::List(items) => items.iter().flat_map(Self::sources).collect(),
            Self::Object(items) => items.iter().flat_map(|(_, item)| item.sources()).collect(),
        }
    }
}
