//! Stamps of one exchange, taken where the bytes move.

use crate::engine::holding::{May, Tenure};
use crate::recorder::{Recorder, Sample};
use ld_shared::boot::clock::mono;
use ld_shared::sample::{Failure, FailureKind, Phase};
use std::cell::Cell;
use std::rc::Rc;

/// Takes the stamps of one exchange after another of one user.
///
/// A probe that is dropped in mid-exchange (the drain ended, the user was aborted) counts its
/// request as in flight.
pub struct Probe {
    recorder: Option<Rc<Recorder>>,
    /// For how long its user may start requests (closed model).
    tenure: Option<Rc<Tenure>>,
    /// When the exchange times out, ns of this node's clock; read by the user's timer.
    deadline: Rc<Cell<u64>>,
    timeout: u64,
    state: State,
    phase: Phase,
    purpose: Purpose,
    intended: u64,
    started: u64,
    /// The latest stamp: the next part is timed from here.
    mark: u64,
    sent_at: u64,
    first_at: u64,
    ended: u64,
    /// The exchange said itself that it is over; else it was cut off by its time-out.
    is_over: bool,
    setup: Option<[u64; 3]>,
    send: u64,
    is_written: bool,
    bytes_sent: u64,
    bytes_received: u64,
    iteration: Iteration,
    /// When it was due, ns of this node's clock (open model).
    due: u64,
    was_refused: bool,
}

/// What a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// An iteration.
    Load,
    /// What a user does before its first iteration.
    Start,
    /// What a user does after its last one: it may start after the end of starting.
    Stop,
}

/// Whether the iteration is counted. Its count as started waits until its first request proved that
/// this machine can start it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Iteration {
    /// As started or dropped.
    Counted,
    /// Not yet; it is due when it starts (closed model).
    Begun,
    /// As due (open model): it has to end as started or dropped.
    Due,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// No exchange, or one that has not started.
    Idle,
    /// Started.
    Open,
    /// Not started: the test is over, or another worker does it.
    Refused,
    /// Not started: there is no lease.
    NoLease,
    /// Started, but a limit of this machine kept it from sending.
    Unsent,
}

/// What became of an exchange, as far as the generator is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It started and ended: record it.
    Ended,
    /// It never started; the user starts nothing more.
    Refused,
    /// It never started; it may when there is a lease again.
    NoLease,
    /// A limit of this machine; nothing to record.
    Unsent,
    /// It failed before it started (waiting for a shared connection, say): nothing was sent.
    NotStarted,
}

/// The reason of a refused start. Never recorded.
const OVER: &str = "the test is over";

impl Default for Probe {
    fn default() -> Self {
        Self {
            recorder: None,
            tenure: None,
            deadline: Rc::new(Cell::new(u64::MAX)),
            timeout: u64::MAX,
            state: State::Idle,
            phase: Phase::Main,
            purpose: Purpose::Load,
            intended: 0,
            started: 0,
            mark: 0,
            sent_at: 0,
            first_at: 0,
            ended: 0,
            is_over: false,
            setup: None,
            send: 0,
            is_written: false,
            bytes_sent: 0,
            bytes_received: 0,
            iteration: Iteration::Counted,
            due: 0,
            was_refused: false,
        }
    }
}

impl Probe {
    /// A probe of a user of this core, which may start requests while it holds its tenure (open
    /// model: none).
    pub(crate) fn new(recorder: Rc<Recorder>, tenure: Option<Rc<Tenure>>) -> Self {
        let mut probe = Self::default();
        (probe.recorder, probe.tenure) = (Some(recorder), tenure);
        probe
    }

    /// The tenure of its user.
    pub(crate) fn tenure(&self) -> Option<&Rc<Tenure>> {
        self.tenure.as_ref()
    }

    /// The cell that holds the running exchange's deadline (`u64::MAX`: none).
    pub(crate) fn deadline(&self) -> Rc<Cell<u64>> {
        Rc::clone(&self.deadline)
    }

    /// An iteration begins. Its count as started waits until its first request proved possible.
    /// `due`: when it was due, ns of this node's clock, and it has been counted as that (open model);
    /// without that it is due when it starts.
    pub(crate) fn begin_iteration(&mut self, phase: Phase, due: Option<u64>) {
        self.phase = phase;
        self.iteration = if due.is_some() { Iteration::Due } else { Iteration::Begun };
        self.due = due.unwrap_or(0);
        self.was_refused = false;
    }

    /// Whether the iteration ended before it started anything.
    pub(crate) fn was_refused(&self) -> bool {
        self.was_refused
    }

    /// The iteration counts as started (idempotent).
    pub(crate) fn iteration_started(&mut self) {
        let iteration = std::mem::replace(&mut self.iteration, Iteration::Counted);
        if iteration != Iteration::Counted
            && let Some(recorder) = &self.recorder
        {
            recorder.iteration_started(self.phase, iteration == Iteration::Due, mono().0);
        }
    }

    /// The iteration ends before it started anything: the test or the lease was over, or the user's
    /// time. What did start it keeps it started.
    pub(crate) fn iteration_refused(&mut self) {
        let iteration = std::mem::replace(&mut self.iteration, Iteration::Counted);
        self.was_refused |= iteration != Iteration::Counted;
        if iteration == Iteration::Due
            && let Some(recorder) = &self.recorder
        {
            recorder.iteration_refused(self.phase, self.due, mono().0);
        }
    }

    /// Makes ready for an exchange. `intended`: `None` means "when it starts".
    pub(crate) fn arm(&mut self, intended: Option<u64>, timeout: u64, purpose: Purpose) {
        self.state = State::Idle;
        self.intended = intended.unwrap_or(0);
        self.timeout = timeout;
        self.purpose = purpose;
        self.first_at = 0;
        self.ended = 0;
        self.is_over = false;
        self.setup = None;
        self.send = 0;
        self.is_written = false;
        self.bytes_sent = 0;
        self.bytes_received = 0;
    }

    /// The exchange begins: the last thing before its first system call (resolve, connect, write).
    /// The lease is checked on this very clock reading. `Err`: nothing may start; return it as it
    /// is, and nothing is counted.
    pub fn start(&mut self) -> Result<(), Failure> {
        let now = mono().0;
        self.started = now;
        self.mark = now;
        if self.intended == 0 {
            self.intended = now;
        }
        if let Some(recorder) = &self.recorder {
            let may = match self.purpose {
                Purpose::Load | Purpose::Start => recorder.may_start(now, self.tenure.as_deref()),
                Purpose::Stop if recorder.may_finish(now) => May::Start,
                Purpose::Stop => May::Over,
            };
            match may {
                May::Start => {}
                May::NoLease => self.state = State::NoLease,
                May::Over => self.state = State::Refused,
            }
            if may != May::Start {
                return Err(Failure::new(FailureKind::Request, OVER));
            }
            self.phase = match self.purpose {
                Purpose::Load => recorder.phase_at(self.intended),
                Purpose::Start | Purpose::Stop => Phase::Hooks,
            };
            recorder.request_started(self.phase, now);
        }
        self.state = State::Open;
        self.deadline.set(now.saturating_add(self.timeout));
        Ok(())
    }

    /// An exchange that failed before it started starts and ends here.
    pub(crate) fn start_if_idle(&mut self) {
        if self.state == State::Idle {
            // a refusal shows in the state
            self.start().ok();
        }
    }

    /// When the exchange began, ns of this node's clock.
    pub fn started_at(&self) -> u64 {
        self.started
    }

    /// A name was resolved; time since the stamp before is DNS time.
    pub fn resolved(&mut self) {
        self.setup_part(0);
    }

    /// A connection stands; time since the stamp before is connect time.
    pub fn connected(&mut self) {
        self.setup_part(1);
    }

    /// The TLS handshake is done; time since the stamp before is TLS time.
    pub fn secured(&mut self) {
        self.setup_part(2);
    }

    /// The protocol's own handshake over a new connection is done, and the request itself comes now;
    /// time since the stamp before is connect time as well.
    pub fn upgraded(&mut self) {
        let connect = self.setup.map_or(u64::MAX, |parts| parts[1]);
        self.setup_part(1);
        if let Some(parts) = &mut self.setup
            && connect != u64::MAX
        {
            parts[1] += connect;
        }
    }

    fn setup_part(&mut self, part: usize) {
        let now = mono().0;
        self.setup.get_or_insert([u64::MAX; 3])[part] = now - self.mark;
        self.mark = now;
    }

    /// The whole request, so many bytes, was handed to the socket. Called once a hop.
    pub fn written(&mut self, bytes: u64) {
        let now = mono().0;
        self.send += now - self.mark;
        self.mark = now;
        self.sent_at = now;
        if !std::mem::replace(&mut self.is_written, true)
            && let Some(recorder) = &self.recorder
        {
            recorder.request_written(self.phase);
        }
        self.bytes_sent += bytes;
        if self.iteration != Iteration::Counted {
            self.iteration_started();
        }
    }

    /// So many bytes more went to the socket for the request: of transports that write later than
    /// they take the request.
    pub fn sent(&mut self, bytes: u64) {
        self.bytes_sent += bytes;
    }

    /// A read has just returned: with bytes of the answer, at its end, or with an error. The first
    /// such instant is that of the first byte, the last one that of the end.
    pub fn received(&mut self) {
        let now = mono().0;
        if self.first_at == 0 {
            self.first_at = now;
        }
        self.ended = now;
    }

    /// The exchange is over; so many bytes were received for it on the wire. It ended when the last
    /// read returned, or now if there was none.
    pub fn end(&mut self, bytes: u64) {
        self.is_over = true;
        if self.ended == 0 {
            self.ended = mono().0;
        }
        if bytes == 0 {
            self.first_at = 0;
        }
        self.bytes_received += bytes;
    }

    /// A limit of this machine (EMFILE, EADDRNOTAVAIL, ENOBUFS) kept the exchange from sending a
    /// byte: the request counts as dropped, `local_error`, never as the target's failure.
    pub fn local_error(&mut self) {
        if self.state == State::Open {
            self.state = State::Unsent;
        }
    }

    /// Whether [`Self::local_error`] was said of this exchange.
    pub(crate) fn is_unsent(&self) -> bool {
        self.state == State::Unsent
    }

    /// The exchange is over (its future is gone): what became of it.
    pub(crate) fn finish(&mut self) -> Fate {
        self.deadline.set(u64::MAX);
        let state = std::mem::replace(&mut self.state, State::Idle);
        match state {
            State::Idle => Fate::NotStarted,
            State::Refused => {
                self.iteration_refused();
                Fate::Refused
            }
            State::NoLease => {
                if self.iteration == Iteration::Due {
                    self.iteration_refused();
                }
                Fate::NoLease
            }
            State::Unsent => {
                if let Some(recorder) = &self.recorder {
                    recorder.request_unsent(self.phase);
                    let iteration = std::mem::replace(&mut self.iteration, Iteration::Counted);
                    if iteration != Iteration::Counted {
                        recorder.iteration_lost_here(self.phase, iteration == Iteration::Due, self.started);
                    }
                }
                Fate::Unsent
            }
            State::Open => {
                // a time-out ends now, also if a part of the answer had come
                if !self.is_over {
                    self.ended = mono().0;
                }
                self.iteration_started();
                Fate::Ended
            }
        }
    }

    /// The instant of the end, ns of this node's clock.
    pub(crate) fn ended_at(&self) -> u64 {
        self.ended
    }

    /// The sample of a finished exchange.
    pub(crate) fn sample(&self, series: u16) -> Sample {
        let (first_byte, receive) = match self.first_at {
            0 => (None, 0),
            first => (Some(first.saturating_sub(self.sent_at)), self.ended.saturating_sub(first)),
        };
        Sample {
            series,
            phase: self.phase,
            intended: self.intended,
            started: self.started,
            ended: self.ended,
            setup: self.setup,
            send: self.send,
            first_byte,
            receive,
            bytes_sent: self.bytes_sent,
            bytes_received: self.bytes_received,
        }
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        if self.state == State::Open {
            self.iteration_started();
            if let Some(recorder) = &self.recorder {
                recorder.request_cut_off(self.phase);
            }
        }
        self.iteration_refused();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exchange_cut_off_in_mid_answer_ends_when_it_is_cut_off() {
        let mut probe = Probe::default();
        probe.start().unwrap();
        probe.received();
        let part = probe.ended_at();
        while mono().0 <= part {}
        assert_eq!(probe.finish(), Fate::Ended);
        assert!(probe.ended_at() > part);
    }

    #[test]
    fn an_exchange_that_is_over_ended_at_its_last_read() {
        let mut probe = Probe::default();
        probe.start().unwrap();
        probe.received();
        let last = probe.ended_at();
        probe.end(10);
        assert_eq!((probe.finish(), probe.ended_at()), (Fate::Ended, last));
    }
}
