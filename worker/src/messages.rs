//! What arrives by itself, outside of requests and their answers: pushed messages, messages of
//! streams, events, deliveries.
//!
//! Each is a sample of [`Phase::Messages`]: it has a name, a kind and a time, and counts in no total
//! of requests. What the time means depends on the kind: the gap since the one before, or the way
//! from a publisher to a subscriber.

use crate::recorder::{Recorder, Sample};
use crate::series::{OTHER_ID, SeriesTable};
use crate::user::{masked, masked_text};
use ld_shared::boot::clock::mono;
use ld_shared::sample::{Failure, Phase};
use ld_shared::scope::Bindings;
use std::rc::Rc;
use std::sync::Arc;

/// Records messages of one core; the default records nothing.
#[derive(Clone, Default)]
pub struct Messages(Option<Rc<Ends>>);

struct Ends {
    recorder: Rc<Recorder>,
    table: Arc<SeriesTable>,
    bindings: Rc<Bindings>,
}

/// A series of messages: cheap to copy, made once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageSeries(u16);

impl Messages {
    pub(crate) fn new(recorder: Rc<Recorder>, table: Arc<SeriesTable>, bindings: Rc<Bindings>) -> Self {
        Self(Some(Rc::new(Ends { recorder, table, bindings })))
    }

    /// The series of messages of one `name` and `kind` (`WS message`, `SSE gap`) in a scenario.
    /// Names must stay few: of placeholders they hold only registered variables and `env`.
    pub fn series(&self, name: &str, kind: &str, scenario: &Arc<str>) -> MessageSeries {
        let Some(ends) = &self.0 else { return MessageSeries(OTHER_ID) };
        let name = masked_text(name, ends.bindings.secrets()).unwrap_or_else(|| name.into());
        MessageSeries(ends.table.id(&name, &kind.into(), scenario))
    }

    /// Records a message that ends now and took `time` ns; `failure`: what is wrong with it. Messages
    /// of the warm-up are left out.
    pub fn record(&self, series: MessageSeries, time: u64, bytes: u64, failure: Option<&Failure>) {
        let Some(Ends { recorder, bindings, .. }) = self.0.as_deref() else { return };
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
            failure.map(|failure| masked(failure.clone(), bindings.secrets())).as_ref(),
        );
    }
}
