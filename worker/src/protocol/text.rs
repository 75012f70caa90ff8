//! A text of a task that may hold placeholders.

use ld_shared::sample::Failure;
use ld_shared::scope::{Bindings, Scope};
use ld_shared::template::{Escape, Template};
use serde_json::Value;
use std::borrow::Cow;

/// A text that may hold placeholders, compiled once.
#[derive(Debug)]
pub(crate) enum Text {
    /// Always the same.
    Literal(Box<str>),
    /// Filled in for each request.
    Template(Template),
}

impl Text {
    pub(crate) fn compile(text: &str, bindings: &Bindings) -> Self {
        if !text.contains("${") {
            return Self::Literal(text.into());
        }
        Self::of(Template::compile(text, bindings))
    }

    /// The text of a JSON value whose texts may hold placeholders.
    pub(crate) fn compile_json(value: &Value, bindings: &Bindings) -> Self {
        Self::of(Template::compile_json(value, bindings))
    }

    fn of(template: Template) -> Self {
        match template.literal() {
            Some(text) => Self::Literal(text.into()),
            None => Self::Template(template),
        }
    }

    /// The text, if it is always the same.
    pub(crate) fn literal(&self) -> Option<&str> {
        match self {
            Self::Literal(text) => Some(text),
            Self::Template(_) => None,
        }
    }

    /// Its template, if it has placeholders.
    pub(crate) fn template(&self) -> Option<&Template> {
        match self {
            Self::Literal(_) => None,
            Self::Template(template) => Some(template),
        }
    }

    /// Appends the text, filled in, to `out`.
    pub(crate) fn fill(&self, bindings: &Bindings, scope: &mut Scope, out: &mut Vec<u8>) -> Result<(), Failure> {
        match self {
            Self::Literal(text) => out.extend_from_slice(text.as_bytes()),
            Self::Template(template) => template.render(bindings, scope, Escape::None, out)?,
        }
        Ok(())
    }

    /// The text, filled in.
    pub(crate) fn render(&self, bindings: &Bindings, scope: &mut Scope) -> Result<Cow<'_, str>, Failure> {
        match self {
            Self::Literal(text) => Ok(Cow::Borrowed(text)),
            Self::Template(template) => Ok(Cow::Owned(template.render_text(bindings, scope)?)),
        }
    }

    /// Indices of the data sources that it names.
    pub(crate) fn sources(&self) -> impl Iterator<Item = u32> + '_ {
        self.template().into_iter().flat_map(Template::sources)
    }
}
