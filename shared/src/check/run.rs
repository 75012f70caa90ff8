//! Checks of one task, compiled, over answers.

use super::{Assertion, ExtractFrom, Extractor};
use crate::operand::Operand;
use crate::path::Path;
use crate::plan::{StatusCheck, TaskPlan};
use crate::pytext::{self, Repr, Str};
use crate::reply::Reply;
use crate::sample::{Failure, FailureKind};
use crate::scope::{Bindings, Scope, VarId};
use crate::secrets::{MASK, is_credential};
use crate::template::Template;
use memchr::memmem;
use serde_json::Value;
use std::borrow::Cow;
use std::fmt::Display;

/// Most characters of an answer's value that a reason shows.
const SHOWN: usize = 200;

/// The assertions and extractors of one task, compiled.
#[derive(Clone, Debug)]
pub struct Checks {
    asserts: Box<[Assert]>,
    extracts: Box<[(VarId, Extract)]>,
    /// How many of them look for a path in the body.
    paths: usize,
}

#[derive(Clone, Debug)]
enum Assert {
    Status(Operand),
    Contains { value: Operand, finder: Option<Box<memmem::Finder<'static>>>, wanted: bool },
    Json { path: PathText, value: Operand },
    Header { name: Template, value: Operand },
}

#[derive(Clone, Debug)]
enum Extract {
    Json(PathText),
    Header(Template),
    Status,
}

/// A path and how reasons show it.
#[derive(Clone, Debug)]
enum PathText {
    Constant(Path, Box<str>),
    Dynamic(Template),
}

impl PathText {
    fn compile(text: &str, bindings: &Bindings) -> Self {
        let template = Template::compile(text, bindings);
        match template.literal() {
            Some(text) => Self::Constant(Path::parse(text), text.into()),
            None => Self::Dynamic(template),
        }
    }

    fn value(&self, bindings: &Bindings, scope: &mut Scope) -> Result<(Cow<'_, Path>, Cow<'_, str>), Failure> {
        Ok(match self {
            Self::Constant(path, text) => (Cow::Borrowed(path), Cow::Borrowed(text)),
            Self::Dynamic(template) => {
                let text = template.render_text(bindings, scope)?;
                (Cow::Owned(Path::parse(&text)), Cow::Owned(text))
            }
        })
    }

    fn sources(&self) -> Vec<u32> {
        match self {
            Self::Constant(..) => Vec::new(),
            Self::Dynamic(template) => template.sources().collect(),
        }
    }
}

impl Checks {
    /// Compiles the checks of a task for one core.
    pub fn compile(task: &TaskPlan, bindings: &Bindings) -> Self {
        let extract = |extractor: &Extractor| {
            let var = bindings.var(&extractor.var)?;
            let extract = match &extractor.from {
                ExtractFrom::JsonPath(path) => Extract::Json(PathText::compile(path, bindings)),
                ExtractFrom::Header(name) => Extract::Header(Template::compile(name, bindings)),
                ExtractFrom::StatusCode => Extract::Status,
            };
            Some((var, extract))
        };
        let asserted = task.assertions.iter().filter(|assertion| matches!(assertion, Assertion::JsonPath { .. }));
        let extracted = task.extract.iter().filter(|extractor| matches!(extractor.from, ExtractFrom::JsonPath(_)));
        Self {
            paths: asserted.count() + extracted.count(),
            asserts: task.assertions.iter().map(|assertion| Assert::compile(assertion, bindings)).collect(),
            extracts: task.extract.iter().filter_map(extract).collect(),
        }
    }

    /// Whether there is nothing to check but the status and nothing to take.
    pub fn is_empty(&self) -> bool {
        self.asserts.is_empty() && self.extracts.is_empty()
    }

    /// Whether there are assertions: an answer below 400 may fail.
    pub fn has_assertions(&self) -> bool {
        !self.asserts.is_empty()
    }

    /// Whether a request without any answer may pass: some assertion looks at the status, which is 0 then.
    pub fn may_accept_no_answer(&self) -> bool {
        self.checks_status()
    }

    /// Whether [`Self::run`] looks at the body.
    pub fn needs_body(&self) -> bool {
        self.asserts.iter().any(|assert| matches!(assert, Assert::Contains { .. } | Assert::Json { .. }))
            || self.extracts.iter().any(|(_, extract)| matches!(extract, Extract::Json(_)))
    }

    /// Whether [`Self::run`] looks at headers.
    pub fn needs_headers(&self) -> bool {
        self.asserts.iter().any(|assert| matches!(assert, Assert::Header { .. }))
            || self.extracts.iter().any(|(_, extract)| matches!(extract, Extract::Header(_)))
    }

    /// Whether the body of an answer whose status is 400 or more is looked at.
    pub fn needs_failed_body(&self, status_check: StatusCheck) -> bool {
        self.needs_body() && (self.assertions_decide(status_check) || self.checks_status())
    }

    /// Indices of the data sources that it names.
    pub fn sources(&self) -> impl Iterator<Item = u32> + '_ {
        let asserts = self.asserts.iter().flat_map(|assert| match assert {
            Assert::Status(value) | Assert::Contains { value, .. } => value.sources(),
            Assert::Json { path, value } => [path.sources(), value.sources()].concat(),
            Assert::Header { name, value } => name.sources().chain(value.sources()).collect(),
        });
        let extracts = self.extracts.iter().flat_map(|(_, extract)| match extract {
            Extract::Json(path) => path.sources(),
            Extract::Header(name) => name.sources().collect(),
            Extract::Status => Vec::new(),
        });
        asserts.chain(extracts)
    }

    /// Looks at an answer; if all is well, sets the variables that are taken from it.
    ///
    /// What the protocol refuses ([`Reply::refusal`]) and a status of 400 or more fail, the latter as `HTTP 404` ([`FailureKind::Status`]) before any assertion
    /// is looked at, because it explains whatever else is wrong, unless there is a `status_code`
    /// assertion or [`StatusCheck::Assertions`] leaves the word to the checks that there are. The
    /// seed's text `URL <url>: code=404` is shortened because the name stands beside it and reasons
    /// must stay few.
    ///
    /// # Errors
    ///
    /// The reason of the first assertion that fails, in the seed's words.
    pub fn run(
        &self,
        reply: &Reply,
        bindings: &Bindings,
        scope: &mut Scope,
        status_check: StatusCheck,
    ) -> Result<(), Failure> {
        if !self.checks_status() && !self.assertions_decide(status_check) {
            if let Some(refusal) = &reply.refusal {
                return Err(refusal.clone());
            }
            if let Some(status @ 400..) = reply.status {
                return Err(Failure::new(FailureKind::Status, format!("HTTP {status}")));
            }
        }
        if self.is_empty() {
            return Ok(());
        }
        let mut body = Json { reply, parse: self.paths > FEW_PATHS, value: None };
        for assert in &self.asserts {
            assert.check(reply, &mut body, bindings, scope)?;
        }
        for (var, extract) in &self.extracts {
            if let Some(value) = extract.take(reply, &mut body, bindings, scope)? {
                scope.set(*var, value);
            }
        }
        Ok(())
    }

    fn checks_status(&self) -> bool {
        self.asserts.iter().any(|assert| matches!(assert, Assert::Status(_)))
    }

    fn assertions_decide(&self, status_check: StatusCheck) -> bool {
        status_check == StatusCheck::Assertions && !self.is_empty()
    }
}

/// The body as JSON: a path or two are looked for in the text; for more it is parsed, once.
struct Json<'a> {
    reply: &'a Reply,
    parse: bool,
    value: Option<Value>,
}

/// With more paths than this a parsed body is faster.
const FEW_PATHS: usize = 4;

impl Json<'_> {
    fn find(&mut self, path: &Path) -> Option<Value> {
        if !self.parse {
            return path.find_in(&self.reply.body);
        }
        // null leads nowhere, as does what is no JSON
        let value = self.value.get_or_insert_with(|| serde_json::from_slice(&self.reply.body).unwrap_or_default());
        path.find(value).cloned()
    }
}

impl Assert {
    fn compile(assertion: &Assertion, bindings: &Bindings) -> Self {
        let operand = |value: &Value| Operand::compile(value, bindings);
        let contains = |value: &Value, wanted| {
            let value = operand(value);
            let text = value.constant().map(|value| Str(value).to_string());
            let finder = text.map(|text| Box::new(memmem::Finder::new(&text).into_owned()));
            Self::Contains { value, finder, wanted }
        };
        match assertion {
            Assertion::StatusCode(value) => Self::Status(operand(value)),
            Assertion::Contains(value) => contains(value, true),
            Assertion::NotContains(value) => contains(value, false),
            Assertion::JsonPath { path, value } => {
                Self::Json { path: PathText::compile(path, bindings), value: operand(value) }
            }
            Assertion::Header { name, value } => {
                Self::Header { name: Template::compile(name, bindings), value: operand(value) }
            }
        }
    }

    fn check(&self, reply: &Reply, body: &mut Json<'_>, bindings: &Bindings, scope: &mut Scope) -> Result<(), Failure> {
        match self {
            Self::Status(expected) => {
                let expected = expected.value(bindings, scope)?;
                let number = match &*expected {
                    Value::String(text) => text.trim().parse().ok(),
                    other => other.as_i64(),
                };
                if number.is_some() && number == reply.status.map(i64::from) {
                    return Ok(());
                }
                let got = reply.status.map_or(Value::Null, Value::from);
                match number {
                    Some(number) => fail(&format_args!("status_code expected {number}, got {}", Repr(&got))),
                    None => fail(&format_args!("status_code expected {}, got {}", Repr(&expected), Repr(&got))),
                }
            }
            Self::Contains { value, finder, wanted } => {
                let value = value.value(bindings, scope)?;
                let found = match finder {
                    Some(finder) => finder.find(&reply.body),
                    None => memmem::find(&reply.body, Str(&value).to_string().as_bytes()),
                };
                match (found.is_some(), wanted) {
                    (true, true) | (false, false) => Ok(()),
                    (false, true) => fail(&format_args!("body does not contain {}", Repr(&value))),
                    (true, false) => fail(&format_args!("body unexpectedly contains {}", Repr(&value))),
                }
            }
            Self::Json { path, value } => {
                let expected = value.value(bindings, scope)?;
                let (path, text) = path.value(bindings, scope)?;
                let got = body.find(&path).unwrap_or_default();
                if pytext::equal(&expected, &got) {
                    return Ok(());
                }
                fail(&format_args!("json_path {text} expected {}, got {}", Repr(&expected), Shown(&got, bindings)))
            }
            Self::Header { name, value } => {
                let expected = value.value(bindings, scope)?;
                let name = render(name, bindings, scope)?;
                let got = reply.headers.get(&name).map_or(Value::Null, Value::from);
                if pytext::equal(&expected, &got) {
                    return Ok(());
                }
                let shown = if is_credential(&name) && !got.is_null() { MASK.into() } else { got };
                fail(&format_args!("header {name} expected {}, got {}", Repr(&expected), Shown(&shown, bindings)))
            }
        }
    }
}

impl Extract {
    fn take(
        &self,
        reply: &Reply,
        body: &mut Json<'_>,
        bindings: &Bindings,
        scope: &mut Scope,
    ) -> Result<Option<Value>, Failure> {
        Ok(match self {
            Self::Json(path) => body.find(&path.value(bindings, scope)?.0),
            Self::Header(name) => reply.headers.get(&render(name, bindings, scope)?).map(Value::from),
            Self::Status => reply.status.map(Value::from),
        })
    }
}

fn render<'a>(template: &'a Template, bindings: &Bindings, scope: &mut Scope) -> Result<Cow<'a, str>, Failure> {
    Ok(match template.literal() {
        Some(text) => Cow::Borrowed(text),
        None => Cow::Owned(template.render_text(bindings, scope)?),
    })
}

fn fail(reason: &dyn Display) -> Result<(), Failure> {
    Err(Failure::new(FailureKind::Assertion, reason.to_string()))
}

/// A value of the answer, without secrets and cut so that reasons stay readable.
struct Shown<'a>(&'a Value, &'a Bindings);

impl Display for Shown<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = Repr(self.0).to_string();
        // before it is cut: half a secret would not be found
        let text = self.1.secrets().mask(&text);
        match text.char_indices().nth(SHOWN) {
            None => f.write_str(&text),
            Some((end, _)) => write!(f, "{}…", text.get(..end).unwrap_or_default()),
        }
    }
}

#[cfg(test)]
mod tests;
