//! Conversions to and from `ld-proto`: the only place that names both sides.
//!
//! What comes from outside is checked completely here: lengths, ranges, enumerations, histograms
//! that must add up, table indices. What only the run knows (sequence, future spans, falling
//! odometers) is checked by the ledger.

mod frame;
mod greeting;
#[cfg(test)]
mod hostile;
mod link;
mod records;

pub use frame::{
    collected_from_wire, collected_to_wire, counts_from_wire, counts_to_wire, frame_from_bytes, frame_from_wire,
    frame_to_bytes, frame_to_wire, odometers_from_wire, odometers_to_wire, row_from_wire, row_to_wire,
};
pub use greeting::{
    Challenge, Greeting, Proof, challenge_from_master, challenge_to_worker, hello_from_worker, hello_to_master,
    proof_from_master, proof_from_worker, proof_to_master, with_proof,
};
pub use ld_proto::v1;
pub use link::{
    attach_to_master, control_from_master, control_from_worker, control_to_master, control_to_worker,
    results_from_master, results_from_worker, results_to_master, results_to_worker, run_beat_from_bytes,
    run_beat_to_bytes,
};
pub use records::{Lines, Texts, batch_from_wire, batch_to_wire, record_from_wire, record_to_wire};

use crate::latency::DecodeError;

/// Most bytes of one message, in either direction.
pub const MAX_MESSAGE: usize = 16 * 1024 * 1024;

/// Why a message is not what the contract promises.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// A part that must be there is not.
    #[error("message without {0}")]
    Missing(&'static str),
    /// A list or text of the wrong length.
    #[error("{what} of {got} entries or bytes, expected {expected}")]
    Length {
        /// Of what.
        what: &'static str,
        /// How long it is.
        got: usize,
        /// How long it may be.
        expected: &'static str,
    },
    /// A number outside its range.
    #[error("{what} {got} is out of range")]
    Range {
        /// Which.
        what: &'static str,
        /// What it is.
        got: u64,
    },
    /// A text that is not of its form.
    #[error("{0} are no JSON object")]
    Malformed(&'static str),
    /// Two entries of the same key.
    #[error("two entries for one {0}")]
    Twice(&'static str),
    /// A histogram that contradicts itself.
    #[error("histogram of {what} is not valid")]
    Histogram {
        /// Of what.
        what: &'static str,
        /// How.
        #[source]
        source: DecodeError,
    },
}

fn length(what: &'static str, got: usize, fits: bool, expected: &'static str) -> Result<(), WireError> {
    if fits { Ok(()) } else { Err(WireError::Length { what, got, expected }) }
}
