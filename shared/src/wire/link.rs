//! Messages of the two streams.

use super::frame::{count, odometers_from_wire, odometers_to_wire, plausible_odometers, within};
use super::{WireError, batch_from_wire, batch_to_wire, frame_from_wire, frame_to_wire, length, v1};
use crate::id::{Digest, Epoch, RunId, SessionId};
use crate::lanes::LaneSet;
use crate::load::{Intervention, Program, What};
use crate::message::{
    BEAT_EVERY, Beat, BeatReply, ClockReport, Refusal, RefusalCode, RunBeat, SLOWEST_BEAT, ToMaster, ToWorker,
};
use crate::plan::Pool;
use crate::shard::Shard;
use crate::throttle::{PARTS, ThrottleShare, ThrottleUse};
use crate::time::{Mono, RunTime, SECOND};
use bytes::Bytes;
use prost::Message as _;
use std::time::Duration;
use v1::{from_master, from_worker, results_from_master as results_down, results_from_worker as results_up};

/// What no worker has or says, and what sums of many of them are safe from.
pub(super) const MAX_CORES: u64 = 1 << 16;
const MAX_CLOCK_ERROR: u64 = 60 * SECOND;
const MAX_RUN_TIME: u64 = 1 << 60;
const MAX_WAITING: u64 = 1 << 32;
/// Bytes of what a worker says for people to read; more is left out.
const MAX_SENTENCE: usize = 4_096;

fn sentence(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(MAX_SENTENCE));
    text
}

/// A worker's message as `Control` carries it; `None` if it travels on `Results`, or is the hello,
/// which is part of the handshake ([`super::hello_to_master`]).
pub fn control_to_master(message: &ToMaster) -> Option<v1::FromWorker> {
    use from_worker::Message as M;
    let message = match message {
        ToMaster::NeedBlobs { run, digests } => {
            M::NeedBlobs(v1::NeedBlobs { run: run.to_string(), digests: texts(digests) })
        }
        ToMaster::Ready { run, cores, capacity } => {
            M::Ready(v1::Ready { run: run.to_string(), cores: *cores, capacity: *capacity })
        }
        ToMaster::CannotPrepare { run, text } => {
            M::CannotPrepare(v1::CannotPrepare { run: run.to_string(), text: text.clone() })
        }
        ToMaster::Armed { run, attempt } => M::Armed(v1::Armed { run: run.to_string(), attempt: *attempt }),
        ToMaster::Beat(beat) => M::Heartbeat(v1::Heartbeat {
            number: beat.number,
            sent_at_ns: beat.sent_at.0,
            clock_offset_ns: beat.clock.map(|clock| clock.offset),
            clock_error_ns: beat.clock.map_or(0, |clock| clock.error),
            run: beat.run.as_ref().map(run_beat_to),
        }),
        ToMaster::WantTickets { run, pool, want } => {
            M::TicketRequest(v1::TicketRequest { run: run.to_string(), pool: Some(pool_to(*pool)), want: *want })
        }
        ToMaster::Goodbye { text } => M::Goodbye(v1::Goodbye { text: text.clone() }),
        ToMaster::PoolEmpty { run, pool } => {
            M::PoolEmpty(v1::PoolEmpty { run: run.to_string(), pool: Some(pool_to(*pool)) })
        }
        ToMaster::ThrottlesSet { run, number } => {
            M::ThrottlesSet(v1::ThrottlesSet { run: run.to_string(), number: *number })
        }
        ToMaster::Assigned { run, epoch } => M::Assigned(v1::Assigned { run: run.to_string(), epoch: epoch.0 }),
        ToMaster::Hello(_) | ToMaster::Frame { .. } | ToMaster::Records(_) => return None,
    };
    Some(v1::FromWorker { message: Some(message) })
}

/// A worker's message as `Results` carries it; `None` if it travels on `Control`.
pub fn results_to_master(message: &ToMaster) -> Option<v1::ResultsFromWorker> {
    let message = match message {
        ToMaster::Frame { frame, sealed_at } => results_up::Message::Frame(frame_to_wire(frame, *sealed_at)),
        ToMaster::Records(batch) => results_up::Message::RecordBatch(batch_to_wire(batch)),
        _ => return None,
    };
    Some(v1::ResultsFromWorker { message: Some(message) })
}

/// The first message on `Results`.
pub fn attach_to_master(session: SessionId, secret: Bytes) -> v1::ResultsFromWorker {
    let attach = results_up::Message::Attach(v1::Attach { session: session.0, secret });
    v1::ResultsFromWorker { message: Some(attach) }
}

/// A worker's message on `Control`.
pub fn control_from_worker(message: v1::FromWorker) -> Result<ToMaster, WireError> {
    use from_worker::Message as M;
    Ok(match message.message.ok_or(WireError::Missing("content"))? {
        M::Hello(_) => return Err(WireError::Twice("hello")),
        M::Proof(_) => return Err(WireError::Twice("proof")),
        M::NeedBlobs(need) => ToMaster::NeedBlobs { run: run(need.run), digests: digests(need.digests)? },
        M::Ready(ready) => {
            within("cores", ready.cores.into(), MAX_CORES)?;
            count("capacity", ready.capacity)?;
            ToMaster::Ready { run: run(ready.run), cores: ready.cores, capacity: ready.capacity }
        }
        M::CannotPrepare(cannot) => ToMaster::CannotPrepare { run: run(cannot.run), text: sentence(cannot.text) },
        M::Armed(armed) => ToMaster::Armed { run: run(armed.run), attempt: armed.attempt },
        M::Heartbeat(beat) => {
            let error = beat.clock_error_ns;
            within("clock error", error, MAX_CLOCK_ERROR)?;
            ToMaster::Beat(Beat {
                number: beat.number,
                sent_at: Mono(beat.sent_at_ns),
                clock: beat.clock_offset_ns.map(|offset| ClockReport { offset, error }),
                run: beat.run.map(run_beat).transpose()?,
            })
        }
        M::TicketRequest(request) => {
            ToMaster::WantTickets { run: run(request.run), pool: pool_from(request.pool)?, want: request.want }
        }
        M::Goodbye(goodbye) => ToMaster::Goodbye { text: sentence(goodbye.text) },
        M::PoolEmpty(empty) => ToMaster::PoolEmpty { run: run(empty.run), pool: pool_from(empty.pool)? },
        M::Assigned(assigned) => ToMaster::Assigned { run: run(assigned.run), epoch: Epoch(assigned.epoch) },
        M::ThrottlesSet(set) => ToMaster::ThrottlesSet { run: run(set.run), number: set.number },
    })
}

/// A worker's message on `Results`: the proof of a session, or measurements.
pub fn results_from_worker(message: v1::ResultsFromWorker) -> Result<Result<(SessionId, Bytes), ToMaster>, WireError> {
    match message.message.ok_or(WireError::Missing("content"))? {
        results_up::Message::Attach(attach) => Ok(Ok((SessionId(attach.session), attach.secret))),
        results_up::Message::Frame(frame) => {
            let (frame, sealed_at) = frame_from_wire(frame)?;
            Ok(Err(ToMaster::Frame { frame: Box::new(frame), sealed_at }))
        }
        results_up::Message::RecordBatch(batch) => Ok(Err(ToMaster::Records(Box::new(batch_from_wire(batch)?)))),
    }
}

/// The master's message as `Control` carries it; `None` if it travels on `Results`.
pub fn control_to_worker(message: &ToWorker) -> Option<v1::FromMaster> {
    use from_master::Message as M;
    let name = |run: &RunId| v1::RunName { run: run.to_string() };
    let message = match message {
        ToWorker::Welcome { session, secret, name } => {
            // the service adds its proof
            let proof = Bytes::new();
            M::Welcome(v1::Welcome { session: session.0, secret: secret.clone(), name: name.clone(), proof })
        }
        ToWorker::Refused(refusal) => M::Refused(v1::Refused {
            code: code_to(refusal.code) as i32,
            text: refusal.text.clone(),
            retry: refusal.retry,
        }),
        ToWorker::Prepare { run, plan, blobs } => {
            M::Prepare(v1::Prepare { run: run.to_string(), plan: plan.to_string(), blobs: texts(blobs) })
        }
        ToWorker::Blob { digest, total, offset, data } => M::BlobChunk(v1::BlobChunk {
            digest: digest.to_string(),
            total: *total,
            offset: *offset,
            data: data.clone(),
        }),
        ToWorker::Arm { run, attempt, t0, shard } => {
            M::Arm(v1::Arm { run: run.to_string(), attempt: *attempt, t0_ns: t0.0, shard: Some(shard_to(shard)) })
        }
        ToWorker::Assign { run, shard, earlier } => M::Assign(v1::Assign {
            run: run.to_string(),
            shard: Some(shard_to(shard)),
            earlier: earlier.iter().map(shard_to).collect(),
        }),
        ToWorker::Program { run, program } => {
            M::Program(v1::Program { run: run.to_string(), changes: program.changes().iter().map(change_to).collect() })
        }
        ToWorker::Stop { run } => M::Stop(name(run)),
        ToWorker::Abort { run } => M::Abort(name(run)),
        ToWorker::RunClosed { run, frames } => M::RunClosed(v1::RunClosed { run: run.to_string(), frames: *frames }),
        ToWorker::BeatReply(reply) => M::HeartbeatReply(v1::HeartbeatReply {
            number: reply.number,
            sent_at_ns: reply.sent_at.0,
            received_at_ns: reply.received_at.0,
            replied_at_ns: reply.replied_at.0,
            every_ms: reply.every.as_millis() as u32,
        }),
        ToWorker::Tickets { run, pool, tickets, exhausted } => M::TicketGrant(v1::TicketGrant {
            run: run.to_string(),
            pool: Some(pool_to(*pool)),
            from: tickets.start,
            to: tickets.end,
            exhausted: *exhausted,
        }),
        ToWorker::Goodbye { text } => M::Goodbye(v1::Goodbye { text: text.clone() }),
        ToWorker::Throttles { run, number, parts } => {
            M::Throttles(v1::Throttles { run: run.to_string(), number: *number, parts: parts.clone() })
        }
        ToWorker::FrameAck { .. } | ToWorker::RecordAck { .. } => return None,
    };
    Some(v1::FromMaster { message: Some(message) })
}

/// The master's message as `Results` carries it; `None` if it travels on `Control`.
pub fn results_to_worker(message: &ToWorker) -> Option<v1::ResultsFromMaster> {
    let ack = match message {
        ToWorker::FrameAck { run, seq, record_limits } => results_down::Message::FrameAck(v1::FrameAck {
            run: run.to_string(),
            seq: *seq,
            success_record_limit: record_limits[0],
            failure_record_limit: record_limits[1],
        }),
        ToWorker::RecordAck { run, seq, record_limits } => results_down::Message::RecordAck(v1::RecordAck {
            run: run.to_string(),
            seq: *seq,
            success_record_limit: record_limits[0],
            failure_record_limit: record_limits[1],
        }),
        _ => return None,
    };
    Some(v1::ResultsFromMaster { message: Some(ack) })
}

/// The master's message on `Control`.
pub fn control_from_master(message: v1::FromMaster) -> Result<ToWorker, WireError> {
    use from_master::Message as M;
    Ok(match message.message.ok_or(WireError::Missing("content"))? {
        M::Challenge(_) => return Err(WireError::Twice("challenge")),
        M::Welcome(welcome) => {
            ToWorker::Welcome { session: SessionId(welcome.session), secret: welcome.secret, name: welcome.name }
        }
        M::Refused(refused) => {
            ToWorker::Refused(Refusal { code: code_from(refused.code), text: refused.text, retry: refused.retry })
        }
        M::Prepare(prepare) => {
            ToWorker::Prepare { run: run(prepare.run), plan: digest(prepare.plan)?, blobs: digests(prepare.blobs)? }
        }
        M::BlobChunk(chunk) => {
            ToWorker::Blob { digest: digest(chunk.digest)?, total: chunk.total, offset: chunk.offset, data: chunk.data }
        }
        M::Arm(arm) => ToWorker::Arm {
            run: run(arm.run),
            attempt: arm.attempt,
            t0: Mono(arm.t0_ns),
            shard: Box::new(shard_from(arm.shard.ok_or(WireError::Missing("shard"))?)?),
        },
        M::Assign(assign) => ToWorker::Assign {
            run: run(assign.run),
            shard: Box::new(shard_from(assign.shard.ok_or(WireError::Missing("shard"))?)?),
            earlier: assign.earlier.into_iter().map(shard_from).collect::<Result<_, _>>()?,
        },
        M::Program(program) => ToWorker::Program { run: run(program.run), program: program_from(program.changes)? },
        M::Stop(name) => ToWorker::Stop { run: run(name.run) },
        M::Abort(name) => ToWorker::Abort { run: run(name.run) },
        M::RunClosed(closed) => ToWorker::RunClosed { run: run(closed.run), frames: closed.frames },
        M::HeartbeatReply(reply) => ToWorker::BeatReply(BeatReply {
            number: reply.number,
            sent_at: Mono(reply.sent_at_ns),
            received_at: Mono(reply.received_at_ns),
            replied_at: Mono(reply.replied_at_ns),
            every: Duration::from_millis(reply.every_ms.into()).clamp(BEAT_EVERY, SLOWEST_BEAT),
        }),
        M::TicketGrant(grant) => {
            if grant.from > grant.to {
                return Err(WireError::Range { what: "first ticket", got: grant.from });
            }
            ToWorker::Tickets {
                run: run(grant.run),
                pool: pool_from(grant.pool)?,
                tickets: grant.from..grant.to,
                exhausted: grant.exhausted,
            }
        }
        M::Goodbye(goodbye) => ToWorker::Goodbye { text: goodbye.text },
        M::Throttles(shares) => {
            shares.parts.iter().try_for_each(|parts| within_whole(*parts))?;
            ToWorker::Throttles { run: run(shares.run), number: shares.number, parts: shares.parts }
        }
    })
}

/// The master's message on `Results`.
pub fn results_from_master(message: v1::ResultsFromMaster) -> Result<ToWorker, WireError> {
    Ok(match message.message.ok_or(WireError::Missing("content"))? {
        results_down::Message::FrameAck(ack) => ToWorker::FrameAck {
            run: run(ack.run),
            seq: ack.seq,
            record_limits: [ack.success_record_limit, ack.failure_record_limit],
        },
        results_down::Message::RecordAck(ack) => ToWorker::RecordAck {
            run: run(ack.run),
            seq: ack.seq,
            record_limits: [ack.success_record_limit, ack.failure_record_limit],
        },
    })
}

fn change_to(change: &Intervention) -> v1::Change {
    use v1::change::What as W;
    let what = match change.what {
        What::SetUsers { scenario, users } => W::SetUsers(v1::SetUsers { scenario, users }),
        What::SetRate { scenario, rate } => W::SetRate(v1::SetRate { scenario, rate }),
        What::Pause => W::Pause(v1::Pause {}),
        What::Resume => W::Resume(v1::Resume {}),
    };
    v1::Change { at_ns: change.at.0, what: Some(what) }
}

fn program_from(changes: Vec<v1::Change>) -> Result<Program, WireError> {
    use v1::change::What as W;
    length("changes", changes.len(), changes.len() <= 10_000, "at most 10000")?;
    let mut program = Program::default();
    for change in changes {
        let what = match change.what.ok_or(WireError::Missing("what a change changes"))? {
            W::SetUsers(set) => What::SetUsers { scenario: set.scenario, users: set.users },
            W::SetRate(set) => What::SetRate { scenario: set.scenario, rate: set.rate },
            W::Pause(_) => What::Pause,
            W::Resume(_) => What::Resume,
        };
        program.push(RunTime(change.at_ns), what);
    }
    Ok(program)
}

fn run(run: String) -> RunId {
    RunId(run.into())
}

fn texts(digests: &[Digest]) -> Vec<String> {
    digests.iter().map(ToString::to_string).collect()
}

fn digest(text: String) -> Result<Digest, WireError> {
    length("digest", text.len(), text.len() == 64, "64 hexadecimal digits")?;
    Ok(Digest(text.into()))
}

fn digests(texts: Vec<String>) -> Result<Vec<Digest>, WireError> {
    length("digests", texts.len(), texts.len() <= 10_000, "at most 10000")?;
    texts.into_iter().map(digest).collect()
}

/// The bytes of where the load stands.
pub fn run_beat_to_bytes(beat: &RunBeat) -> Vec<u8> {
    run_beat_to(beat).encode_to_vec()
}

/// What [`run_beat_to_bytes`] made bytes of.
pub fn run_beat_from_bytes(bytes: &[u8]) -> Result<RunBeat, WireError> {
    run_beat(v1::RunBeat::decode(bytes).map_err(|_| WireError::Malformed("report"))?)
}

fn run_beat_to(beat: &RunBeat) -> v1::RunBeat {
    let throttle = |used: &ThrottleUse| v1::ThrottleUse { passed: used.passed, waiting: used.waiting };
    v1::RunBeat {
        run: beat.run.to_string(),
        at_ns: beat.at.0,
        odometers: Some(odometers_to_wire(&beat.odometers)),
        users: beat.users,
        cpu_permille: beat.cpu_permille,
        lag_us: beat.lag_us,
        throttles: beat.throttles.iter().map(throttle).collect(),
    }
}

fn run_beat(beat: v1::RunBeat) -> Result<RunBeat, WireError> {
    let odometers = beat.odometers.ok_or(WireError::Missing("odometers"))?;
    plausible_odometers(&odometers)?;
    within("run time", beat.at_ns, MAX_RUN_TIME)?;
    count("users", beat.users)?;
    for used in &beat.throttles {
        count("requests let through", used.passed)?;
        within("users that wait", used.waiting, MAX_WAITING)?;
    }
    Ok(RunBeat {
        run: run(beat.run),
        at: RunTime(beat.at_ns),
        odometers: odometers_from_wire(&odometers)?,
        users: beat.users,
        cpu_permille: beat.cpu_permille,
        lag_us: beat.lag_us,
        throttles: beat
            .throttles
            .iter()
            .map(|used| ThrottleUse { passed: used.passed, waiting: used.waiting })
            .collect(),
    })
}

fn pool_to(pool: Pool) -> v1::Pool {
    match pool {
        Pool::Iterations => v1::Pool { source: None },
        Pool::Source(index) => v1::Pool { source: Some(index) },
    }
}

fn pool_from(pool: Option<v1::Pool>) -> Result<Pool, WireError> {
    Ok(pool.ok_or(WireError::Missing("pool"))?.source.map_or(Pool::Iterations, Pool::Source))
}

fn shard_to(shard: &Shard) -> v1::Shard {
    v1::Shard {
        plan: shard.plan.to_string(),
        lanes: shard.lanes.to_bitmap().into(),
        epoch: shard.epoch.0,
        from_ns: shard.from.0,
        max_in_flight: shard.max_in_flight.clone(),
        throttles: shard
            .throttles
            .iter()
            .map(|share| v1::ThrottleShare { parts: share.parts, burst: share.burst, first_ns: share.first })
            .collect(),
    }
}

fn within_whole(parts: u32) -> Result<(), WireError> {
    if parts > PARTS { Err(WireError::Range { what: "parts of a limit", got: parts.into() }) } else { Ok(()) }
}

fn shard_from(shard: v1::Shard) -> Result<Shard, WireError> {
    let lanes = LaneSet::from_bitmap(&shard.lanes);
    Ok(Shard {
        plan: digest(shard.plan)?,
        lanes: lanes.ok_or(WireError::Length { what: "lanes", got: shard.lanes.len(), expected: "2048" })?,
        epoch: Epoch(shard.epoch),
        from: RunTime(shard.from_ns),
        max_in_flight: shard.max_in_flight,
        throttles: shard
            .throttles
            .iter()
            .map(|share| {
                within_whole(share.parts)?;
                Ok(ThrottleShare { parts: share.parts, burst: share.burst, first: share.first_ns })
            })
            .collect::<Result<_, WireError>>()?,
    })
}

fn code_to(code: RefusalCode) -> v1::RefusalCode {
    match code {
        RefusalCode::Version => v1::RefusalCode::Version,
        RefusalCode::Hello => v1::RefusalCode::Hello,
        RefusalCode::Full => v1::RefusalCode::Full,
        RefusalCode::Closing => v1::RefusalCode::Closing,
        RefusalCode::Token => v1::RefusalCode::Token,
        RefusalCode::Transport => v1::RefusalCode::Transport,
    }
}

fn code_from(code: i32) -> RefusalCode {
    match v1::RefusalCode::try_from(code) {
        Ok(v1::RefusalCode::Version) => RefusalCode::Version,
        Ok(v1::RefusalCode::Full) => RefusalCode::Full,
        Ok(v1::RefusalCode::Closing) => RefusalCode::Closing,
        Ok(v1::RefusalCode::Token) => RefusalCode::Token,
        Ok(v1::RefusalCode::Transport) => RefusalCode::Transport,
        // a newer master's code: the text says what it means
        Ok(v1::RefusalCode::Hello | v1::RefusalCode::Unspecified) | Err(_) => RefusalCode::Hello,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Odometers;
    use crate::lanes::deal;

    #[test]
    fn every_message_of_a_worker_round_trips() {
        let run = RunId("run".into());
        let beat = RunBeat {
            run: run.clone(),
            at: RunTime(5),
            odometers: Odometers::default(),
            users: 1,
            cpu_permille: 2,
            lag_us: 3,
            throttles: vec![ThrottleUse { passed: 4, waiting: 5 }],
        };
        let messages = [
            ToMaster::NeedBlobs { run: run.clone(), digests: vec![Digest::of(b"x")] },
            ToMaster::Ready { run: run.clone(), cores: 2, capacity: 3 },
            ToMaster::CannotPrepare { run: run.clone(), text: "why".into() },
            ToMaster::Armed { run: run.clone(), attempt: 2 },
            ToMaster::Beat(Beat { number: 1, sent_at: Mono(7), clock: None, run: None }),
            ToMaster::Beat(Beat {
                number: 1,
                sent_at: Mono(7),
                clock: Some(ClockReport { offset: -4, error: 5 }),
                run: Some(beat),
            }),
            ToMaster::WantTickets { run: run.clone(), pool: Pool::Iterations, want: 3 },
            ToMaster::WantTickets { run: run.clone(), pool: Pool::Source(0), want: 3 },
            ToMaster::PoolEmpty { run: run.clone(), pool: Pool::Source(2) },
            ToMaster::ThrottlesSet { run: run.clone(), number: 6 },
            ToMaster::Assigned { run: run.clone(), epoch: Epoch(8) },
            ToMaster::Goodbye { text: "bye".into() },
        ];
        for message in messages {
            assert_eq!(control_from_worker(control_to_master(&message).unwrap()), Ok(message.clone()));
            assert_eq!(results_to_master(&message), None);
        }
    }

    #[test]
    fn beats_that_no_worker_has_are_refused() {
        type Spoil = fn(&mut v1::Heartbeat, &mut v1::RunBeat);
        let cases: [(Spoil, WireError); 5] = [
            (|beat, _| beat.clock_error_ns = 1 << 62, WireError::Range { what: "clock error", got: 1 << 62 }),
            (|_, run| run.at_ns = u64::MAX, WireError::Range { what: "run time", got: u64::MAX }),
            (|_, run| run.users = u64::MAX, WireError::Range { what: "users", got: u64::MAX }),
            (|_, run| run.throttles[0].waiting = 1 << 60, WireError::Range { what: "users that wait", got: 1 << 60 }),
            (
                |_, run| run.odometers.as_mut().unwrap().phases[0].requests_started = u64::MAX,
                WireError::Range { what: "an odometer", got: u64::MAX },
            ),
        ];
        for (spoil, expected) in cases {
            let odometers = Some(odometers_to_wire(&Odometers::default()));
            let mut run =
                v1::RunBeat { odometers, throttles: vec![v1::ThrottleUse::default()], ..v1::RunBeat::default() };
            let mut beat = v1::Heartbeat { clock_offset_ns: Some(0), ..v1::Heartbeat::default() };
            spoil(&mut beat, &mut run);
            beat.run = Some(run);
            let message = v1::FromWorker { message: Some(from_worker::Message::Heartbeat(beat)) };
            assert_eq!(control_from_worker(message), Err(expected));
        }
    }

    #[test]
    fn every_message_of_the_master_round_trips() {
        let run = RunId("run".into());
        let digest = Digest::of(b"x");
        let shard = Shard {
            plan: digest.clone(),
            lanes: deal(&[1, 2])[1].clone(),
            epoch: Epoch(3),
            from: RunTime(4),
            max_in_flight: vec![5, 6],
            throttles: vec![ThrottleShare { parts: 7, burst: 8, first: 9 }],
        };
        let mut program = Program::default();
        program.push(RunTime(1), What::SetUsers { scenario: 1, users: 7 });
        program.push(RunTime(2), What::SetRate { scenario: 0, rate: 2.5 });
        program.push(RunTime(3), What::Pause);
        program.push(RunTime(4), What::Resume);
        let refused = |code| ToWorker::Refused(Refusal { code, text: "t".into(), retry: true });
        let (sent_at, received_at, replied_at) = (Mono(2), Mono(3), Mono(4));
        let reply = BeatReply { number: 1, sent_at, received_at, replied_at, every: Duration::from_millis(300) };
        let messages = [
            ToWorker::Welcome { session: SessionId(1), secret: Bytes::from_static(b"s"), name: "w".into() },
            refused(RefusalCode::Version),
            refused(RefusalCode::Hello),
            refused(RefusalCode::Full),
            refused(RefusalCode::Closing),
            refused(RefusalCode::Token),
            refused(RefusalCode::Transport),
            ToWorker::Prepare { run: run.clone(), plan: digest.clone(), blobs: vec![digest.clone()] },
            ToWorker::Blob { digest, total: 9, offset: 4, data: Bytes::from_static(b"abc") },
            ToWorker::Arm { run: run.clone(), attempt: 1, t0: Mono(9), shard: Box::new(shard.clone()) },
            ToWorker::Assign { run: run.clone(), shard: Box::new(shard.clone()), earlier: vec![shard.clone(), shard] },
            ToWorker::Program { run: run.clone(), program },
            ToWorker::Stop { run: run.clone() },
            ToWorker::Abort { run: run.clone() },
            ToWorker::RunClosed { run: run.clone(), frames: 7 },
            ToWorker::BeatReply(reply),
            ToWorker::Tickets { run: run.clone(), pool: Pool::Source(1), tickets: 3..9, exhausted: true },
            ToWorker::Goodbye { text: "t".into() },
            ToWorker::Throttles { run: run.clone(), number: 2, parts: vec![0, PARTS] },
        ];
        for message in messages {
            assert_eq!(control_from_master(control_to_worker(&message).unwrap()), Ok(message.clone()));
        }
        let acks = [
            ToWorker::FrameAck { run: run.clone(), seq: 4, record_limits: [1, 2] },
            ToWorker::RecordAck { run, seq: 5, record_limits: [3, 4] },
        ];
        for ack in acks {
            assert_eq!(results_from_master(results_to_worker(&ack).unwrap()), Ok(ack));
        }
    }
}
