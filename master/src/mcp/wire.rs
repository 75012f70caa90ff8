//! Messages on stdin and stdout, one JSON-RPC message a line.
//!
//! What is no message is answered here, with the codes of JSON-RPC 2.0, and ends nothing. At the end of
//! input, tests of this process are drained and what was asked is answered before the last word.

use rmcp::RoleServer;
use rmcp::service::{RxJsonRpcMessage, TxJsonRpcMessage};
use rmcp::transport::Transport;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

/// Longest message.
const LONGEST: usize = 16 * 1024 * 1024;
/// Messages that wait for the handler.
const WAITING: usize = 64;

const PARSE_ERROR: i32 = -32700;
const INVALID_REQUEST: i32 = -32600;
const INVALID_PARAMS: i32 = -32602;

/// Both directions.
pub(super) struct Wire {
    messages: mpsc::Receiver<RxJsonRpcMessage<RoleServer>>,
    out: Out,
    asked: Arc<Asked>,
}

/// Whoever writes a line holds it as a whole.
type Out = Arc<tokio::sync::Mutex<Box<dyn AsyncWrite + Send + Unpin>>>;

/// Requests without an answer.
#[derive(Default)]
struct Asked {
    ids: Mutex<BTreeSet<String>>,
    changed: Notify,
}

impl Wire {
    /// Reads `input` until its end, or until `ending`; cancels `ending` then.
    pub(super) fn new(
        input: impl AsyncRead + Send + Unpin + 'static,
        output: impl AsyncWrite + Send + Unpin + 'static,
        ending: CancellationToken,
    ) -> Self {
        let (sender, messages) = mpsc::channel(WAITING);
        let out: Out = Arc::new(tokio::sync::Mutex::new(Box::new(output)));
        let asked = Arc::<Asked>::default();
        let reader = read(BufReader::new(input), sender, Arc::clone(&out), Arc::clone(&asked));
        ld_shared::boot::task::spawn("messages of the assistant", async move {
            tokio::select! {
                () = reader => ending.cancel(),
                () = ending.cancelled() => {}
            }
        });
        Self { messages, out, asked }
    }
}

impl Transport<RoleServer> for Wire {
    type Error = io::Error;

    fn send(
        &mut self,
        item: TxJsonRpcMessage<RoleServer>,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send + 'static {
        let (out, asked) = (Arc::clone(&self.out), Arc::clone(&self.asked));
        async move {
            let value = serde_json::to_value(&item)?;
            let written = write(&out, &value).await;
            if value.get("method").is_none()
                && let Some(id) = value.get("id")
            {
                asked.answered(id);
            }
            written
        }
    }

    async fn receive(&mut self) -> Option<RxJsonRpcMessage<RoleServer>> {
        if let Some(message) = self.messages.recv().await {
            return Some(message);
        }
        self.asked.none_left().await;
        None
    }

    async fn close(&mut self) -> Result<(), Self::Error> {
        self.out.lock().await.flush().await
    }
}

impl Asked {
    fn ids(&self) -> MutexGuard<'_, BTreeSet<String>> {
        // a set that is added to is whole at every moment
        self.ids.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answered(&self, id: &Value) {
        self.ids().remove(&id.to_string());
        self.changed.notify_one();
    }

    async fn none_left(&self) {
        while !self.ids().is_empty() {
            self.changed.notified().await;
        }
    }
}

async fn write(out: &Out, value: &Value) -> io::Result<()> {
    let line = format!("{value}\n");
    let mut out = out.lock().await;
    out.write_all(line.as_bytes()).await?;
    out.flush().await
}

async fn read(
    mut input: BufReader<impl AsyncRead + Unpin>,
    messages: mpsc::Sender<RxJsonRpcMessage<RoleServer>>,
    out: Out,
    asked: Arc<Asked>,
) {
    let mut begun = false;
    while let Some(line) = line(&mut input).await {
        let judged = match line {
            Ok(line) => judge(&line, &mut begun),
            Err(TooLong) => Judged::Answer(fault(&Value::Null, PARSE_ERROR, "the message is longer than 16 MiB")),
        };
        match judged {
            Judged::Message { message, asks, withdraws } => {
                if let Some(id) = asks {
                    asked.ids().insert(id.to_string());
                }
                if let Some(id) = withdraws {
                    asked.answered(&id);
                }
                if messages.send(*message).await.is_err() {
                    return;
                }
            }
            Judged::Answer(answer) => {
                if write(&out, &answer).await.is_err() {
                    return;
                }
            }
            Judged::Nothing => {}
        }
    }
}

/// A line beyond the bound; it was skipped.
struct TooLong;

/// The next line; `None` at the end.
async fn line(input: &mut BufReader<impl AsyncRead + Unpin>) -> Option<Result<Vec<u8>, TooLong>> {
    let (mut line, mut too_long) = (Vec::new(), false);
    loop {
        let available = input.fill_buf().await.ok()?;
        if available.is_empty() {
            // a last line without an end is one
            return (!line.is_empty()).then_some(Ok(line));
        }
        let end = available.iter().position(|byte| *byte == b'\n');
        let taken = end.map_or(available.len(), |end| end + 1);
        if !too_long {
            line.extend_from_slice(available.get(..taken).unwrap_or_default());
        }
        input.consume(taken);
        if line.len() > LONGEST {
            too_long = true;
            line.clear();
        }
        if end.is_some() {
            return Some(if too_long { Err(TooLong) } else { Ok(line) });
        }
    }
}

/// What is to become of a line.
enum Judged {
    Message { message: Box<RxJsonRpcMessage<RoleServer>>, asks: Option<Value>, withdraws: Option<Value> },
    Answer(Value),
    Nothing,
}

/// `begun`: the client has introduced itself; before that, what asks for nothing is left out.
fn judge(line: &[u8], begun: &mut bool) -> Judged {
    let line = line.trim_ascii();
    if line.is_empty() {
        return Judged::Nothing;
    }
    let mut value: Value = match serde_json::from_slice(line) {
        Ok(value) => value,
        Err(error) => return Judged::Answer(fault(&Value::Null, PARSE_ERROR, &format!("invalid JSON: {error}"))),
    };
    let id = value.get("id").filter(|id| id.is_string() || id.is_i64() || id.is_u64()).cloned();
    let told = id.clone().unwrap_or(Value::Null);
    let Some(object) = value.as_object_mut().filter(|object| object.get("jsonrpc").is_some_and(|v| v == "2.0")) else {
        return Judged::Answer(fault(&Value::Null, INVALID_REQUEST, "expected a JSON-RPC 2.0 object"));
    };
    let method = match object.get("method") {
        Some(Value::String(method)) => Some(method.clone()),
        None if object.contains_key("result") || object.contains_key("error") => None,
        _ => return Judged::Answer(fault(&told, INVALID_REQUEST, "a request has a `method`, a text")),
    };
    if object.contains_key("id") && id.is_none() && method.is_some() {
        return Judged::Answer(fault(&Value::Null, INVALID_REQUEST, "an `id` is a text or a whole number"));
    }
    let asks = id.filter(|_| method.is_some());
    if let Some(why) = asks.as_ref().and(method.as_deref()).and_then(|method| wrong_params(method, object)) {
        return Judged::Answer(fault(&told, INVALID_PARAMS, &why));
    }
    let withdraws = (method.as_deref() == Some("notifications/cancelled"))
        .then(|| object.get("params").and_then(|params| params.get("requestId")).cloned())
        .flatten();
    match method.as_deref() {
        Some("initialize") => {
            introduce(object);
            *begun = true;
        }
        Some(_) if asks.is_some() => {}
        _ if *begun => {}
        _ => return Judged::Nothing,
    }
    match serde_json::from_value(value) {
        Ok(message) => Judged::Message { message: Box::new(message), asks, withdraws },
        Err(error) if asks.is_some() => Judged::Answer(fault(&told, INVALID_PARAMS, &error.to_string())),
        Err(_) => Judged::Nothing,
    }
}

fn wrong_params(method: &str, message: &Map<String, Value>) -> Option<String> {
    let params = message.get("params");
    if params.is_some_and(|params| !params.is_object()) {
        return Some("`params` is an object".into());
    }
    let text = |key: &str| params.and_then(|params| params.get(key)).is_some_and(Value::is_string);
    match method {
        "tools/call" if !text("name") => Some("unknown tool: the call has no `name`".into()),
        "tools/call" => {
            let arguments = params.and_then(|params| params.get("arguments"));
            let wrong = arguments.is_some_and(|arguments| !arguments.is_object() && !arguments.is_null());
            wrong.then(|| "`arguments` is an object".into())
        }
        "resources/read" if !text("uri") => Some("the request has no `uri`".into()),
        _ => None,
    }
}

/// Clients that leave out how they introduce themselves get the newest version, as from the seed.
fn introduce(message: &mut Map<String, Value>) {
    let params = message.entry("params").or_insert_with(|| json!({}));
    if let Some(params) = params.as_object_mut() {
        params.entry("protocolVersion").or_insert_with(|| "2025-11-25".into());
        params.entry("capabilities").or_insert_with(|| json!({}));
        params.entry("clientInfo").or_insert_with(|| json!({"name": "unnamed", "version": "0"}));
    }
}

fn fault(id: &Value, code: i32, message: &str) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": message}})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(line: &str) -> Option<(Value, i64)> {
        match judge(line.as_bytes(), &mut true) {
            Judged::Answer(answer) => Some((answer["id"].clone(), answer["error"]["code"].as_i64().unwrap())),
            Judged::Message { .. } | Judged::Nothing => None,
        }
    }

    #[test]
    fn what_is_no_message_is_answered() {
        let table = [
            ("{bad json", json!(null), PARSE_ERROR),
            ("[]", json!(null), INVALID_REQUEST),
            ("5", json!(null), INVALID_REQUEST),
            (r#"{"jsonrpc":"1.0","id":21,"method":"ping"}"#, json!(null), INVALID_REQUEST),
            (r#"{"jsonrpc":"2.0","id":1}"#, json!(1), INVALID_REQUEST),
            (r#"{"jsonrpc":"2.0","id":1,"method":7}"#, json!(1), INVALID_REQUEST),
            (r#"{"jsonrpc":"2.0","id":1.5,"method":"ping"}"#, json!(null), INVALID_REQUEST),
            (r#"{"jsonrpc":"2.0","id":2,"method":"tools/call","params":[]}"#, json!(2), INVALID_PARAMS),
            (r#"{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{}}"#, json!(2), INVALID_PARAMS),
            (
                r#"{"jsonrpc":"2.0","id":"a","method":"tools/call","params":{"name":"summary","arguments":[1]}}"#,
                json!("a"),
                INVALID_PARAMS,
            ),
        ];
        for (line, id, code) in table {
            assert_eq!(answer(line), Some((id, i64::from(code))), "{line}");
        }
        for line in ["", "  ", r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#, r#"{"jsonrpc":"2.0","method":"x"}"#] {
            assert_eq!(answer(line), None, "{line}");
        }
    }

    #[test]
    fn before_the_introduction_only_requests_count() {
        let mut begun = false;
        let note = br#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
        assert!(matches!(judge(note, &mut begun), Judged::Nothing));
        let hello = br#"{"jsonrpc":"2.0","id":1,"method":"initialize"}"#;
        assert!(matches!(judge(hello, &mut begun), Judged::Message { asks: Some(_), .. }));
        assert!(matches!(judge(note, &mut begun), Judged::Message { asks: None, .. }));
        let cancel = br#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":3}}"#;
        assert!(matches!(judge(cancel, &mut begun), Judged::Message { withdraws: Some(id), .. } if id == 3));
    }
}
