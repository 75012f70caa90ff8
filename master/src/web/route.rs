//! A route: everything about it in one place, so that it is answered, checked and told of alike.

use super::field::{self, Field};
use super::problem::{Code, Problem};
use super::{Web, openapi};
use axum::Router;
use axum::body::Body;
use axum::extract::{RawPathParams, Request};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{MethodFilter, MethodRouter};
use bytes::{Bytes, BytesMut};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::{Map, Value};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

/// A way to ask for something.
pub(super) struct Route {
    /// GET or POST.
    pub method: Method,
    /// Its path; `{id}` stands for a value of `path_fields`.
    pub path: &'static str,
    /// What it is called in generated clients.
    pub name: &'static str,
    /// What it does.
    pub about: &'static str,
    /// Values in its path.
    pub path_fields: &'static [Field],
    /// Values in its query.
    pub query: &'static [Field],
    /// Its body.
    pub body: Payload,
    /// What it answers if all is well.
    pub answers: &'static [Answer],
    /// How it may be refused, beside what holds for every route.
    pub problems: &'static [Code],
    /// Does it.
    pub handler: Handler,
}

/// The methods that there are: whatever looks is a GET, whatever changes something a POST.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    Get,
    Post,
}

/// A body.
#[derive(Clone, Copy)]
pub(super) enum Payload {
    /// None is read.
    None,
    /// A JSON object of these values.
    Fields(&'static [Field]),
    /// A JSON value, which the handler reads.
    Document,
    /// A token, as JSON or as a form; what is neither is no token.
    Token,
}

/// An answer.
pub(super) struct Answer {
    pub status: u16,
    pub about: &'static str,
    /// Type of its body, and the schema of that, if it has one; `None`: there is no body.
    pub content: Option<(&'static str, &'static str)>,
}

pub(super) const JSON: &str = "application/json";

impl Answer {
    pub(super) const fn json(status: u16, schema: &'static str, about: &'static str) -> Self {
        Self { status, about, content: Some((JSON, schema)) }
    }
}

pub(super) type Handler = fn(Arc<Web>, Call) -> Answering;
/// An answer on its way.
pub(super) type Answering = Pin<Box<dyn Future<Output = Result<Response, Problem>> + Send>>;

/// A request that fits its route.
pub(super) struct Call {
    values: Map<String, Value>,
    /// The bytes of its body, if it is one that the handler reads.
    pub body: Bytes,
    /// Its headers.
    pub headers: HeaderMap,
    /// Who asks, for queues, events and logs.
    pub by: String,
}

impl Call {
    /// A value that is a text.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.values.get(name).and_then(Value::as_str)
    }

    /// A value that is true or false; false if it is not there.
    pub(super) fn flag(&self, name: &str) -> bool {
        self.values.get(name).and_then(Value::as_bool).unwrap_or(false)
    }

    /// A value that is a whole number.
    pub(super) fn whole(&self, name: &str) -> Option<u64> {
        self.values.get(name).and_then(Value::as_u64)
    }

    /// A value that is a number.
    pub(super) fn number(&self, name: &str) -> Option<f64> {
        self.values.get(name).and_then(Value::as_f64)
    }

    /// The run that the path names.
    pub(super) fn id(&self) -> &str {
        self.text("id").unwrap_or_default()
    }
}

/// Who sent a request, for queues, events and logs.
#[derive(Clone)]
pub(super) struct Sender(pub String);

/// Most bytes of a document.
const LARGEST_DOCUMENT: usize = 4 << 20;
/// Most bytes of any other body.
const LARGEST: usize = 64 << 10;
/// Bytes of a body that is too large which are read nevertheless.
const DRAINED: usize = 32 << 20;
/// How long a body may take.
const BODY_TIME: Duration = Duration::from_secs(20);

/// All routes as a service.
pub(super) fn router(web: &Arc<Web>, routes: &'static [Route]) -> Router {
    let mut router = Router::new();
    for (index, route) in routes.iter().enumerate() {
        let is_first = !routes.iter().take(index).any(|other| other.path == route.path);
        if is_first {
            let mut methods = MethodRouter::new();
            for same in routes.iter().filter(|other| other.path == route.path) {
                let filter = match same.method {
                    Method::Get => MethodFilter::GET,
                    Method::Post => MethodFilter::POST,
                };
                let web = Arc::clone(web);
                methods = methods.on(filter, move |path: Path, request: Request| answer(web, same, path, request));
            }
            router = router.route(route.path, methods);
        }
    }
    let no_method = || async {
        let problem = Problem::new(Code::NoSuchMethod, "the page has no such method; `Allow` lists those it has");
        problem.into_response()
    };
    let no_page = || async {
        Problem::new(Code::NoSuchPage, "there is no such page").help("/openapi.json lists them").into_response()
    };
    router.fallback(no_page).method_not_allowed_fallback(no_method)
}

type Path = Result<RawPathParams, axum::extract::rejection::RawPathParamsRejection>;

async fn answer(web: Arc<Web>, route: &'static Route, path: Path, request: Request) -> Response {
    let answered = match read(route, path, request).await {
        Ok(call) => (route.handler)(web, call).await,
        Err(problem) => Err(problem),
    };
    answered.unwrap_or_else(|problem| {
        debug_assert!(openapi::problems(route).contains(&problem.code()), "{problem:?} of {}", route.path);
        problem.into_response()
    })
}

/// The request, if it is what the route asks for.
async fn read(route: &Route, path: Path, request: Request) -> Result<Call, Problem> {
    let bad = |what: &str| Problem::new(Code::BadValue, format!("the {what} is not UTF-8")).at(format!("#{what}"));
    let path = path.map_err(|_| bad("path"))?;
    let given: Vec<_> = path.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let mut values = field::read_texts(route.path_fields, &given, "path")?;
    let query = field::query(request.uri().query().unwrap_or_default()).ok_or_else(|| bad("query"))?;
    values.extend(field::read_texts(route.query, &query, "query")?);
    let by = request.extensions().get::<Sender>().map_or_else(|| "api".to_owned(), |Sender(by)| by.clone());
    let (head, body) = request.into_parts();
    let mut read = Bytes::new();
    match route.body {
        Payload::None => {}
        Payload::Fields(fields) => {
            let body = json_body(&head.headers, body, LARGEST).await?;
            let value: Value = serde_json::from_slice(&body).map_err(|error| no_json(&body, &error))?;
            values.extend(field::read_object(fields, &value)?);
        }
        Payload::Document => read = json_body(&head.headers, body, LARGEST_DOCUMENT).await?,
        Payload::Token => read = whole(body, LARGEST).await.unwrap_or_default(),
    }
    Ok(Call { values, body: read, headers: head.headers, by })
}

/// The bytes of a body that says it is JSON.
async fn json_body(headers: &HeaderMap, body: Body, most: usize) -> Result<Bytes, Problem> {
    if !is_json(headers.get(CONTENT_TYPE)) {
        let problem = Problem::new(Code::OtherType, "the body is to be JSON");
        return Err(problem.help("send `Content-Type: application/json`").param("accepted", JSON));
    }
    whole(body, most).await
}

/// All bytes of a body.
async fn whole(mut body: Body, most: usize) -> Result<Bytes, Problem> {
    let all = async {
        let mut all = BytesMut::new();
        let mut size = 0;
        while let Some(frame) = body.frame().await {
            // whoever sent half a body is gone
            let frame = frame.map_err(|error| Problem::new(Code::BadJson, format!("the body ends early: {error}")))?;
            let Ok(data) = frame.into_data() else { continue };
            size += data.len();
            if size > most + DRAINED {
                break;
            }
            // what is too large is read on for a while: many clients look for an answer only then
            if size <= most {
                all.extend_from_slice(&data);
            }
        }
        if size > most { Err(too_large(most)) } else { Ok(all.freeze()) }
    };
    tokio::time::timeout(BODY_TIME, all).await.unwrap_or_else(|_| {
        let problem = Problem::new(Code::TooSlow, format!("the body did not come in {} s", BODY_TIME.as_secs()));
        Err(problem.param("seconds", BODY_TIME.as_secs()))
    })
}

/// Reads what is left of the body of a request that is refused, for a while.
pub(super) async fn drain(body: Body) {
    // too much, too slow or broken: it is refused anyway
    drop(tokio::time::timeout(Duration::from_secs(1), whole(body, 0)).await);
}

fn too_large(most: usize) -> Problem {
    Problem::new(Code::TooLarge, format!("the body is larger than {most} bytes")).param("most", most)
}

/// `application/json` or `application/…+json`, in UTF-8.
fn is_json(content: Option<&HeaderValue>) -> bool {
    let Some(content) = content.and_then(|content| content.to_str().ok()) else { return false };
    let mut parts = content.split(';').map(str::trim);
    let essence = parts.next().unwrap_or_default().to_ascii_lowercase();
    let json = essence == JSON || (essence.starts_with("application/") && essence.ends_with("+json"));
    let mut charsets =
        parts.filter_map(|part| part.split_once('=')).filter(|(name, _)| name.eq_ignore_ascii_case("charset"));
    json && charsets.all(|(_, charset)| charset.trim_matches('"').eq_ignore_ascii_case("utf-8"))
}

/// The refusal of a body that is no JSON, with the innermost value that was begun.
pub(super) fn no_json(body: &[u8], error: &serde_json::Error) -> Problem {
    let problem =
        Problem::new(Code::BadJson, error.to_string()).at(super::place::pointer(body, error.line(), error.column()));
    problem.param("line", error.line()).param("column", error.column())
}

/// Does what takes a while where it keeps nobody else waiting.
pub(super) async fn apart<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let done = tokio::task::spawn_blocking(work).await;
    // as if it had been called
    done.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

/// An answer with a JSON body.
pub(super) fn json(status: StatusCode, value: &Value) -> Response {
    content(status, JSON, Body::from(value.to_string()))
}

/// An answer with a body of some type.
pub(super) fn content(status: StatusCode, content: &'static str, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content));
    response
}

/// An answer without a body.
pub(super) fn empty(status: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_by_its_names() {
        let is = |text: &str| is_json(Some(&HeaderValue::from_str(text).unwrap()));
        for good in ["application/json", "Application/JSON; charset=UTF-8", "application/vnd.x+json;charset=\"utf-8\""]
        {
            assert!(is(good), "{good}");
        }
        for bad in ["text/plain", "application/jsonx", "application/json; charset=utf-16", "", "x+json"] {
            assert!(!is(bad), "{bad}");
        }
        assert!(!is_json(None));
    }
}
