//! `${...}`. (The language core replaces the bodies; names and signatures stay.)

use crate::sample::Failure;
use crate::scope::{Bindings, Scope};
use serde_json::Value;

/// How rendered text is made safe for its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Escape {
    /// As it is.
    None,
    /// Inside a JSON string.
    Json,
    /// `application/x-www-form-urlencoded`, also for queries: space is `+`.
    Form,
}

/// A text with placeholders, parsed once.
#[derive(Clone, Debug, PartialEq)]
pub struct Template {}

impl Template {
    /// Parses `text`. What can never change (literals, `env`, registered variables that nothing
    /// extracts) is folded, so that most templates end as one literal.
    pub fn compile(_text: &str, _bindings: &Bindings) -> Self {
        Self {}
    }

    /// A JSON value whose texts (not keys) are templates, as one template of its JSON text.
    pub fn compile_json(_value: &Value, _bindings: &Bindings) -> Self {
        Self {}
    }

    /// The text, if rendering always gives the same.
    pub fn literal(&self) -> Option<&str> {
        None
    }

    /// Appends the text.
    pub fn render(
        &self,
        _bindings: &Bindings,
        _scope: &mut Scope,
        _escape: Escape,
        _out: &mut Vec<u8>,
    ) -> Result<(), Failure> {
        Ok(())
    }

    /// Indices of the data sources that it names.
    pub fn sources(&self) -> impl Iterator<Item = u32> + '_ {
        std::iter::empty()
    }
}
