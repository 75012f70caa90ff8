//! `${...}`: texts with placeholders, parsed once and rendered without allocating.
//!
//! | placeholder | becomes |
//! |---|---|
//! | `${var.NAME}`, `${NAME}`, `${session.NAME}` | a registered or extracted variable, written as Python does |
//! | `${env.NAME}` | an environment variable of the master |
//! | `${csv.SOURCE.COLUMN}` | a column of the iteration's row |
//! | `${secret.NAME}` | a secret of the master: never in plans, records, logs and reports |
//! | `${faker.METHOD}` | a made-up value: the methods of [`faker`] |
//! | `${uuid()}` | a random UUID (version 4) |
//! | `${now()}` | local time, `YYYY-MM-DDTHH:MM:SS` |
//! | `${randint(a,b)}` | a whole number, both ends included |
//!
//! A token runs from `${` to the first `}`; prefixes and function names are taken in any case.
//! What is unknown or unset stays in the text, character for character. What was filled in is not
//! scanned again.

mod escape;
mod faker;
mod token;

pub use escape::Escape;

use crate::pytext;
use crate::sample::{Failure, FailureKind};
use crate::scope::{Bindings, Scope, VarId};
use escape::{Writer, put, to_text};
use serde_json::Value;
use std::fmt::Write as _;
use token::{Piece, Token, pieces};

/// A text made safe for its place.
pub(crate) fn escaped(text: &str, escape: Escape) -> String {
    let mut out = Vec::with_capacity(text.len());
    put(text, escape, &mut out);
    to_text(out)
}

/// What a placeholder mentions, whether there is such a thing or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mention<'a> {
    /// A variable.
    Variable(&'a str),
    /// An environment variable of the master.
    Env(&'a str),
    /// A data source.
    Source(&'a str),
    /// A secret.
    Secret(&'a str),
    /// Nothing but itself: it is made for each request. What cannot be made is a fault of its own:
    /// [`Template::fault`], [`Template::unknown_fakers`].
    Made,
    /// Nothing that is known.
    Unknown,
}

/// A text with placeholders, parsed once.
#[derive(Clone, Debug, PartialEq)]
pub struct Template {
    parts: Box<[Part]>,
}

#[derive(Clone, Debug, PartialEq)]
enum Part {
    Literal(Box<str>),
    Dynamic {
        what: Dynamic,
        /// The placeholder as written: what stays if there is no value.
        raw: Box<str>,
        /// Whether it stands in a string of a JSON text.
        json: bool,
    },
}

#[derive(Clone, Debug, PartialEq)]
enum Dynamic {
    Variable(VarId),
    Column { source: u32, column: u32 },
    Faker(faker::Method),
    Uuid,
    Now,
    Between(i64, i64),
    Fault(Box<str>),
}

impl Template {
    /// Parses `text`. What can never change (literals, `env`, registered variables that nothing
    /// extracts) is folded, so that most templates end as one literal.
    pub fn compile(text: &str, bindings: &Bindings) -> Self {
        let mut builder = Builder { bindings, parts: Vec::new() };
        builder.text(text, false);
        builder.finish()
    }

    /// A JSON value whose texts (not keys) are templates, as one template of its JSON text, in
    /// the form of Python's `json.dumps`.
    pub fn compile_json(value: &Value, bindings: &Bindings) -> Self {
        let mut builder = Builder { bindings, parts: Vec::new() };
        builder.json(value);
        builder.finish()
    }

    /// `text` with `env` and registered variables filled in, everything else as written: what
    /// names in the statistics and default targets are made from, so that they stay few.
    pub fn compile_name(text: &str, bindings: &Bindings) -> String {
        let mut name = String::with_capacity(text.len());
        for piece in pieces(text) {
            match piece {
                Piece::Literal(literal) => name.push_str(literal),
                Piece::Token { raw, token } => match token {
                    Token::Variable(variable) => {
                        match bindings.var(variable).and_then(|var| bindings.registered(var)) {
                            Some(value) => name.push_str(&pytext::Str(value).to_string()),
                            None => name.push_str(raw),
                        }
                    }
                    Token::Env(variable) => name.push_str(bindings.env(variable).unwrap_or(raw)),
                    _ => name.push_str(raw),
                },
            }
        }
        name
    }

    /// Every placeholder of `text` as written, and what it mentions.
    pub fn mentions(text: &str) -> impl Iterator<Item = (&str, Mention<'_>)> {
        pieces(text).filter_map(|piece| {
            let Piece::Token { raw, token } = piece else { return None };
            let mention = match token {
                Token::Variable(name) => Mention::Variable(name),
                Token::Env(name) => Mention::Env(name),
                Token::Column { source, .. } => Mention::Source(source),
                Token::Secret(name) => Mention::Secret(name),
                Token::Faker(_) | Token::Uuid | Token::Now | Token::Between(..) | Token::Fault(_) => Mention::Made,
                Token::Unknown => Mention::Unknown,
            };
            Some((raw, mention))
        })
    }

    /// Names of the environment variables that `text` mentions.
    pub fn env_names(text: &str) -> impl Iterator<Item = &str> {
        pieces(text).filter_map(|piece| match piece {
            Piece::Token { token: Token::Env(name), .. } => Some(name),
            _ => None,
        })
    }

    /// Names of the secrets that `text` mentions.
    pub fn secret_names(text: &str) -> impl Iterator<Item = &str> {
        pieces(text).filter_map(|piece| match piece {
            Piece::Token { token: Token::Secret(name), .. } => Some(name),
            _ => None,
        })
    }

    /// Names of the data sources that `text` mentions, known or not.
    pub fn source_names(text: &str) -> impl Iterator<Item = &str> {
        pieces(text).filter_map(|piece| match piece {
            Piece::Token { token: Token::Column { source, .. }, .. } => Some(source),
            _ => None,
        })
    }

    /// What makes a placeholder of `text` impossible to fill in, whatever the user and the row:
    /// `randint` of what is no number. Found before a test; rendered all the same, it fails.
    pub fn fault(text: &str) -> Option<String> {
        pieces(text).find_map(|piece| match piece {
            Piece::Token { token: Token::Fault(reason), .. } => Some(reason.into()),
            _ => None,
        })
    }

    /// Placeholders of `text` that name no method of Faker, each with its remedy: they stay as
    /// written, and what was to be different for each request would not be.
    pub fn unknown_fakers(text: &str) -> impl Iterator<Item = (&str, String)> {
        pieces(text).filter_map(|piece| match piece {
            Piece::Token { raw, token: Token::Faker(name) } if faker::Method::named(name).is_none() => {
                Some((raw, faker::remedy(name)))
            }
            _ => None,
        })
    }

    /// The placeholders of `text` that no user can ever have filled in: they are sent as written.
    pub fn unresolved<'a>(text: &'a str, bindings: &Bindings) -> impl Iterator<Item = &'a str> {
        pieces(text).filter_map(|piece| match piece {
            Piece::Token { raw, token } => matches!(resolve(token, bindings), Resolved::Unknown).then_some(raw),
            Piece::Literal(_) => None,
        })
    }

    /// The text, if rendering always gives the same.
    pub fn literal(&self) -> Option<&str> {
        match &*self.parts {
            [] => Some(""),
            [Part::Literal(text)] => Some(text),
            _ => None,
        }
    }

    /// Appends the text, escaped for its place; placeholders in a JSON text are escaped for it
    /// besides. Nothing is allocated but what `out` needs.
    ///
    /// # Errors
    ///
    /// [`FailureKind::Request`] for what [`Self::fault`] finds.
    pub fn render(
        &self,
        bindings: &Bindings,
        scope: &mut Scope,
        escape: Escape,
        out: &mut Vec<u8>,
    ) -> Result<(), Failure> {
        for part in &self.parts {
            match part {
                Part::Literal(text) => put(text, escape, out),
                Part::Dynamic { what, raw, json } => {
                    let mut writer = Writer { json: *json, escape, out };
                    write_dynamic(what, raw, bindings, scope, &mut writer)?;
                }
            }
        }
        Ok(())
    }

    /// Appends the text as it is to a `String`. For checks, names and conditions.
    pub fn render_text(&self, bindings: &Bindings, scope: &mut Scope) -> Result<String, Failure> {
        let mut out = Vec::new();
        self.render(bindings, scope, Escape::None, &mut out)?;
        Ok(to_text(out))
    }

    /// Indices of the data sources that it names.
    pub fn sources(&self) -> impl Iterator<Item = u32> + '_ {
        self.parts.iter().filter_map(|part| match part {
            Part::Dynamic { what: Dynamic::Column { source, .. }, .. } => Some(*source),
            _ => None,
        })
    }
}

/// What a token is in the light of the bindings.
enum Resolved<'a> {
    /// Always this value.
    Value(&'a Value),
    /// Always this text.
    Text(&'a str),
    Dynamic(Dynamic),
    /// Stays as written.
    Unknown,
}

fn resolve<'a>(token: Token<'_>, bindings: &'a Bindings) -> Resolved<'a> {
    match token {
        Token::Variable(name) => match bindings.var(name) {
            Some(var) if bindings.is_extracted(var) => Resolved::Dynamic(Dynamic::Variable(var)),
            Some(var) => bindings.registered(var).map_or(Resolved::Unknown, Resolved::Value),
            None => Resolved::Unknown,
        },
        Token::Env(name) => bindings.env(name).map_or(Resolved::Unknown, Resolved::Text),
        Token::Column { source, column } => match bindings.column(source, column) {
            Some((source, column)) => Resolved::Dynamic(Dynamic::Column { source, column }),
            None => Resolved::Unknown,
        },
        Token::Faker(name) => match faker::Method::named(name) {
            Some(method) => Resolved::Dynamic(Dynamic::Faker(method)),
            None => Resolved::Unknown,
        },
        Token::Secret(name) => bindings.secret(name).map_or(Resolved::Unknown, Resolved::Text),
        Token::Uuid => Resolved::Dynamic(Dynamic::Uuid),
        Token::Now => Resolved::Dynamic(Dynamic::Now),
        Token::Between(low, high) => Resolved::Dynamic(Dynamic::Between(low, high)),
        Token::Fault(reason) => Resolved::Dynamic(Dynamic::Fault(reason)),
        Token::Unknown => Resolved::Unknown,
    }
}

struct Builder<'a> {
    bindings: &'a Bindings,
    parts: Vec<Part>,
}

impl Builder<'_> {
    fn text(&mut self, text: &str, json: bool) {
        for piece in pieces(text) {
            match piece {
                Piece::Literal(literal) => self.literal(literal, json),
                Piece::Token { raw, token } => match resolve(token, self.bindings) {
                    Resolved::Value(value) => self.literal(&pytext::Str(value).to_string(), json),
                    Resolved::Text(text) => self.literal(text, json),
                    Resolved::Dynamic(what) => self.parts.push(Part::Dynamic { what, raw: raw.into(), json }),
                    Resolved::Unknown => self.literal(raw, json),
                },
            }
        }
    }

    fn json(&mut self, value: &Value) {
        match value {
            Value::String(text) => {
                self.literal("\"", false);
                self.text(text, true);
                self.literal("\"", false);
            }
            Value::Array(items) => {
                self.literal("[", false);
                for (i, item) in items.iter().enumerate() {
                    self.literal(if i > 0 { ", " } else { "" }, false);
                    self.json(item);
                }
                self.literal("]", false);
            }
            Value::Object(map) => {
                self.literal("{", false);
                for (i, (key, value)) in map.iter().enumerate() {
                    self.literal(if i > 0 { ", \"" } else { "\"" }, false);
                    self.literal(key, true);
                    self.literal("\": ", false);
                    self.json(value);
                }
                self.literal("}", false);
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => self.literal(&value.to_string(), false),
        }
    }

    /// Appends a literal, joined to one before it.
    fn literal(&mut self, text: &str, json: bool) {
        if text.is_empty() {
            return;
        }
        let mut joined = match self.parts.pop() {
            Some(Part::Literal(before)) => String::from(before),
            other => {
                self.parts.extend(other);
                String::new()
            }
        };
        if json {
            let mut escaped = Vec::with_capacity(text.len());
            put(text, Escape::Json, &mut escaped);
            joined.push_str(&to_text(escaped));
        } else {
            joined.push_str(text);
        }
        self.parts.push(Part::Literal(joined.into()));
    }

    fn finish(self) -> Template {
        Template { parts: self.parts.into() }
    }
}

fn write_dynamic(
    what: &Dynamic,
    raw: &str,
    bindings: &Bindings,
    scope: &mut Scope,
    out: &mut Writer<'_>,
) -> Result<(), Failure> {
    match what {
        Dynamic::Variable(var) => match scope.get(bindings, *var) {
            Some(Value::String(text)) => out.put(text),
            Some(value) => write!(out, "{}", pytext::Str(value)).expect("writing to a buffer cannot fail"),
            None => out.put(raw),
        },
        Dynamic::Column { source, column } => out.put(scope.cell(bindings, *source, *column).unwrap_or(raw)),
        Dynamic::Faker(method) => out.put(&method.make(scope.rng())),
        Dynamic::Uuid => {
            let rng = scope.rng();
            let random = u128::from(rng.next_u64()) << 64 | u128::from(rng.next_u64());
            let id = uuid::Builder::from_random_bytes(random.to_be_bytes()).into_uuid();
            out.put(id.hyphenated().encode_lower(&mut [0; uuid::fmt::Hyphenated::LENGTH]));
        }
        Dynamic::Now => {
            let now = crate::boot::clock::wall().with_timezone(&chrono::Local);
            write!(out, "{}", now.format("%Y-%m-%dT%H:%M:%S")).expect("writing to a buffer cannot fail");
        }
        Dynamic::Between(low, high) => {
            let span = i128::from(*high) - i128::from(*low) + 1;
            let rng = scope.rng();
            // a span of 2^64 does not fit u64: then every number is as good as any other
            let offset = match u64::try_from(span) {
                Ok(span) => rng.below(span),
                Err(_) => rng.next_u64(),
            };
            let number = i128::from(*low) + i128::from(offset);
            write!(out, "{number}").expect("writing to a buffer cannot fail");
        }
        Dynamic::Fault(reason) => return Err(Failure::new(FailureKind::Request, &**reason)),
    }
    Ok(())
}

#[cfg(test)]
mod tests;
