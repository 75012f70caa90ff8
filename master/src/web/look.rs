//! What there is to see of the process: health, workers, schema; and who looks.

use super::guard::{self, COOKIE_NAME};
use super::problem::{Code, Problem};
use super::route::{Call, JSON, content, empty, json};
use super::{Web, field, openapi, page, session};
use crate::cluster::view::Look;
use crate::exporter::prometheus;
use crate::remote::Level;
use crate::schema;
use axum::response::Response;
use http::header::{CONTENT_TYPE, LOCATION, SET_COOKIE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde_json::{Value, json};
use std::sync::Arc;

/// The process is there.
pub(super) fn health() -> Response {
    json(StatusCode::OK, &json!({"status": "ok"}))
}

/// A test could start now.
pub(super) async fn ready(web: Arc<Web>, _: Call) -> Result<Response, Problem> {
    let expected = web.options.expected_workers;
    let there = if expected == 0 { 0 } else { workers_now(&web).await.len() };
    let ending = web.ending.is_cancelled() || web.app.ended_by_user();
    let reason = if ending {
        Some("the process is ending".to_owned())
    } else {
        (there < expected as usize).then(|| format!("{there} of {expected} workers are there"))
    };
    let status = if reason.is_some() { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
    let value = json!({"ready": reason.is_none(), "workers": there, "expected_workers": expected, "reason": reason});
    Ok(json(status, &value))
}

/// What was measured since the process began, for Prometheus.
pub(super) async fn metrics(web: Arc<Web>, _: Call) -> Result<Response, Problem> {
    let _one = web.scrape.lock().await;
    Ok(content(StatusCode::OK, prometheus::CONTENT, prometheus::page_now(&web.app).await))
}

/// Who makes load.
pub(super) async fn workers(web: Arc<Web>, _: Call) -> Result<Response, Problem> {
    let value = json!({"expected": web.options.expected_workers, "workers": workers_now(&web).await});
    Ok(json(StatusCode::OK, &value))
}

async fn workers_now(web: &Web) -> Vec<crate::cluster::view::WorkerNow> {
    web.app.cluster_now().look(Look { from: u32::MAX, totals: false }).await.workers
}

/// The JSON Schema of documents.
pub(super) fn document_schema(web: &Web) -> Response {
    content(StatusCode::OK, JSON, schema::text(&web.app.commands()))
}

/// This API, told of.
pub(super) fn description() -> Response {
    json(StatusCode::OK, &openapi::document())
}

/// The same for people.
pub(super) fn index() -> Response {
    content(StatusCode::OK, "text/html; charset=utf-8", page::index())
}

/// Gives a cookie for a token.
pub(super) fn login(web: &Web, call: &Call) -> Result<Response, Problem> {
    let is_form = call.headers.get(CONTENT_TYPE).is_some_and(|content| content.as_bytes().starts_with(page::FORM));
    let token = if is_form { of_form(&call.body) } else { of_json(&call.body) };
    let level = match token {
        _ if !web.guard.asks_for_token() => {
            return Err(Problem::new(Code::NoTokenSet, "this server asks nobody for a token"));
        }
        Some(token) => web.guard.level_of(token.as_bytes()).ok_or_else(guard::refusal)?,
        None => return Err(guard::refusal()),
    };
    let name = if level == Level::Viewer { "viewer" } else { "full" };
    let mut response =
        if is_form { empty(StatusCode::SEE_OTHER) } else { json(StatusCode::OK, &json!({"level": name})) };
    if is_form {
        response.headers_mut().insert(LOCATION, HeaderValue::from_static("/"));
    }
    let session = web.guard.sessions.open(level);
    set_cookie(&mut response, &call.headers, &session, session::LASTS.as_secs());
    Ok(response)
}

/// Takes the cookie back.
pub(super) fn logout(web: &Web, call: &Call) -> Response {
    if let Some(session) = guard::cookie(&call.headers) {
        web.guard.sessions.close(session);
    }
    let mut response = empty(StatusCode::NO_CONTENT);
    set_cookie(&mut response, &call.headers, "", 0);
    response
}

fn of_json(body: &[u8]) -> Option<String> {
    serde_json::from_slice::<Value>(body).ok()?.get("token")?.as_str().map(str::to_owned)
}

fn of_form(body: &[u8]) -> Option<String> {
    let pairs = field::query(std::str::from_utf8(body).ok()?)?;
    pairs.into_iter().find(|(name, _)| name == "token").map(|(_, token)| token)
}

/// No script may read it, no other site may have it sent, and nobody on the way may see it if the way is
/// encrypted: this server speaks no TLS, a proxy before it says that it did.
fn set_cookie(response: &mut Response, headers: &HeaderMap, value: &str, lasts: u64) {
    const PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
    let secure = if headers.get(PROTO).is_some_and(|proto| proto == "https") { "; Secure" } else { "" };
    let cookie = format!("{COOKIE_NAME}={value}; Path=/; HttpOnly; SameSite=Strict; Max-Age={lasts}{secure}");
    let cookie = HeaderValue::try_from(cookie).expect("names of sessions are digits");
    response.headers_mut().insert(SET_COOKIE, cookie);
}
