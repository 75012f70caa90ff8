//! What came of a call, as it comes, and the reply that is made of it.

use super::call::Receiver;
use super::call::Status;
use super::descriptors;
use super::status::{self, Trouble};
use super::task::Method;
use crate::protocol::{CoreContext, Want};
use bytes::Bytes;
use http::HeaderMap;
use ld_shared::boot::clock::mono;
use ld_shared::reply::{Headers, Reply};

/// The answer to one call.
pub(super) struct Answer<'a> {
    core: &'a CoreContext,
    method: &'a Method,
    want: Want,
    headers: Headers,
    /// JSON.
    body: Vec<u8>,
    body_bytes: u64,
    messages: u64,
    received: u64,
    /// When the message before came, or the request had gone.
    mark: u64,
}

impl<'a> Answer<'a> {
    pub(super) fn new(core: &'a CoreContext, method: &'a Method, want: Want) -> Self {
        Self {
            core,
            method,
            want,
            headers: Headers::default(),
            body: Vec::new(),
            body_bytes: 0,
            messages: 0,
            received: 0,
            mark: 0,
        }
    }

    /// Bytes that came.
    pub(super) fn received(&self) -> u64 {
        self.received
    }

    /// The reply, now that the call has ended.
    pub(super) fn reply(mut self, outcome: Result<Status, Trouble>) -> Reply {
        let is_many = self.method.rpc.receives_many();
        let outcome = outcome.and_then(|status| match (status.code, self.messages) {
            (status::OK, 1) => Ok(status),
            (status::OK, _) if !is_many => {
                let reason = if self.messages == 0 { "an answer without a message" } else { "more than one message" };
                Err(Trouble::protocol(reason))
            }
            _ => Ok(status),
        });
        let (code, refusal) = match outcome {
            Ok(status) => (status.code, status::refusal(status.code, &status.message)),
            Err(trouble) => (trouble.status, Some(trouble.failure)),
        };
        if is_many && self.most() > 0 {
            self.body.extend_from_slice(if self.body.is_empty() { b"[]" } else { b"]" });
        }
        self.body.truncate(if refusal.is_none() { self.want.body } else { self.want.failed_body });
        Reply { status: Some(code), headers: self.headers, body: self.body, body_bytes: self.body_bytes, refusal }
    }

    /// Most bytes of a body that anybody wants.
    fn most(&self) -> usize {
        self.want.body.max(self.want.failed_body)
    }
}

impl Receiver for Answer<'_> {
    fn sent(&mut self) {
        self.mark = mono().0;
    }

    fn headers(&mut self, headers: &HeaderMap) {
        if self.want.headers {
            for (name, value) in headers {
                self.headers.push(name.as_str(), &String::from_utf8_lossy(value.as_bytes()));
            }
        }
    }

    fn bytes(&mut self, bytes: u64) {
        self.received += bytes;
    }

    fn message(&mut self, message: Bytes) -> Result<(), Trouble> {
        self.messages += 1;
        self.body_bytes += message.len() as u64;
        let bytes = message.len() as u64;
        let decoded = descriptors::decode(&self.method.output, message);
        let is_many = self.method.rpc.receives_many();
        if is_many {
            let now = mono().0;
            let gap = now - std::mem::replace(&mut self.mark, now);
            self.core.messages.record(self.method.series, gap, bytes, decoded.as_ref().err());
        }
        let decoded = decoded.map_err(|failure| Trouble { failure, ..Trouble::protocol("") })?;
        if self.body.len() < self.most() {
            if is_many {
                self.body.push(if self.body.is_empty() { b'[' } else { b',' });
            }
            descriptors::to_json(&decoded, &mut self.body);
        }
        Ok(())
    }
}
