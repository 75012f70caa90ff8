//! Messages of the handshake: they come before anything else, and each only once.

use super::frame::within;
use super::link::MAX_CORES;
use super::{WireError, length, v1};
use crate::handshake::{NONCE_BYTES, Nonce};
use crate::id::{RunId, SessionId};
use crate::message::Hello;
use bytes::Bytes;
use v1::{from_master, from_worker};

/// What a worker says first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Greeting {
    /// What it says of itself; `returning` is always `None`: that is only claimed so far.
    pub hello: Hello,
    /// The session that it claims to be.
    pub claimed: Option<SessionId>,
    /// It claims to be that session's heir only, in this run.
    pub heir_of: Option<RunId>,
    /// Its nonce; `None`: there is no valid one, as of a worker of protocol version 1.
    pub nonce: Option<Nonce>,
}

/// The master's answer to a hello.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Challenge {
    /// Its nonce.
    pub nonce: Nonce,
    /// It lets nobody in who does not know its token.
    pub token_needed: bool,
}

/// What a worker proves. Empty: nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proof {
    /// That it knows the token.
    pub token: Bytes,
    /// That it is the session that it claims to be.
    pub session: Bytes,
}

/// The wire form of a hello.
pub fn hello_to_master(hello: &Hello, nonce: &Nonce) -> v1::FromWorker {
    from_worker(from_worker::Message::Hello(v1::Hello {
        protocol_version: hello.protocol,
        build: hello.build.clone(),
        name: hello.name.clone(),
        cores: hello.cores,
        returning: hello.returning.as_ref().map(|returning| returning.session.0),
        nonce: Bytes::copy_from_slice(nonce),
        heir_of: hello.returning.as_ref().and_then(|returning| Some(returning.heir_of.as_ref()?.to_string())),
    }))
}

/// A worker's first message.
pub fn hello_from_worker(message: v1::FromWorker) -> Result<Greeting, WireError> {
    let Some(from_worker::Message::Hello(hello)) = message.message else { return Err(WireError::Missing("hello")) };
    let nonce = nonce(&hello.nonce).ok();
    length("build", hello.build.len(), hello.build.len() <= 100, "at most 100")?;
    length("name", hello.name.len(), hello.name.len() <= 1_000, "at most 1000")?;
    let run = hello.heir_of.as_ref().map_or(0, String::len);
    length("run", run, run <= 1_000, "at most 1000")?;
    within("cores", hello.cores.into(), MAX_CORES)?;
    Ok(Greeting {
        claimed: hello.returning.map(SessionId),
        heir_of: hello.heir_of.map(|run| RunId(run.into())),
        nonce,
        hello: Hello {
            protocol: hello.protocol_version,
            // it is shown to people before anybody is known to be one of ours
            build: hello.build.chars().filter(|c| !c.is_control()).collect(),
            name: hello.name,
            cores: hello.cores,
            returning: None,
        },
    })
}

/// The wire form of a challenge.
pub fn challenge_to_worker(challenge: Challenge) -> v1::FromMaster {
    let nonce = Bytes::copy_from_slice(&challenge.nonce);
    let challenge = v1::Challenge { nonce, token_needed: challenge.token_needed };
    v1::FromMaster { message: Some(from_master::Message::Challenge(challenge)) }
}

/// The challenge that a message is; `None`: it is another one.
pub fn challenge_from_master(message: &v1::FromMaster) -> Option<Result<Challenge, WireError>> {
    let Some(from_master::Message::Challenge(challenge)) = &message.message else { return None };
    let token_needed = challenge.token_needed;
    Some(nonce(&challenge.nonce).map(|nonce| Challenge { nonce, token_needed }))
}

/// The wire form of a proof.
pub fn proof_to_master(proof: Proof) -> v1::FromWorker {
    from_worker(from_worker::Message::Proof(v1::Proof { token: proof.token, session: proof.session }))
}

/// A worker's second message.
pub fn proof_from_worker(message: v1::FromWorker) -> Result<Proof, WireError> {
    let Some(from_worker::Message::Proof(proof)) = message.message else { return Err(WireError::Missing("proof")) };
    Ok(Proof { token: proof.token, session: proof.session })
}

/// A welcome with the master's proof.
pub fn with_proof(mut message: v1::FromMaster, proof: &Bytes) -> v1::FromMaster {
    if let Some(from_master::Message::Welcome(welcome)) = &mut message.message {
        welcome.proof = proof.clone();
    }
    message
}

/// The master's proof, if a message is its welcome.
pub fn proof_from_master(message: &v1::FromMaster) -> Option<&Bytes> {
    match &message.message {
        Some(from_master::Message::Welcome(welcome)) => Some(&welcome.proof),
        _ => None,
    }
}

fn from_worker(message: from_worker::Message) -> v1::FromWorker {
    v1::FromWorker { message: Some(message) }
}

fn nonce(bytes: &[u8]) -> Result<Nonce, WireError> {
    bytes.try_into().map_err(|_| WireError::Length { what: "nonce", got: bytes.len(), expected: "32" })
}

const _: () = assert!(NONCE_BYTES == 32, "the texts say 32");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Returning, ToWorker};
    use crate::wire;

    fn hello(returning: Option<Returning>) -> Hello {
        Hello { protocol: 2, build: "b".into(), name: "w".into(), cores: 2, returning }
    }

    #[test]
    fn the_handshake_round_trips_without_the_secret() {
        use prost::Message as _;
        let returning = Returning {
            session: SessionId(5),
            secret: Bytes::from_static(b"hunter2"),
            heir_of: Some(RunId("r".into())),
        };
        let sent = hello_to_master(&hello(Some(returning)), &[7; 32]);
        assert!(!sent.encode_to_vec().windows(7).any(|bytes| bytes == b"hunter2"));
        let expected = Greeting {
            hello: hello(None),
            claimed: Some(SessionId(5)),
            heir_of: Some(RunId("r".into())),
            nonce: Some([7; 32]),
        };
        assert_eq!(hello_from_worker(sent), Ok(expected));
        let challenge = Challenge { nonce: [8; 32], token_needed: true };
        assert_eq!(challenge_from_master(&challenge_to_worker(challenge)), Some(Ok(challenge)));
        let proof = Proof { token: Bytes::from_static(b"t"), session: Bytes::from_static(b"s") };
        assert_eq!(proof_from_worker(proof_to_master(proof.clone())), Ok(proof));
        let welcome = ToWorker::Welcome { session: SessionId(1), secret: Bytes::new(), name: "w".into() };
        let proven = with_proof(wire::control_to_worker(&welcome).unwrap(), &Bytes::from_static(b"m"));
        assert_eq!(proof_from_master(&proven), Some(&Bytes::from_static(b"m")));
        assert_eq!(wire::control_from_master(proven), Ok(welcome));
    }

    #[test]
    fn what_is_out_of_order_is_refused() {
        let hello = || hello_to_master(&hello(None), &[7; 32]);
        assert_eq!(wire::control_from_worker(hello()), Err(WireError::Twice("hello")));
        assert_eq!(wire::control_from_worker(proof_to_master(Proof::default())), Err(WireError::Twice("proof")));
        assert_eq!(proof_from_worker(hello()), Err(WireError::Missing("proof")));
        assert_eq!(hello_from_worker(proof_to_master(Proof::default())), Err(WireError::Missing("hello")));
        let mut short = hello();
        if let Some(from_worker::Message::Hello(hello)) = &mut short.message {
            hello.nonce.truncate(31);
        }
        assert_eq!(hello_from_worker(short).unwrap().nonce, None);
    }
}
