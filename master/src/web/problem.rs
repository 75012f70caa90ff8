//! Refusals, as `application/problem+json` (RFC 9457): a status, a stable `code`, where it is
//! (`pointer`) and what it is about (`params`), so that a page can say it in any language.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, HeaderName};
use http::{HeaderValue, StatusCode};
use ld_shared::fault::Fault;
use serde_json::{Map, Value, json};
use std::fmt::Write as _;

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Code {
    /// A value of the path, the query or the body is not what is asked for.
    BadValue,
    /// The body is no JSON.
    BadJson,
    /// Nobody may be told anything without the token.
    TokenNeeded,
    /// A viewer's token may only look.
    ViewersMayOnlyLook,
    /// The request comes from a page of another site.
    CrossSite,
    /// The document asks for what callers from outside may not have.
    NotAllowed,
    /// There is no such page.
    NoSuchPage,
    /// There is no such run.
    NoSuchRun,
    /// No test goes on.
    NothingRuns,
    /// The run has no such report.
    NoSuchReport,
    /// The page has no such method.
    NoSuchMethod,
    /// The body does not come.
    TooSlow,
    /// It does not run now.
    NotRunning,
    /// The scenario goes by the other model.
    OtherModel,
    /// The workers cannot make so much.
    NoCapacity,
    /// It is so already.
    AlreadySo,
    /// The load of the test was changed as often as can be.
    ChangedTooOften,
    /// Documents cannot be started here.
    StartsNothing,
    /// There is no token that one could log in by.
    NoTokenSet,
    /// Nothing to compare by.
    NoEvidence,
    /// The body is too large.
    TooLarge,
    /// The body is of another type.
    OtherType,
    /// The request was meant for another server.
    OtherHost,
    /// The test has no such scenario.
    NoSuchScenario,
    /// The document has faults.
    Faults,
    /// There is too much of it already.
    TooMany,
    /// The store of runs cannot be used.
    Store,
}

impl Code {
    /// Every code.
    pub(super) const ALL: [Self; 27] = [
        Self::BadValue,
        Self::BadJson,
        Self::TokenNeeded,
        Self::ViewersMayOnlyLook,
        Self::CrossSite,
        Self::NotAllowed,
        Self::NoSuchPage,
        Self::NoSuchRun,
        Self::NothingRuns,
        Self::NoSuchReport,
        Self::NoSuchMethod,
        Self::TooSlow,
        Self::NotRunning,
        Self::OtherModel,
        Self::NoCapacity,
        Self::AlreadySo,
        Self::ChangedTooOften,
        Self::NoSuchScenario,
        Self::StartsNothing,
        Self::NoTokenSet,
        Self::NoEvidence,
        Self::TooLarge,
        Self::OtherType,
        Self::OtherHost,
        Self::Faults,
        Self::TooMany,
        Self::Store,
    ];

    const fn parts(self) -> (StatusCode, &'static str, &'static str) {
        use StatusCode as S;
        match self {
            Self::BadValue => (S::BAD_REQUEST, "bad_value", "a value is not what is asked for"),
            Self::BadJson => (S::BAD_REQUEST, "bad_json", "the body cannot be read as JSON"),
            Self::TokenNeeded => (S::UNAUTHORIZED, "token_needed", "the token is needed"),
            Self::ViewersMayOnlyLook => (S::FORBIDDEN, "viewers_may_only_look", "this token may only look"),
            Self::CrossSite => (S::FORBIDDEN, "cross_site", "the request comes from another site"),
            Self::NotAllowed => (S::FORBIDDEN, "not_allowed", "callers from outside may not do that"),
            Self::NoSuchPage => (S::NOT_FOUND, "no_such_page", "there is no such page"),
            Self::NoSuchRun => (S::NOT_FOUND, "no_such_run", "there is no such run"),
            Self::NothingRuns => (S::NOT_FOUND, "nothing_runs", "no test goes on"),
            Self::NoSuchReport => (S::NOT_FOUND, "no_such_report", "the run has no such report"),
            Self::NoSuchMethod => (S::METHOD_NOT_ALLOWED, "no_such_method", "the page has no such method"),
            Self::TooSlow => (S::REQUEST_TIMEOUT, "too_slow", "the body did not come in time"),
            Self::NotRunning => (S::CONFLICT, "not_running", "it does not run now"),
            Self::OtherModel => (S::CONFLICT, "other_model", "the scenario goes by the other model"),
            Self::NoCapacity => (S::CONFLICT, "no_capacity", "the workers cannot make so much"),
            Self::AlreadySo => (S::CONFLICT, "already_so", "it is so already"),
            Self::ChangedTooOften => (S::CONFLICT, "changed_too_often", "the load was changed as often as can be"),
            Self::NoSuchScenario => (S::UNPROCESSABLE_ENTITY, "no_such_scenario", "the test has no such scenario"),
            Self::StartsNothing => (S::CONFLICT, "starts_nothing", "documents cannot be started here"),
            Self::NoTokenSet => (S::CONFLICT, "no_token_set", "there is no token to log in by"),
            Self::NoEvidence => (S::CONFLICT, "no_evidence", "the run has nothing to compare by"),
            Self::TooLarge => (S::PAYLOAD_TOO_LARGE, "too_large", "the body is too large"),
            Self::OtherType => (S::UNSUPPORTED_MEDIA_TYPE, "other_type", "the body is of another type"),
            Self::OtherHost => (S::MISDIRECTED_REQUEST, "other_host", "the request names another host"),
            Self::Faults => (S::UNPROCESSABLE_ENTITY, "faults", "the document has faults"),
            Self::TooMany => (S::TOO_MANY_REQUESTS, "too_many", "there are too many already"),
            Self::Store => (S::SERVICE_UNAVAILABLE, "store", "the store of runs cannot be used"),
        }
    }

    pub(super) fn status(self) -> StatusCode {
        self.parts().0
    }

    /// `token_needed`.
    pub(super) fn name(self) -> &'static str {
        self.parts().1
    }

    /// What it is, in English.
    pub(super) fn title(self) -> &'static str {
        self.parts().2
    }
}

/// A refusal.
#[derive(Debug)]
pub(super) struct Problem(Box<Content>);

#[derive(Debug)]
struct Content {
    code: Code,
    detail: String,
    help: Option<String>,
    pointer: Option<String>,
    params: Map<String, Value>,
    errors: Vec<Value>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Problem {
    /// A refusal; `detail` says what was seen.
    pub(super) fn new(code: Code, detail: impl Into<String>) -> Self {
        Self(Box::new(Content {
            code,
            detail: detail.into(),
            help: None,
            pointer: None,
            params: Map::new(),
            errors: Vec::new(),
            headers: Vec::new(),
        }))
    }

    /// With the remedy.
    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.0.help = Some(help.into());
        self
    }

    /// With where it is: a JSON pointer into the body, or the name of a parameter behind `#`.
    pub(super) fn at(mut self, pointer: impl Into<String>) -> Self {
        self.0.pointer = Some(pointer.into());
        self
    }

    /// With what it is about.
    pub(super) fn param(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.0.params.insert(name.to_owned(), value.into());
        self
    }

    /// With a header of the answer.
    pub(super) fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.headers.push((name, value));
        self
    }

    /// All that is wrong with a document.
    pub(super) fn faults(code: Code, faults: &[Fault]) -> Self {
        let first = faults.first();
        let mut problem = Self::new(code, first.map_or_else(String::new, |fault| fault.message.clone()));
        problem.0.pointer = first.map(|fault| fault.pointer.clone());
        problem.0.help = first.and_then(|fault| fault.help.clone());
        problem.0.errors = faults.iter().map(of_fault).collect();
        problem.param("count", faults.len())
    }

    /// What is wrong.
    pub(super) fn code(&self) -> Code {
        self.0.code
    }

    fn json(&self) -> Value {
        let mut body = json!({
            "type": format!("urn:loaddensity:problem:{}", self.0.code.name()),
            "title": self.0.code.title(),
            "status": self.0.code.status().as_u16(),
            "code": self.0.code.name(),
            "detail": self.0.detail,
            "params": self.0.params,
        });
        if let Some(pointer) = &self.0.pointer {
            body["pointer"] = pointer.as_str().into();
        }
        if let Some(help) = &self.0.help {
            body["help"] = help.as_str().into();
        }
        if !self.0.errors.is_empty() {
            body["errors"] = self.0.errors.clone().into();
        }
        body
    }
}

/// A fault. What people read is a sentence around the words in backticks: `template` is the sentence,
/// the same for every document, and `params` are those words, so that it can be looked up in a table
/// of translations.
pub(super) fn of_fault(fault: &Fault) -> Value {
    let (template, params) = template(&fault.message);
    let mut value = json!({
        "code": "fault",
        "pointer": fault.pointer,
        "detail": fault.message,
        "template": template,
        "params": params,
    });
    if let Some(help) = &fault.help {
        value["help"] = help.as_str().into();
    }
    value
}

fn template(message: &str) -> (String, Map<String, Value>) {
    let (mut template, mut params) = (String::new(), Map::new());
    let mut pieces = message.split('`');
    template.push_str(pieces.next().unwrap_or_default());
    while let Some(word) = pieces.next() {
        let name = params.len().to_string();
        write!(template, "{{{name}}}").expect("writing to a String cannot fail");
        params.insert(name, word.into());
        template.push_str(pieces.next().unwrap_or_default());
    }
    (template, params)
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.json().to_string()));
        *response.status_mut() = self.0.code.status();
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(CONTENT));
        response.headers_mut().extend(self.0.headers);
        response
    }
}

/// The type of their bodies.
pub(super) const CONTENT: &str = "application/problem+json";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_differ() {
        let names: std::collections::BTreeSet<_> = Code::ALL.iter().map(|code| code.name()).collect();
        assert_eq!(names.len(), Code::ALL.len());
        assert!(Code::ALL.iter().all(|code| code.status().is_client_error() || *code == Code::Store));
    }

    #[test]
    fn faults_can_be_translated() {
        let fault = Fault::new("/0/1/usercount", "unknown key `usercount` of `LD_start_test`").help("did you mean?");
        let json = Problem::faults(Code::Faults, &[fault]).json();
        assert_eq!(json["pointer"], "/0/1/usercount");
        assert_eq!(json["errors"][0]["template"], "unknown key {0} of {1}");
        assert_eq!(json["errors"][0]["params"], json!({"0": "usercount", "1": "LD_start_test"}));
        assert_eq!((json["status"].clone(), json["code"].clone()), (422.into(), "faults".into()));
    }
}
