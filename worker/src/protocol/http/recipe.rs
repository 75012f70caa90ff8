//! A request, compiled once and filled in for each time it is sent.

use super::cookies::{self, Jar};
use super::fields::{Auth, Body, Fields, origin_of};
use super::origin::{Origin, Origins};
use super::url::{self, Url, push_form, push_target};
use crate::protocol::text::Text;
use ld_shared::id::Digest;
use ld_shared::sample::{Failure, FailureKind};
use ld_shared::scope::{Bindings, Scope};
use ld_shared::template::{Escape, Template};
use std::rc::Rc;

/// A request before its placeholders are filled in.
#[expect(clippy::struct_excessive_bools, reason = "independent facts about one request")]
pub(super) struct Recipe {
    method: &'static str,
    place: Place,
    /// The test's host, for URLs that are known only when they are filled in.
    host: Option<Rc<str>>,
    verify: bool,
    params: Vec<Piece>,
    /// Whole lines.
    headers: Vec<Piece>,
    has_own_host: bool,
    has_own_cookies: bool,
    has_auth: bool,
    cookies: Vec<(String, Text)>,
    body: Vec<Piece>,
    sends_length: bool,
}

/// Where a request goes.
enum Place {
    Fixed(Rc<Origin>, Vec<u8>, Option<String>),
    /// Only path and query hold placeholders.
    Path(Rc<Origin>, Template, Option<String>),
    Whole(Text),
}

/// A part of a request.
enum Piece {
    Bytes(Vec<u8>),
    /// Part of a header: line breaks are refused.
    Header(Template),
    /// A value in a form or query.
    Form(Template),
    /// Part of a body; a template of a JSON text escapes what it fills in by itself.
    Raw(Template),
    Basic(Text, Text),
}

/// What rendering needs.
pub(super) struct Fill<'a> {
    pub(super) bindings: &'a Bindings,
    pub(super) scope: &'a mut Scope,
    pub(super) origins: &'a Origins,
}

impl Recipe {
    pub(super) fn compile(
        fields: &Fields,
        host: Option<&str>,
        verify: bool,
        bindings: &Bindings,
        origins: &Origins,
    ) -> Result<Self, String> {
        let place = place(&fields.joined, verify, bindings, origins)?;
        let mut params = Vec::new();
        form(&fields.params, bindings, &mut params);
        let own = |name: &str| fields.headers.iter().any(|(own, _)| own.eq_ignore_ascii_case(name));
        let mut headers = Vec::new();
        for (name, value) in [("User-Agent", concat!("LoadDensity/", env!("CARGO_PKG_VERSION"))), ("Accept", "*/*")] {
            if !own(name) {
                bytes(&mut headers, format!("{name}: {value}\r\n").as_bytes());
            }
        }
        for (name, value) in &fields.headers {
            let is_ours = name.eq_ignore_ascii_case("content-length")
                || (fields.auth.is_some() && name.eq_ignore_ascii_case("authorization"))
                || (name.eq_ignore_ascii_case("content-type") && matches!(fields.body, Body::Multipart { .. }));
            if let Some(value) = value.as_ref().filter(|_| !is_ours) {
                bytes(&mut headers, format!("{name}: ").as_bytes());
                header(Text::compile(value, bindings), &mut headers)?;
                bytes(&mut headers, b"\r\n");
            }
        }
        match &fields.auth {
            None => {}
            Some(Auth::Bearer(token)) => {
                bytes(&mut headers, b"Authorization: Bearer ");
                header(Text::compile(token, bindings), &mut headers)?;
                bytes(&mut headers, b"\r\n");
            }
            Some(Auth::Basic(user, password)) => {
                bytes(&mut headers, b"Authorization: ");
                match (Text::compile(user, bindings), Text::compile(password, bindings)) {
                    (Text::Literal(user), Text::Literal(password)) => {
                        bytes(&mut headers, url::basic(format!("{user}:{password}").as_bytes()).as_bytes());
                    }
                    (user, password) => headers.push(Piece::Basic(user, password)),
                }
                bytes(&mut headers, b"\r\n");
            }
        }
        let mut body = Vec::new();
        if let Some(kind) = content(&fields.body, bindings, &mut body)
            && (!own("content-type") || matches!(fields.body, Body::Multipart { .. }))
        {
            bytes(&mut headers, format!("Content-Type: {kind}\r\n").as_bytes());
        }
        Ok(Self {
            method: fields.method,
            place,
            host: host.map(Rc::from),
            verify,
            params,
            has_own_host: own("host"),
            has_own_cookies: own("cookie"),
            has_auth: fields.auth.is_some(),
            headers,
            cookies: fields
                .cookies
                .iter()
                .map(|(name, value)| (name.clone(), Text::compile(value, bindings)))
                .collect(),
            sends_length: !body.is_empty() || !matches!(fields.method, "GET" | "HEAD"),
            body,
        })
    }

    /// Whether every request is the same, as long as the user has no cookies from answers.
    pub(super) fn fixed_origin(&self) -> Option<&Rc<Origin>> {
        let is_fixed = |pieces: &[Piece]| pieces.iter().all(|piece| matches!(piece, Piece::Bytes(_)));
        let has_fixed_cookies = self.cookies.iter().all(|(_, value)| matches!(value, Text::Literal(_)));
        match &self.place {
            Place::Fixed(origin, ..)
                if has_fixed_cookies && is_fixed(&self.params) && is_fixed(&self.headers) && is_fixed(&self.body) =>
            {
                Some(origin)
            }
            _ => None,
        }
    }

    /// Writes the request into `out`.
    pub(super) fn fill(
        &self,
        fill: &mut Fill<'_>,
        jar: Option<&Jar>,
        out: &mut Vec<u8>,
    ) -> Result<Rc<Origin>, Failure> {
        out.extend_from_slice(self.method.as_bytes());
        out.push(b' ');
        let target_at = out.len();
        let (origin, credentials) = self.target(fill, out)?;
        let target_end = out.len();
        out.extend_from_slice(b" HTTP/1.1\r\n");
        if !self.has_own_host {
            out.extend_from_slice(b"Host: ");
            out.extend_from_slice(origin.host_header.as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        if let Some(authorization) = credentials.filter(|_| !self.has_auth) {
            out.extend_from_slice(format!("Authorization: {authorization}\r\n").as_bytes());
        }
        for piece in &self.headers {
            piece.fill(fill, out)?;
        }
        if !self.has_own_cookies && (jar.is_some() || !self.cookies.is_empty()) {
            let mut line = Vec::new();
            if let Some(jar) = jar {
                let target = std::str::from_utf8(&out[target_at..target_end]).unwrap_or("/");
                let except = |name: &str| self.cookies.iter().any(|(own, _)| own == name);
                jar.push(origin.is_https, &origin.host, target, &except, &mut line);
            }
            for (name, value) in &self.cookies {
                let mut text = Vec::new();
                value.fill(fill.bindings, fill.scope, &mut text)?;
                refuse_breaks(&text)?;
                cookies::push_pair(name, &text, &mut line);
            }
            if !line.is_empty() {
                out.extend_from_slice(b"Cookie: ");
                out.extend_from_slice(&line);
                out.extend_from_slice(b"\r\n");
            }
        }
        self.fill_body(fill, out)?;
        Ok(origin)
    }

    /// Value of the `Cookie` header after a redirect from a request, `previous`, to `next`: the jar's,
    /// and on the task's own host what the task itself sends.
    pub(super) fn cookies_at(&self, next: &Url, first: &Origin, previous: &[u8], jar: Option<&Jar>) -> Vec<u8> {
        let is_own = |name: &str| next.host == first.host && self.cookies.iter().any(|(own, _)| own == name);
        let mut line = Vec::new();
        if let Some(jar) = jar {
            jar.push(next.is_https, &next.host, &next.target, &is_own, &mut line);
        }
        let sent = previous
            .split(|b| *b == b'\n')
            .take_while(|line| *line != b"\r")
            .find_map(|line| line.strip_prefix(b"Cookie: "));
        for pair in sent.unwrap_or_default().split(|b| *b == b';').map(<[u8]>::trim_ascii) {
            let (name, value) = pair.split_at(pair.iter().position(|b| *b == b'=').unwrap_or(pair.len()));
            if let (Ok(name), Some(value)) = (std::str::from_utf8(name), value.get(1..))
                && is_own(name)
            {
                cookies::push_pair(name, value, &mut line);
            }
        }
        line
    }

    /// The URL as reports show it.
    pub(super) fn url(&self, fill: &mut Fill<'_>) -> Option<String> {
        let mut target = Vec::new();
        let (origin, _) = self.target(fill, &mut target).ok()?;
        Some(format!("{}{}", origin.base(), String::from_utf8_lossy(&target)))
    }

    /// Data sources that its placeholders name.
    pub(super) fn sources(&self) -> Vec<u32> {
        let mut sources: Vec<u32> = self.templates().flat_map(Template::sources).collect();
        sources.sort_unstable();
        sources.dedup();
        sources
    }

    fn templates(&self) -> impl Iterator<Item = &Template> {
        let place = match &self.place {
            Place::Fixed(..) | Place::Whole(Text::Literal(_)) => None,
            Place::Path(_, template, _) | Place::Whole(Text::Template(template)) => Some(template),
        };
        let pieces = self.params.iter().chain(&self.headers).chain(&self.body).flat_map(|piece| match piece {
            Piece::Bytes(_) => [None, None],
            Piece::Header(t) | Piece::Form(t) | Piece::Raw(t) => [Some(t), None],
            Piece::Basic(user, password) => [user.template(), password.template()],
        });
        let cookies = self.cookies.iter().map(|(_, value)| value.template());
        place.into_iter().chain(pieces.chain(cookies).flatten())
    }

    /// Appends path and query. Returns where they are, and the credentials of the URL.
    fn target(&self, fill: &mut Fill<'_>, out: &mut Vec<u8>) -> Result<(Rc<Origin>, Option<String>), Failure> {
        let from = out.len();
        let found = match &self.place {
            Place::Fixed(origin, target, credentials) => {
                out.extend_from_slice(target);
                (origin.clone(), credentials.clone())
            }
            Place::Path(origin, template, credentials) => {
                let mut text = Vec::new();
                template.render(fill.bindings, fill.scope, Escape::None, &mut text)?;
                if text.first() != Some(&b'/') {
                    out.push(b'/');
                }
                if !push_target(&text, out) {
                    return Err(split_refused());
                }
                (origin.clone(), credentials.clone())
            }
            Place::Whole(text) => {
                let mut whole = Vec::new();
                text.fill(fill.bindings, fill.scope, &mut whole)?;
                refuse_breaks(&whole)?;
                let whole = String::from_utf8_lossy(&whole);
                let joined = url::join(self.host.as_deref(), &whole)
                    .ok_or_else(|| Failure::new(FailureKind::Request, "relative URL without a host"))?;
                let url = Url::parse(&joined)
                    .map_err(|why| Failure::new(FailureKind::Request, format!("unusable URL: {why}")))?;
                out.extend_from_slice(url.target.as_bytes());
                (fill.origins.get(&url, self.verify), url.authorization())
            }
        };
        if !self.params.is_empty() {
            match (out[from..].contains(&b'?'), out.last()) {
                (true, Some(b'?' | b'&')) => {}
                (true, _) => out.push(b'&'),
                (false, _) => out.push(b'?'),
            }
            for piece in &self.params {
                piece.fill(fill, out)?;
            }
        }
        Ok(found)
    }

    /// Appends the end of the head, and the body.
    fn fill_body(&self, fill: &mut Fill<'_>, out: &mut Vec<u8>) -> Result<(), Failure> {
        if !self.sends_length {
            out.extend_from_slice(b"\r\n");
            return Ok(());
        }
        let mut body = Vec::new();
        for piece in &self.body {
            piece.fill(fill, &mut body)?;
        }
        out.extend_from_slice(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes());
        out.extend_from_slice(&body);
        Ok(())
    }
}

impl Piece {
    fn fill(&self, fill: &mut Fill<'_>, out: &mut Vec<u8>) -> Result<(), Failure> {
        let from = out.len();
        match self {
            Self::Bytes(bytes) => out.extend_from_slice(bytes),
            Self::Header(template) => {
                template.render(fill.bindings, fill.scope, Escape::None, out)?;
                refuse_breaks(&out[from..])?;
            }
            Self::Form(template) => template.render(fill.bindings, fill.scope, Escape::Form, out)?,
            Self::Raw(template) => template.render(fill.bindings, fill.scope, Escape::None, out)?,
            Self::Basic(user, password) => {
                let mut credentials = Vec::new();
                user.fill(fill.bindings, fill.scope, &mut credentials)?;
                credentials.push(b':');
                password.fill(fill.bindings, fill.scope, &mut credentials)?;
                out.extend_from_slice(url::basic(&credentials).as_bytes());
            }
        }
        Ok(())
    }
}

/// Path and query, percent-encoded, of a task without name; only `env` and registered variables are
/// filled in.
pub(super) fn shown_target(fields: &Fields, bindings: &Bindings) -> String {
    let url = Template::compile_name(&fields.joined, bindings);
    let rest = url.strip_prefix(origin_of(&url)).unwrap_or(&url);
    if url.starts_with("${") {
        return url;
    }
    let mut out = Vec::new();
    if !rest.starts_with('/') {
        out.push(b'/');
    }
    between_placeholders(rest.split('#').next().unwrap_or(""), &mut out, |text, out| {
        push_target(text.as_bytes(), out);
    });
    for (at, (name, value)) in fields.params.iter().enumerate() {
        out.push(if at > 0 || rest.contains('?') { b'&' } else { b'?' });
        push_form(name, &mut out);
        out.push(b'=');
        between_placeholders(&Template::compile_name(value, bindings), &mut out, push_form);
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Hands what lies between placeholders to `encode`; placeholders stay as they are.
fn between_placeholders(text: &str, out: &mut Vec<u8>, encode: impl Fn(&str, &mut Vec<u8>)) {
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        let Some((inside, next)) = after.split_once('}') else { break };
        encode(before, out);
        out.extend_from_slice(format!("${{{inside}}}").as_bytes());
        rest = next;
    }
    encode(rest, out);
}

fn place(joined: &str, verify: bool, bindings: &Bindings, origins: &Origins) -> Result<Place, String> {
    if let Text::Literal(text) = Text::compile(joined, bindings) {
        // It may still be relative: a variable at its beginning is joined to the host when filled in.
        return match Url::parse(&text) {
            Ok(url) => {
                Ok(Place::Fixed(origins.get(&url, verify), url.target.clone().into_bytes(), url.authorization()))
            }
            Err(_) if joined.starts_with("${") => Ok(Place::Whole(Text::Literal(text))),
            Err(why) => Err(why),
        };
    }
    let origin = origin_of(joined);
    if let Text::Literal(text) = Text::compile(origin, bindings)
        && let Ok(url) = Url::parse(&text)
    {
        let rest = joined.strip_prefix(origin).unwrap_or("");
        return Ok(Place::Path(origins.get(&url, verify), Template::compile(rest, bindings), url.authorization()));
    }
    Ok(Place::Whole(Text::compile(joined, bindings)))
}

/// Writes the body's pieces; returns its content type, if it has one of its own.
fn content(body: &Body, bindings: &Bindings, pieces: &mut Vec<Piece>) -> Option<String> {
    match body {
        Body::None => None,
        Body::Json(value) => {
            let text = value.to_string();
            if text.contains("${") {
                let template = Template::compile_json(value, bindings);
                match template.literal() {
                    Some(text) => bytes(pieces, text.as_bytes()),
                    None => pieces.push(Piece::Raw(template)),
                }
            } else {
                bytes(pieces, text.as_bytes());
            }
            Some("application/json".to_owned())
        }
        Body::Form(pairs) => {
            form(pairs, bindings, pieces);
            Some("application/x-www-form-urlencoded".to_owned())
        }
        Body::Raw(text) => {
            raw(text, bindings, pieces);
            None
        }
        Body::Multipart { fields, files } => {
            // From the content, so that the same plan makes the same bytes everywhere.
            let digest = Digest::of(format!("{fields:?}{files:?}").as_bytes()).to_string();
            let boundary = format!("LoadDensity-{}", digest.get(..32).unwrap_or(&digest));
            let named = |name: &str| name.replace('"', "%22").replace('\r', "%0D").replace('\n', "%0A");
            let parts = fields.iter().map(|part| (part, false)).chain(files.iter().map(|part| (part, true)));
            for ((name, value), is_file) in parts {
                let name = named(name);
                let file = if is_file { format!("; filename=\"{name}\"") } else { String::new() };
                let head = format!("--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"{file}\r\n\r\n");
                bytes(pieces, head.as_bytes());
                raw(value, bindings, pieces);
                bytes(pieces, b"\r\n");
            }
            bytes(pieces, format!("--{boundary}--\r\n").as_bytes());
            Some(format!("multipart/form-data; boundary={boundary}"))
        }
    }
}

fn form(pairs: &[(String, String)], bindings: &Bindings, pieces: &mut Vec<Piece>) {
    for (at, (name, value)) in pairs.iter().enumerate() {
        let mut literal = Vec::new();
        if at > 0 {
            literal.push(b'&');
        }
        push_form(name, &mut literal);
        literal.push(b'=');
        match Text::compile(value, bindings) {
            Text::Literal(text) => {
                push_form(&text, &mut literal);
                bytes(pieces, &literal);
            }
            Text::Template(template) => {
                bytes(pieces, &literal);
                pieces.push(Piece::Form(template));
            }
        }
    }
}

fn raw(text: &str, bindings: &Bindings, pieces: &mut Vec<Piece>) {
    match Text::compile(text, bindings) {
        Text::Literal(text) => bytes(pieces, text.as_bytes()),
        Text::Template(template) => pieces.push(Piece::Raw(template)),
    }
}

fn header(text: Text, pieces: &mut Vec<Piece>) -> Result<(), String> {
    match text {
        Text::Literal(text) => {
            refuse_breaks(text.as_bytes()).map_err(|failure| failure.to_string())?;
            bytes(pieces, text.as_bytes());
        }
        Text::Template(template) => pieces.push(Piece::Header(template)),
    }
    Ok(())
}

fn bytes(pieces: &mut Vec<Piece>, more: &[u8]) {
    match pieces.last_mut() {
        Some(Piece::Bytes(bytes)) => bytes.extend_from_slice(more),
        _ => pieces.push(Piece::Bytes(more.to_vec())),
    }
}

/// A value with a line break would end its header and begin another request.
fn refuse_breaks(text: &[u8]) -> Result<(), Failure> {
    if text.iter().any(|b| matches!(b, b'\r' | b'\n' | b'\0')) { Err(split_refused()) } else { Ok(()) }
}

fn split_refused() -> Failure {
    Failure::new(FailureKind::Request, "a placeholder put a line break into a header or URL")
}
