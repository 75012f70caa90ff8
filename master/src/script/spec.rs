//! How commands describe themselves to the checker.

use super::Fault;
use ld_shared::pytext::Repr;
use serde_json::{Map, Value};

/// Looks at arguments (by name), which stand under a pointer, and adds every fault.
pub type DeepCheck = fn(&Map<String, Value>, &str, &mut Vec<Fault>);

/// A command: its name and what it takes.
#[derive(Clone, Copy, Debug)]
pub struct CommandSpec {
    /// `LD_start_test`.
    pub name: &'static str,
    /// In positional order; those that are given by name only come last.
    pub parameters: &'static [Parameter],
    /// Looks deeper than kinds of values. It is given the arguments by name, only those whose key
    /// and kind are right, and the pointer under which they stand.
    pub check: Option<DeepCheck>,
}

/// One parameter of a command.
#[derive(Clone, Copy, Debug)]
pub struct Parameter {
    /// Its key.
    pub name: &'static str,
    /// What it takes.
    pub kind: Kind,
    /// Whether it must be given.
    pub required: bool,
    /// Whether it may be given by position.
    pub positional: bool,
    /// Whether it names a file, or several.
    pub file: bool,
    /// What it is for: help, schema and README say it. Empty: its name says it.
    pub about: &'static str,
}

impl Parameter {
    /// An optional parameter, by name or position.
    pub const fn new(name: &'static str, kind: Kind) -> Self {
        Self { name, kind, required: false, positional: true, file: false, about: "" }
    }

    /// The same, saying what it is for.
    #[must_use]
    pub const fn about(self, about: &'static str) -> Self {
        Self { about, ..self }
    }

    /// The same, but it must be given.
    #[must_use]
    pub const fn required(self) -> Self {
        Self { required: true, ..self }
    }

    /// The same, and it names a file: callers from outside have those of one folder only.
    #[must_use]
    pub const fn file(self) -> Self {
        Self { file: true, ..self }
    }

    /// The same, but by name only.
    #[must_use]
    pub const fn keyword(self) -> Self {
        Self { positional: false, ..self }
    }
}

impl CommandSpec {
    /// Keys of parameters that name files.
    pub fn files(&self) -> impl Iterator<Item = &'static str> + use<> {
        self.parameters.iter().filter(|parameter| parameter.file).map(|parameter| parameter.name)
    }
}

/// What the checker knows of a command.
#[derive(Clone, Copy, Debug)]
pub enum Signature<'a> {
    /// Parameters with kinds.
    Fixed(&'a CommandSpec),
    /// A function of values by position and of a few names.
    Function(Function),
    /// Takes anything: what it makes of it shows when it runs.
    Open,
}

/// What a function takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Function {
    /// Its name.
    pub name: &'static str,
    /// Least number of values by position.
    pub least: usize,
    /// Greatest.
    pub most: usize,
    /// What may be given by name.
    pub keywords: &'static [&'static str],
}

/// The commands that a document is checked against.
pub trait Vocabulary {
    /// What is known of a command; `None`: there is none of that name.
    fn signature(&self, name: &str) -> Option<Signature<'_>>;
    /// Names of all commands.
    fn names(&self) -> Vec<&str>;
    /// Why this name is no command, where the reason is worth telling.
    fn refusal(&self, name: &str) -> Option<&'static str>;
}

impl Vocabulary for [CommandSpec] {
    fn signature(&self, name: &str) -> Option<Signature<'_>> {
        self.iter().find(|command| command.name == name).map(Signature::Fixed)
    }

    fn names(&self) -> Vec<&str> {
        self.iter().map(|command| command.name).collect()
    }

    fn refusal(&self, _name: &str) -> Option<&'static str> {
        None
    }
}

/// What a parameter takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A text.
    Text,
    /// A number.
    Number,
    /// A whole number.
    Integer,
    /// true or false.
    Boolean,
    /// An object.
    Object,
    /// A list.
    List,
    /// Anything.
    Any,
    /// null, or this.
    OrNull(&'static Self),
    /// A document: a list of actions, or an object that holds one. It is checked as well.
    Document,
    /// Known, and refused: it comes with a later version. Null is as if absent.
    Later,
}

impl Kind {
    /// Whether `value` is of this kind.
    pub fn accepts(self, value: &Value) -> bool {
        match self {
            Self::Text => value.is_string(),
            Self::Number => value.is_number(),
            Self::Integer => value.is_i64() || value.is_u64(),
            Self::Boolean => value.is_boolean(),
            Self::Object => value.is_object(),
            Self::List => value.is_array(),
            Self::Any => true,
            Self::OrNull(kind) => value.is_null() || kind.accepts(value),
            Self::Document => value.is_array() || value.is_object(),
            Self::Later => value.is_null(),
        }
    }

    /// What it takes, in words.
    pub fn words(self) -> String {
        match self {
            Self::Text => "a text".into(),
            Self::Number => "a number".into(),
            Self::Integer => "a whole number".into(),
            Self::Boolean => "true or false".into(),
            Self::Object => "an object".into(),
            Self::List => "a list".into(),
            Self::Any => "anything".into(),
            Self::OrNull(kind) => format!("{} or null", kind.words()),
            Self::Document => "a list of actions, or an object that holds one".into(),
            Self::Later => "nothing in this version".into(),
        }
    }
}

/// A value in a fault: as Python writes it, short.
pub fn shown(value: &Value) -> String {
    const MOST: usize = 60;
    let text = Repr(value).to_string();
    match text.char_indices().nth(MOST) {
        None => text,
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
    }
}
