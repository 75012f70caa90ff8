//! Moves what dead sessions left to their master, each over a connection of its own.

use super::Dial;
use crate::heir::Heir;
use crate::membership::Unreached;
use crate::spool::Estate;
use ld_shared::boot::clock;
use ld_shared::message::{Hello, Refusal, RefusalCode, ToMaster, ToWorker};
use std::time::Duration;

/// Between two attempts.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// How long the master may be silent.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// Why a connection came to nothing.
enum Failed {
    /// Another one may do better.
    Now(String),
    /// None of this process will.
    ForGood(String),
    /// Nobody wants what is left.
    Over(String),
}

/// Delivers all of them, one after another, the newest first; `own`: what this process says of itself.
pub async fn deliver(estates: Vec<Estate>, own: Hello, mut dial: impl Dial) {
    for Estate { path, mut heir } in estates {
        let (frames, path) = (heir.frames(), path.display());
        tracing::info!("delivering what a worker that died left in {path}: its last counters and {frames} frames");
        let mut told = false;
        loop {
            match attempt(&mut heir, &own, &mut dial).await {
                Ok(()) => {
                    tracing::info!("what it left in {path} is delivered");
                    break;
                }
                Err(Failed::Over(why)) => {
                    tracing::warn!(
                        "{} frames in {path} are of no use: {why}; the folder may be removed",
                        heir.frames()
                    );
                    break;
                }
                Err(Failed::ForGood(why)) => {
                    tracing::warn!("{} frames in {path} cannot be delivered: {why}", heir.frames());
                    break;
                }
                Err(Failed::Now(why)) => {
                    if !std::mem::replace(&mut told, true) {
                        tracing::info!("what is in {path} is not delivered yet: {why}; trying again");
                    }
                    tokio::time::sleep(AGAIN_AFTER).await;
                }
            }
        }
    }
}

async fn attempt(heir: &mut Heir, own: &Hello, dial: &mut impl Dial) -> Result<(), Failed> {
    let failed = |why: Unreached| if why.hopeless { Failed::ForGood(why.seen) } else { Failed::Now(why.seen) };
    let mut channel = dial.dial().await.map_err(failed)?;
    let closed = || Failed::Now("the connection ended".to_owned());
    channel.up.send(ToMaster::Hello(heir.hello(own))).await.map_err(|_| closed())?;
    while !heir.is_done() {
        let next = tokio::time::timeout(ANSWER_WITHIN, channel.down.recv()).await;
        let next = next.map_err(|_| Failed::Now(format!("the master said nothing for {ANSWER_WITHIN:?}")))?;
        let messages = match next.ok_or_else(closed)?.map_err(failed)? {
            ToWorker::Welcome { session, .. } if session != heir.session() => {
                return Err(Failed::ForGood("the master knows nothing of heirs".to_owned()));
            }
            ToWorker::Welcome { .. } => heir.begin(clock::mono()),
            ToWorker::BeatReply(_) => {
                heir.heard();
                Vec::new()
            }
            ToWorker::FrameAck { seq, .. } => heir.acknowledge(seq),
            ToWorker::RunClosed { frames, .. } => {
                heir.heard();
                heir.acknowledge(frames);
                if !heir.is_done() {
                    return Err(Failed::Over("the run was closed before they had arrived".to_owned()));
                }
                Vec::new()
            }
            ToWorker::Refused(Refusal { code: RefusalCode::Hello, text, .. }) => return Err(Failed::Over(text)),
            ToWorker::Refused(Refusal { retry: false, text, .. }) => return Err(Failed::ForGood(text)),
            ToWorker::Refused(Refusal { text, .. }) | ToWorker::Goodbye { text } => return Err(Failed::Now(text)),
            _ => Vec::new(),
        };
        for message in messages {
            channel.up.send(message).await.map_err(|_| closed())?;
        }
    }
    Ok(())
}
