//! Pages for people: what there is, and a place to show the token.

use super::problem::Problem;
use super::route::{Method, content};
use super::routes::ROUTES;
use axum::response::{IntoResponse as _, Response};
use http::StatusCode;
use http::header::{ACCEPT, WWW_AUTHENTICATE};
use http::request::Parts;
use std::fmt::Write as _;

/// The type of the login form's body.
pub(super) const FORM: &[u8] = b"application/x-www-form-urlencoded";

const HEAD: &str = "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>LoadDensity</title>\
    <meta name=\"viewport\" content=\"width=device-width\"><style>body{font:16px/1.5 system-ui,sans-serif;margin:2rem auto;\
    max-width:60rem;padding:0 1rem}td{padding:.2rem 1rem .2rem 0;vertical-align:top}code{white-space:nowrap}</style>";

/// The list of routes.
pub(super) fn index() -> String {
    let mut page = format!(
        "{HEAD}<h1>LoadDensity</h1><p>The HTTP API of this master. <a href=\"/openapi.json\">OpenAPI 3.1</a></p><table>"
    );
    for route in ROUTES {
        let (path, about) = (escaped(route.path), escaped(route.about));
        let path = match route.method {
            Method::Get if route.path_fields.is_empty() && !route.query.iter().any(|field| field.required) => {
                format!("GET <a href=\"{path}\">{path}</a>")
            }
            Method::Get => format!("GET {path}"),
            Method::Post => format!("POST {path}"),
        };
        write!(page, "<tr><td><code>{path}</code><td>{about}").expect("writing to a String cannot fail");
    }
    page.push_str("</table>");
    page
}

/// A refusal at the door. People who ask with a browser can show the token there and then.
pub(super) fn refusal(head: &Parts, problem: Problem) -> Response {
    let wants_page = head.headers.get(ACCEPT).is_some_and(|accept| accept.as_bytes().starts_with(b"text/html"));
    let mut response = problem.into_response();
    if response.status() == StatusCode::UNAUTHORIZED && wants_page {
        let form = "<h1>LoadDensity</h1><p>The token is needed.</p><form method=\"post\" action=\"/login\">\
            <input type=\"password\" name=\"token\" autofocus> <button>Show it</button></form>";
        let authenticate = response.headers_mut().remove(WWW_AUTHENTICATE);
        response = content(StatusCode::UNAUTHORIZED, "text/html; charset=utf-8", format!("{HEAD}{form}"));
        response.headers_mut().extend(authenticate.map(|value| (WWW_AUTHENTICATE, value)));
    }
    response
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;")
}
