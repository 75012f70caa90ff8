//! What a request asks for: a document, an envelope around one, or the end of the server.

use super::reply::Form;
use crate::remote::{Access, Level};
use ld_shared::handshake::Token;
use serde_json::{Map, Value};

/// Ends a server that has no token.
pub(super) const QUIT: &str = "quit_server";

/// What a request asks for.
#[derive(Debug, PartialEq)]
pub(super) enum Request {
    /// A document is to be run.
    Run {
        /// It, as JSON.
        document: Vec<u8>,
        /// How its outcomes are told.
        form: Form,
    },
    /// Nothing is to be done, which is at once over.
    Nothing(Form),
    /// The server is to end.
    Quit(Form),
    /// It can be no document: why.
    Unreadable(String, Form),
    /// It does not prove that it knows the token: what the seed says.
    Refused(&'static str, Form),
}

/// The seed's words for what is no document.
pub(super) const NO_DOCUMENT: &str = "executor received invalid data: list is empty or wrong type";

/// Reads a request; with a `token` it must be an envelope that holds it.
pub(super) fn read(request: &[u8], token: Option<&Token>) -> Request {
    let text = String::from_utf8_lossy(request);
    let text = text.trim();
    if text == QUIT {
        return token.map_or(Request::Quit(Form::Python), |_| TOKEN_REQUIRED);
    }
    let value: Value = match serde_json::from_str(text) {
        Ok(value) => value,
        Err(error) => return Request::Unreadable(error.to_string(), Form::Python),
    };
    match value {
        Value::Object(envelope) if envelope.contains_key("token") || envelope.contains_key("command") => {
            open(&envelope, token)
        }
        _ if token.is_some() => TOKEN_REQUIRED,
        document => order(&document, Some(text), Form::Python),
    }
}

const TOKEN_REQUIRED: Request = Request::Refused("token required", Form::Python);

fn open(envelope: &Map<String, Value>, token: Option<&Token>) -> Request {
    let form = match envelope.get("reply").map(|reply| reply.as_str().and_then(Form::named).ok_or(reply)) {
        None => Ok(Form::Python),
        Some(form) => form,
    };
    if let Some(token) = token {
        let known = envelope.get("token").and_then(Value::as_str).is_some_and(|told| {
            let access = Access { token: Some(token.clone()), viewer: None };
            access.level(Some(told.as_bytes())) == Level::Full
        });
        if !known {
            return Request::Refused("unauthorised", form.unwrap_or_default());
        }
    }
    let form = match form {
        Ok(form) => form,
        Err(other) => {
            let why = format!("unknown reply form {other}; accepted: \"python\", \"json\"");
            return Request::Unreadable(why, Form::Python);
        }
    };
    if envelope.get("op").is_some_and(|op| op == "quit") {
        return Request::Quit(form);
    }
    order(envelope.get("command").unwrap_or(&Value::Null), None, form)
}

/// `text`: the document as it was written, which errors show places of.
fn order(document: &Value, text: Option<&str>, form: Form) -> Request {
    let actions = match document {
        Value::Null => return Request::Nothing(form),
        Value::Object(map) => map.get("load_density"),
        other => Some(other),
    };
    match actions {
        Some(Value::Array(actions)) if !actions.is_empty() => {
            let document = text.map_or_else(|| document.to_string(), str::to_owned).into_bytes();
            Request::Run { document, form }
        }
        _ => Request::Unreadable(NO_DOCUMENT.to_owned(), form),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(document: &str, form: Form) -> Request {
        Request::Run { document: document.as_bytes().to_vec(), form }
    }

    fn no_document() -> Request {
        Request::Unreadable(NO_DOCUMENT.to_owned(), Form::Python)
    }

    const PYTHON: Form = Form::Python;
    const UNAUTHORISED: Request = Request::Refused("unauthorised", PYTHON);

    #[test]
    fn without_a_token() {
        let table = [
            (r#"[["abs",[-1]]]"#, run(r#"[["abs",[-1]]]"#, PYTHON)),
            ("  [[\"abs\",[-1]]]\n", run(r#"[["abs",[-1]]]"#, PYTHON)),
            (r#"{"load_density":[["abs",[-3]]]}"#, run(r#"{"load_density":[["abs",[-3]]]}"#, PYTHON)),
            (r#"{"command":[["abs",[-2]]]}"#, run(r#"[["abs",[-2]]]"#, PYTHON)),
            (r#"{"token":"zzz","command":[["abs",[-2]]]}"#, run(r#"[["abs",[-2]]]"#, PYTHON)),
            (r#"{"command":[["abs",[-2]]],"reply":"json"}"#, run(r#"[["abs",[-2]]]"#, Form::Json)),
            (r#"{"command":[["abs",[-2]]],"reply":"python"}"#, run(r#"[["abs",[-2]]]"#, PYTHON)),
            (r#"{"command":null}"#, Request::Nothing(PYTHON)),
            (r#"{"token":"x"}"#, Request::Nothing(PYTHON)),
            (r#"{"token":"x","op":"ping"}"#, Request::Nothing(PYTHON)),
            (r#"{"token":"x","op":"quit"}"#, Request::Quit(PYTHON)),
            (r#"{"op":"quit"}"#, no_document()),
            ("null", Request::Nothing(PYTHON)),
            ("quit_server\r\n", Request::Quit(PYTHON)),
            (r#"{"x":1}"#, no_document()),
            (r#"{"load_density":[]}"#, no_document()),
            (r#"{"command":{"load_density":5}}"#, no_document()),
            ("[]", no_document()),
            ("5", no_document()),
            (r#""abc""#, no_document()),
        ];
        for (request, expected) in table {
            assert_eq!(read(request.as_bytes(), None), expected, "{request}");
        }
        for request in ["{nope", "   ", "[[\"abs\",[-1]]]\n[[\"abs\",[-2]]]", "quit_serverx"] {
            assert!(matches!(read(request.as_bytes(), None), Request::Unreadable(why, PYTHON) if !why.is_empty()));
        }
        assert!(
            matches!(read(br#"{"command":[[]],"reply":"xml"}"#, None), Request::Unreadable(why, _) if why.contains("accepted"))
        );
        assert_eq!(read(b"[[\"abs\",[\"\xff\"]]]", None), run("[[\"abs\",[\"\u{fffd}\"]]]", PYTHON));
    }

    #[test]
    fn with_a_token_only_envelopes_that_hold_it() {
        let token = Token::new("s3cret");
        let table = [
            (r#"[["abs",[-1]]]"#, TOKEN_REQUIRED),
            (r#"{"load_density":[["abs",[-1]]]}"#, TOKEN_REQUIRED),
            ("null", TOKEN_REQUIRED),
            ("quit_server", TOKEN_REQUIRED),
            (r#"{"token":"bad","command":[["abs",[-1]]]}"#, UNAUTHORISED),
            (r#"{"token":5,"command":[["abs",[-1]]]}"#, UNAUTHORISED),
            (r#"{"command":[["abs",[-1]]]}"#, UNAUTHORISED),
            (r#"{"token":"bad","op":"quit"}"#, UNAUTHORISED),
            (
                r#"{"token":"bad","command":[["abs",[-1]]],"reply":"json"}"#,
                Request::Refused("unauthorised", Form::Json),
            ),
            (r#"{"token":"bad","command":[["abs",[-1]]],"reply":7}"#, UNAUTHORISED),
            (r#"{"token":"s3cret","command":[["abs",[-1]]]}"#, run(r#"[["abs",[-1]]]"#, PYTHON)),
            (r#"{"token":"s3cret"}"#, Request::Nothing(PYTHON)),
            (r#"{"token":"s3cret","command":[]}"#, no_document()),
            (r#"{"token":"s3cret","op":"quit"}"#, Request::Quit(PYTHON)),
        ];
        for (request, expected) in table {
            assert_eq!(read(request.as_bytes(), token.as_ref()), expected, "{request}");
        }
        // as the seed: what is no JSON is said before a token is asked for
        assert!(matches!(read(b"{nope", token.as_ref()), Request::Unreadable(..)));
    }
}
