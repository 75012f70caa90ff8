//! Bytes that nobody meant well: no decoder panics, whatever arrives.

use super::{
    challenge_from_master, control_from_master, control_from_worker, frame_from_wire, hello_from_worker,
    proof_from_worker, results_from_master, results_from_worker, v1,
};
use crate::frame::{Frame, FrameKey};
use crate::id::{RunId, SessionId};
use crate::time::RunTime;
use proptest::prelude::*;
use prost::Message as _;

/// Reads bytes as everything that comes over the port. What they are taken for does not matter.
fn read_as_all(bytes: &[u8]) {
    if let Ok(message) = v1::FromWorker::decode(bytes) {
        drop(hello_from_worker(message.clone()));
        drop(proof_from_worker(message.clone()));
        drop(control_from_worker(message));
    }
    if let Ok(message) = v1::ResultsFromWorker::decode(bytes) {
        drop(results_from_worker(message));
    }
    if let Ok(message) = v1::FromMaster::decode(bytes)
        && challenge_from_master(&message).is_none()
    {
        drop(control_from_master(message));
    }
    if let Ok(message) = v1::ResultsFromMaster::decode(bytes) {
        drop(results_from_master(message));
    }
    if let Ok(message) = v1::Frame::decode(bytes) {
        drop(frame_from_wire(message));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        read_as_all(&bytes);
    }

    /// Near misses get further than noise.
    #[test]
    fn frames_with_wrong_bytes(
        body in super::frame::tests::body(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let key = FrameKey { run: RunId("r".into()), session: SessionId(1), seq: 1 };
        let frame = super::frame_to_wire(&Frame { key, body }, RunTime(0));
        let mut bytes = frame.encode_to_vec();
        for (at, value) in flips {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        read_as_all(&bytes);
        bytes.truncate(cut.index(bytes.len()));
        read_as_all(&bytes);
    }
}
