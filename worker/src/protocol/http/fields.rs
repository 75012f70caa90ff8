//! Task fields: read into one type, every fault found on the way.

use super::url::{self, Url};
use super::version;
use crate::protocol::Fault;
use crate::protocol::reader::{Reader, escape, kind, scalar};
use ld_shared::plan::{HttpVersion, ScenarioPlan};
use serde_json::{Map, Value};

/// Names of the fields.
pub(super) const FIELDS: &[&str] = &[
    "method",
    "request_url",
    "url",
    "params",
    "headers",
    "cookies",
    "json",
    "data",
    "files",
    "auth",
    "timeout",
    "allow_redirects",
    "verify",
    "cert",
    "client_cert",
];

/// Most streams of a shared connection.
pub(super) const MAX_STREAMS: u64 = 10_000;

pub(super) const METHODS: [&str; 7] = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"];

/// A task's fields. Texts may hold placeholders.
#[derive(Clone, Debug)]
pub(super) struct Fields {
    pub(super) method: &'static str,
    /// As written.
    pub(super) url: String,
    /// Joined to the scenario's host.
    pub(super) joined: String,
    pub(super) params: Vec<(String, String)>,
    /// `None` removes a default header.
    pub(super) headers: Vec<(String, Option<String>)>,
    pub(super) cookies: Vec<(String, String)>,
    pub(super) auth: Option<Auth>,
    pub(super) body: Body,
    pub(super) timeout: Option<f64>,
    pub(super) follows: bool,
    pub(super) verify: Option<bool>,
}

#[derive(Clone, Debug)]
pub(super) enum Auth {
    Basic(String, String),
    Bearer(String),
}

#[derive(Clone, Debug)]
pub(super) enum Body {
    None,
    Json(Value),
    Form(Vec<(String, String)>),
    Raw(String),
    Multipart { fields: Vec<(String, String)>, files: Vec<(String, String)> },
}

/// Reads the fields of a task of `user`; `Err` holds every fault.
pub(super) fn parse(fields: &Map<String, Value>, scenario: &ScenarioPlan, user: &str) -> Result<Fields, Vec<Fault>> {
    let mut reader = Reader::new(fields);
    let method = reader.method();
    let url = reader.url();
    let joined = reader.joined(&url, scenario);
    if version::of(user, scenario) == HttpVersion::H3
        && joined.get(..7).is_some_and(|s| s.eq_ignore_ascii_case("http://"))
    {
        let fault = Fault::new(reader.url_pointer(), "HTTP/3 needs an https:// URL");
        reader.fault(fault.help("write https://, or another `http_version`"));
    }
    let parsed = Fields {
        method,
        joined,
        params: reader.pairs("params"),
        headers: reader.headers(),
        cookies: reader.cookies(),
        auth: reader.auth(),
        body: reader.body(),
        timeout: reader.seconds("timeout"),
        follows: reader.flag("allow_redirects").unwrap_or(true),
        verify: verify(&mut reader),
        url,
    };
    for key in ["cert", "client_cert"] {
        if reader.get(key).is_some() {
            let fault = Fault::new(format!("/{key}"), format!("a task's `{key}` is not supported"));
            reader.fault(fault.help("use `tls` on the test"));
        }
    }
    reader.finish(parsed)
}

/// The option `streams`.
pub(super) fn streams(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.trim().parse().ok()).filter(|streams| (1..=MAX_STREAMS).contains(streams))
}

/// Every fault of the options.
pub(super) fn option_faults(options: &Map<String, Value>) -> Vec<Fault> {
    match options.get("streams").filter(|value| !value.is_null()) {
        Some(value) if streams(value).is_none() => {
            let message = format!("expected a whole number from 1 to {MAX_STREAMS}, found {value}");
            vec![Fault::new("/streams", message)]
        }
        _ => Vec::new(),
    }
}

fn verify(reader: &mut Reader<'_>) -> Option<bool> {
    match reader.get("verify")? {
        Value::Bool(flag) => Some(*flag),
        other => {
            let fault = Fault::new("/verify", format!("expected true or false, found {}", kind(other)));
            reader.fault(fault.help("certificate authorities go into `tls` on the test"));
            None
        }
    }
}

/// What only HTTP's fields need of a reader.
trait HttpFields<'a> {
    fn method(&mut self) -> &'static str;
    fn url(&mut self) -> String;
    fn url_pointer(&self) -> &'static str;
    fn joined(&mut self, url: &str, scenario: &ScenarioPlan) -> String;
    fn headers(&mut self) -> Vec<(String, Option<String>)>;
    fn cookies(&mut self) -> Vec<(String, String)>;
    fn auth(&mut self) -> Option<Auth>;
    fn body(&mut self) -> Body;
}

impl<'a> HttpFields<'a> for Reader<'a> {
    fn method(&mut self) -> &'static str {
        let accepted = "accepted: get, post, put, patch, delete, head, options";
        match self.get("method") {
            None => self.fault(Fault::new("/method", "missing method").help(accepted)),
            Some(Value::String(name)) => {
                let upper = name.trim().to_ascii_uppercase();
                if let Some(method) = METHODS.into_iter().find(|method| *method == upper) {
                    return method;
                }
                let close = METHODS
                    .into_iter()
                    .max_by(|a, b| strsim::jaro_winkler(a, &upper).total_cmp(&strsim::jaro_winkler(b, &upper)));
                let help = match close.filter(|method| strsim::jaro_winkler(method, &upper) > 0.7) {
                    Some(method) => format!("did you mean `{}`? {accepted}", method.to_ascii_lowercase()),
                    None => accepted.to_owned(),
                };
                self.fault(Fault::new("/method", format!("unknown method `{name}`")).help(help));
            }
            Some(other) => self.wrong_type("/method", other, "a text"),
        }
        "GET"
    }

    fn url(&mut self) -> String {
        for key in ["request_url", "url"] {
            match self.get(key) {
                None => {}
                Some(Value::String(url)) if url.trim().is_empty() => {}
                Some(Value::String(url)) => return url.trim().to_owned(),
                Some(other) => {
                    self.wrong_type(format!("/{key}"), other, "a text");
                    return String::new();
                }
            }
        }
        self.fault(Fault::new("/request_url", "missing request_url").help("give the URL to request"));
        String::new()
    }

    fn url_pointer(&self) -> &'static str {
        if self.get("request_url").is_some() { "/request_url" } else { "/url" }
    }

    fn joined(&mut self, url: &str, scenario: &ScenarioPlan) -> String {
        if url.is_empty() {
            return String::new();
        }
        // What begins with a placeholder may turn out to be absolute: it is joined when it is known.
        if url.starts_with("${") {
            return url.to_owned();
        }
        let Some(joined) = url::join(scenario.host.as_deref(), url) else {
            let message = format!("relative URL `{url}` without a host");
            self.fault(Fault::new(self.url_pointer(), message).help("give `host` on the test, or an absolute URL"));
            return String::new();
        };
        if !origin_of(&joined).contains("${")
            && let Err(why) = Url::parse(&joined)
        {
            self.fault(Fault::new(self.url_pointer(), format!("unusable URL `{url}`: {why}")));
        }
        joined
    }

    fn headers(&mut self) -> Vec<(String, Option<String>)> {
        let mut headers = Vec::new();
        match self.get("headers") {
            None => {}
            Some(Value::Object(object)) => {
                for (name, value) in object {
                    let pointer = format!("/headers/{}", escape(name));
                    if name.is_empty() || !name.bytes().all(is_token) {
                        self.fault(Fault::new(pointer, format!("`{name}` cannot be a header's name")));
                    } else if name.eq_ignore_ascii_case("transfer-encoding") {
                        let help = "leave it out: the body's length is known and sent";
                        self.fault(Fault::new(pointer, "the transfer coding is not a task's to choose").help(help));
                    } else {
                        match value {
                            Value::Null => headers.push((name.clone(), None)),
                            Value::String(text) if text.contains(['\r', '\n', '\0']) => {
                                self.fault(Fault::new(pointer, "a line break in a header"));
                            }
                            Value::String(text) => headers.push((name.clone(), Some(text.trim().to_owned()))),
                            Value::Number(number) => headers.push((name.clone(), Some(number.to_string()))),
                            other => self.wrong_type(pointer, other, "a text"),
                        }
                    }
                }
            }
            Some(other) => self.wrong_type("/headers", other, "an object"),
        }
        headers
    }

    /// An object, or a text as in the header: `a=1; b=2`.
    fn cookies(&mut self) -> Vec<(String, String)> {
        if let Some(Value::String(text)) = self.get("cookies") {
            let cookies = text.split(';').map(str::trim).filter(|cookie| !cookie.is_empty());
            let cookies: Vec<_> = cookies.map(|cookie| cookie.split_once('=').ok_or(cookie)).collect();
            if let Some(Err(cookie)) = cookies.iter().find(|cookie| cookie.is_err()) {
                let message = format!("`{cookie}` is no cookie");
                self.fault(Fault::new("/cookies", message).help("write `name=value; name=value`, or an object"));
            }
            let pairs = cookies.into_iter().filter_map(Result::ok);
            return pairs.map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned())).collect();
        }
        let cookies = self.pairs("cookies");
        for (name, value) in &cookies {
            let is_bad = |text: &str| text.contains(|c: char| c.is_ascii_control() || c == ';');
            if is_bad(name) || is_bad(value) || name.contains('=') {
                self.fault(Fault::new(format!("/cookies/{}", escape(name)), "characters that cookies cannot have"));
            }
        }
        cookies
    }

    fn auth(&mut self) -> Option<Auth> {
        let auth = match self.get("auth")? {
            Value::Object(auth) => auth,
            other => {
                self.wrong_type("/auth", other, "an object with `type`");
                return None;
            }
        };
        let mut text = |key: &str| match auth.get(key).filter(|value| !value.is_null()) {
            None => String::new(),
            Some(value) => scalar(value).unwrap_or_else(|| {
                self.wrong_type(format!("/auth/{key}"), value, "a text");
                String::new()
            }),
        };
        let kind = text("type").to_ascii_lowercase();
        match kind.as_str() {
            "basic" => Some(Auth::Basic(text("username"), text("password"))),
            "bearer" => Some(Auth::Bearer(text("token"))),
            _ => {
                let fault = Fault::new("/auth/type", format!("unknown auth type `{kind}`"));
                self.fault(fault.help("accepted: basic, bearer"));
                None
            }
        }
    }

    fn body(&mut self) -> Body {
        let files = self.get("files").is_some().then(|| self.pairs("files"));
        let data = match self.get("data") {
            Some(Value::String(_)) if files.is_some() => {
                self.fault(Fault::new("/data", "with `files`, data must be an object"));
                None
            }
            Some(Value::String(text)) => return Body::Raw(text.clone()),
            Some(_) => Some(self.pairs("data")),
            None => None,
        };
        match (files, data, self.get("json")) {
            (Some(files), data, _) => Body::Multipart { fields: data.unwrap_or_default(), files },
            (None, Some(data), _) => Body::Form(data),
            (None, None, Some(json)) => Body::Json(json.clone()),
            (None, None, None) => Body::None,
        }
    }
}

/// Scheme, host and port of a URL that may hold placeholders.
pub(super) fn origin_of(url: &str) -> &str {
    let from = url.find("://").map_or(0, |at| at + 3);
    let end = url.get(from..).and_then(|rest| rest.find(['/', '?', '#']));
    end.and_then(|end| url.get(..from + end)).unwrap_or(url)
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
