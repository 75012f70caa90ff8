//! Moves what dead sessions left to their master, each over a connection of its own.

use super::{Channel, Dial};
use crate::heir::Heir;
use crate::spool::Estate;
use ld_shared::boot::clock;
use ld_shared::message::{Hello, ToWorker};
use std::time::Duration;

/// Between two attempts.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// How long the master may be silent.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// Why a connection came to nothing.
enum Failed {
    /// Another one may do better.
    Now,
    /// None will.
    ForGood(String),
}

/// Delivers all of them, one after another; `own`: what this process says of itself.
pub async fn deliver(estates: Vec<Estate>, own: Hello, mut dial: impl Dial) {
    for Estate { path, mut heir } in estates {
        let (frames, path) = (heir.frames(), path.display());
        tracing::info!("delivering what a worker that died left in {path}: its last counters and {frames} frames");
        loop {
            match attempt(&mut heir, &own, &mut dial).await {
                Ok(()) => {
                    tracing::info!("what it left in {path} is delivered");
                    break;
                }
                Err(Failed::ForGood(why)) => {
                    let left = heir.frames();
                    tracing::warn!("{left} frames in {path} cannot be delivered: {why}; the folder may be removed");
                    break;
                }
                Err(Failed::Now) => tokio::time::sleep(AGAIN_AFTER).await,
            }
        }
    }
}

async fn attempt(heir: &mut Heir, own: &Hello, dial: &mut impl Dial) -> Result<(), Failed> {
    let connected = dial.dial().await;
    let mut channel = connected.map_err(|why| if why.hopeless { Failed::ForGood(why.seen) } else { Failed::Now })?;
    let hello = ld_shared::message::ToMaster::Hello(heir.hello(own));
    channel.up.send(hello).await.map_err(|_| Failed::Now)?;
    while !heir.is_done() {
        let messages = match next(&mut channel).await? {
            ToWorker::Welcome { .. } => heir.begin(clock::mono()),
            ToWorker::BeatReply(_) => {
                heir.heard();
                Vec::new()
            }
            ToWorker::FrameAck { seq, .. } => heir.acknowledge(seq),
            ToWorker::Refused(refusal) if !refusal.retry => return Err(Failed::ForGood(refusal.text)),
            ToWorker::Refused(_) | ToWorker::Goodbye { .. } => return Err(Failed::Now),
            _ => Vec::new(),
        };
        for message in messages {
            channel.up.send(message).await.map_err(|_| Failed::Now)?;
        }
    }
    Ok(())
}

async fn next(channel: &mut Channel) -> Result<ToWorker, Failed> {
    match tokio::time::timeout(ANSWER_WITHIN, channel.down.recv()).await {
        Ok(Some(Ok(message))) => Ok(message),
        Ok(Some(Err(why))) if why.hopeless => Err(Failed::ForGood(why.seen)),
        Ok(Some(Err(_)) | None) | Err(_) => Err(Failed::Now),
    }
}
