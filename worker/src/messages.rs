//! What arrives by itself, outside of requests and their answers: pushed messages, messages of
//! streams, events, deliveries.
//!
//! Each is a sample of [`Phase::Messages`]: it has a name, a kind and a time, and counts in no total
//! of requests. What the time means depends on the kind: the gap since the one before, or the way
//! from a publisher to a subscriber.

use crate::recorder::{Recorder, Sample};
use crate::series::{OTHER_ID, SeriesTable};
use ld_shared::boot::clock::mono;
use ld_shared::sample::{Failure, Phase};
use std::rc::Rc;
use std::sync::Arc;

/// Records messages of one core; the default records nothing.
#[derive(Clone, Default)]
pub struct Messages(Option<(Rc<Recorder>, Arc<SeriesTable>)>);

/// A series of messages: cheap to copy, made once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageSeries(u16);

impl Messages {
    pub(crate) fn new(recorder: Rc<Recorder>, table: Arc<SeriesTable>) -> Self {
        Self(Some((recorder, table)))
    }

    /// The series of messages of one `name` and `kind` (`WS message`, `SSE gap`) in a scenario.
    /// Names must stay few: of placeholders they hold only registered variables and `env`.
    pub fn series(&self, name: &str, kind: &str, scenario: &Arc<str>) -> MessageSeries {
        MessageSeries(self.0.as_ref().map_or(OTHER_ID, |(_, table)| table.id(name, &kind.into(), scenario)))
    }

    /// Records a message that ends now and took `time` ns; `failure`: what is wrong with it. Messages
    /// of the warm-up are left out.
    pub fn record(&self, series: MessageSeries, time: u64, bytes: u64, failure: Option<&Failure>) {
        let Some((recorder, _)) = &self.0 else { return };
        let now = mono().0;
        if recorder.phase_at(now) == Phase::Warmup {
            return;
        }
        let begin = now.saturating_sub(time);
        recorder.message_started();
        recorder.record(
            &Sample {
                series: series.0,
                phase: Phase::Messages,
                intended: begin,
                started: begin,
                ended: now,
                setup: None,
                send: 0,
                first_byte: None,
                receive: 0,
                bytes_sent: 0,
                bytes_received: bytes,
            },
            failure,
        );
    }
}
