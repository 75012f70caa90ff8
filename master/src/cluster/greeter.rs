//! The master's side of the handshake: who may join, and whether it is who it says.

use super::door::Peer;
use super::membership::other_version;
use super::security::Credentials;
use bytes::Bytes;
use ld_proto::v1;
use ld_shared::handshake::{self, Role, Transcript};
use ld_shared::message::{Hello, PROTOCOL_VERSION, Refusal, RefusalCode, Returning, ToWorker};
use ld_shared::wire;
use std::time::Duration;
use tokio::sync::mpsc;
use tonic::Streaming;

/// How long the first message on a stream may take, and each of a handshake.
pub(super) const FIRST_WITHIN: Duration = Duration::from_secs(5);

/// What an heir hears of whose session nothing is known here.
pub(super) const NO_HEIR: &str = "the run that they are of is over here, or that worker has no part in it any more";

/// One handshake.
pub(super) struct Greeter<'a> {
    pub(super) credentials: &'a Credentials,
    pub(super) peer: &'a Peer,
    pub(super) greetings: &'a mpsc::Sender<v1::FromMaster>,
}

impl Greeter<'_> {
    /// Exchanges proofs. Gives the worker's hello, with the session that it proved to be, and the
    /// master's proof; or what was wrong, after telling the worker.
    pub(super) async fn greet(&self, stream: &mut Streaming<v1::FromWorker>) -> Result<(Hello, Bytes), String> {
        let first = next(stream, "hello").await?;
        if self.peer.is_in_the_clear() {
            let text = "this master speaks TLS: start the worker without --tls off";
            return Err(self.refuse(RefusalCode::Transport, text).await);
        }
        let greeting = match wire::hello_from_worker(first) {
            Ok(greeting) => greeting,
            Err(error) => {
                let text = format!("its first message must be a hello as cluster.proto tells: {error}");
                return Err(self.refuse(RefusalCode::Hello, &text).await);
            }
        };
        let mut hello = greeting.hello;
        if let Some(refusal) = other_version(&hello) {
            return Err(self.refuse(refusal.code, &refusal.text).await);
        }
        let Some(worker) = greeting.nonce else {
            return Err(self.refuse(RefusalCode::Hello, "a hello needs a nonce of 32 bytes: see cluster.proto").await);
        };
        let master = handshake::fresh_nonce();
        let token = self.credentials.token.as_ref();
        let challenge = wire::Challenge { nonce: master, token_needed: token.is_some() };
        self.say(wire::challenge_to_worker(challenge)).await;
        let proof = wire::proof_from_worker(next(stream, "proof").await?).map_err(|error| error.to_string())?;
        let certificate = self.credentials.fingerprint;
        let transcript = Transcript { worker, master, certificate, version: PROTOCOL_VERSION };
        let mut ours = Bytes::new();
        if let Some(token) = token {
            if !transcript.is_proof(Role::Worker, token.secret(), &proof.token) {
                let text = if proof.token.is_empty() {
                    "this master wants a token: give the worker the same LD_TOKEN or --token-file as the master"
                } else {
                    "the worker has another token than this master: both need the same LD_TOKEN or --token-file"
                };
                return Err(self.refuse(RefusalCode::Token, text).await);
            }
            ours = transcript.prove(Role::Master, token.secret());
        }
        if let Some(session) = greeting.claimed {
            let secret = self.credentials.key.secret(session);
            if transcript.is_proof(Role::Session, &secret, &proof.session) {
                hello.returning = Some(Returning { session, secret, heir_of: greeting.heir_of });
            } else if greeting.heir_of.is_some() {
                return Err(self.refuse(RefusalCode::Hello, NO_HEIR).await);
            } else {
                self.peer.complain(&format!("a worker claims session {session} without proof: it joins as a new one"));
            }
        }
        Ok((hello, ours))
    }

    async fn refuse(&self, code: RefusalCode, text: &str) -> String {
        let refusal = Refusal { code, text: text.into(), retry: false };
        if let Some(message) = wire::control_to_worker(&ToWorker::Refused(refusal)) {
            self.say(message).await;
        }
        text.to_owned()
    }

    /// Whoever does not listen any more sees the end of the connection instead.
    async fn say(&self, message: v1::FromMaster) {
        drop(self.greetings.send(message).await);
    }
}

async fn next(stream: &mut Streaming<v1::FromWorker>, what: &str) -> Result<v1::FromWorker, String> {
    let message = tokio::time::timeout(FIRST_WITHIN, stream.message()).await;
    let message = message.map_err(|_| format!("no {what} within {FIRST_WITHIN:?}"))?;
    let message = message.map_err(|status| format!("no {what}: {}", status.message()))?;
    message.ok_or_else(|| format!("no {what}: the stream ended"))
}
