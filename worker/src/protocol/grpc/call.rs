//! One call over an open channel: the request goes out as a whole, messages are taken as they come,
//! the status comes last.

use super::channel::Channel;
use super::frames::Frames;
use super::status::{self, Trouble, UNKNOWN};
use crate::dial::Stamps;
use crate::probe::Probe;
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, header};
use ld_shared::sample::FailureKind;

/// Most characters of a foreign content type that a reason shows.
const SHOWN: usize = 40;

/// Takes what comes of an answer.
pub(super) trait Receiver {
    /// The request has been handed to the socket.
    fn sent(&mut self) {}
    /// Headers or trailers.
    fn headers(&mut self, _headers: &HeaderMap) {}
    /// So many bytes came: messages with their prefixes; headers as text, however they were compressed.
    fn bytes(&mut self, _bytes: u64) {}
    /// A message.
    fn message(&mut self, message: Bytes) -> Result<(), Trouble>;
}

/// How the server said that a call ended.
#[derive(Debug)]
pub(super) struct Status {
    pub(super) code: u16,
    pub(super) message: String,
}

/// Sends a call and takes its answer; `most`: bytes of the largest message that is taken.
///
/// Cancel safe: a dropped call is cancelled, and its channel goes on.
pub(super) async fn call(
    channel: &Channel,
    head: Request<()>,
    body: Bytes,
    most: usize,
    stamps: &mut Stamps<'_>,
    receiver: &mut impl Receiver,
) -> Result<Status, Trouble> {
    let bytes = text_bytes(head.headers()) + body.len() as u64;
    let response = channel.send(head, body)?;
    stamps.on(|probe| probe.written(bytes));
    receiver.sent();
    let response = response.await;
    stamps.on(Probe::received);
    let (head, mut stream) = response.map_err(|error| channel.trouble(&error))?.into_parts();
    receiver.bytes(text_bytes(&head.headers));
    receiver.headers(&head.headers);
    // an answer that ends with its headers has its status in them
    let early = status_of(&head.headers)?;
    if early.is_none() {
        check_head(head.status, &head.headers)?;
    }
    let mut frames = Frames::new(most);
    while let Some(chunk) = stream.data().await {
        stamps.on(Probe::received);
        let chunk = chunk.map_err(|error| channel.trouble(&error))?;
        receiver.bytes(chunk.len() as u64);
        // fails only for more than came
        stream.flow_control().release_capacity(chunk.len()).ok();
        frames.feed(chunk, &mut |message| receiver.message(message))?;
    }
    let trailers = stream.trailers().await;
    stamps.on(Probe::received);
    let trailers = trailers.map_err(|error| channel.trouble(&error))?;
    let late = match &trailers {
        Some(trailers) => {
            receiver.bytes(text_bytes(trailers));
            receiver.headers(trailers);
            status_of(trailers)?
        }
        None => None,
    };
    let missing = || Trouble::new(UNKNOWN, FailureKind::Protocol, "the answer ends without a status");
    let status = late.or(early).ok_or_else(missing)?;
    if status.code == status::OK && !frames.is_whole() {
        return Err(Trouble::protocol("the answer ends within a message"));
    }
    Ok(status)
}

/// The status that headers or trailers hold.
fn status_of(headers: &HeaderMap) -> Result<Option<Status>, Trouble> {
    let Some(code) = headers.get("grpc-status") else { return Ok(None) };
    let code = code.to_str().ok().and_then(|code| code.trim().parse().ok());
    let malformed = || Trouble::new(UNKNOWN, FailureKind::Protocol, "the answer's status is no number");
    let message = headers.get("grpc-message").map(|message| status::message(message.as_bytes()));
    Ok(Some(Status { code: code.ok_or_else(malformed)?, message: message.unwrap_or_default() }))
}

/// Whether it is an answer of gRPC at all.
fn check_head(status: StatusCode, headers: &HeaderMap) -> Result<(), Trouble> {
    if status != StatusCode::OK {
        return Err(Trouble::http(status.as_u16()));
    }
    let kind = headers.get(header::CONTENT_TYPE).map_or("", |kind| kind.to_str().unwrap_or(""));
    if kind.starts_with("application/grpc") {
        return Ok(());
    }
    let shown: String = kind.split(';').next().unwrap_or("").trim().chars().take(SHOWN).collect();
    let shown = if shown.is_empty() { "it has no content type".to_owned() } else { format!("it is {shown}") };
    Err(Trouble::new(UNKNOWN, FailureKind::Protocol, format!("the answer is no gRPC: {shown}")))
}

fn text_bytes(headers: &HeaderMap) -> u64 {
    headers.iter().map(|(name, value)| (name.as_str().len() + value.len()) as u64).sum()
}
