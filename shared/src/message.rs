//! What master and workers say to each other, typed: the same over gRPC and in one process.
//!
//! The order of messages, their deadlines and units are told in `cluster.proto`; [`crate::wire`]
//! converts.

use crate::frame::{Frame, Odometers};
use crate::id::{Digest, Epoch, RunId, SessionId};
use crate::load::Program;
use crate::plan::Pool;
use crate::record::RecordBatch;
use crate::shard::Shard;
use crate::throttle::ThrottleUse;
use crate::time::{Mono, RunTime};
use bytes::Bytes;
use std::ops::Range;
use std::time::Duration;

/// Version of the contract. A worker of another one is refused.
pub const PROTOCOL_VERSION: u32 = 2;
/// Most bytes of a blob in one message.
pub const BLOB_CHUNK: usize = 256 * 1024;
/// Heartbeats are this far apart, unless the master asks for fewer.
pub const BEAT_EVERY: Duration = Duration::from_millis(200);
/// The furthest apart that a master may ask for: a late beat alone makes no worker late.
pub const SLOWEST_BEAT: Duration = Duration::from_millis(500);
/// A worker may start requests until it sent its newest answered beat plus this.
pub const LEASE: Duration = Duration::from_millis(2_500);
/// A worker whose newest answered beat is older than this is shown as late.
pub const LATE_AFTER: Duration = Duration::from_secs(1);
/// A worker whose newest answered beat is older than this is gone.
pub const GONE_AFTER: Duration = Duration::from_secs(3);
/// Frames that may be offered and not yet acknowledged.
pub const FRAME_WINDOW: usize = 4;
/// Batches of records that may be offered and not yet acknowledged.
pub const RECORD_WINDOW: usize = 4;
/// How long preparing a plan may take on a worker.
pub const PREPARE_WITHIN: Duration = Duration::from_mins(1);
/// Messages that a link holds in one direction before its peer counts as stuck.
pub const LINK_QUEUE: usize = 64;

/// What a worker says.
#[expect(
    clippy::large_enum_variant,
    reason = "the large one is the beat, which comes five times a second and must not allocate"
)]
#[derive(Clone, Debug, PartialEq)]
pub enum ToMaster {
    /// Introduces itself.
    Hello(Hello),
    /// The blobs of a plan that it lacks.
    NeedBlobs {
        /// The run.
        run: RunId,
        /// Their digests.
        digests: Vec<Digest>,
    },
    /// It can start at an instant.
    Ready {
        /// The run.
        run: RunId,
        /// Load cores.
        cores: u32,
        /// Open files that load may use.
        capacity: u64,
    },
    /// It cannot run this plan.
    CannotPrepare {
        /// The run.
        run: RunId,
        /// Why.
        text: String,
    },
    /// It will start at the start instant of this attempt.
    Armed {
        /// The run.
        run: RunId,
        /// The attempt.
        attempt: u32,
    },
    /// It lives.
    Beat(Beat),
    /// Its users will soon need tickets.
    WantTickets {
        /// The run.
        run: RunId,
        /// The pool.
        pool: Pool,
        /// How many, at least.
        want: u64,
    },
    /// A user found no ticket left in a pool.
    PoolEmpty {
        /// The run.
        run: RunId,
        /// The pool.
        pool: Pool,
    },
    /// It goes by these shares of the limits.
    ThrottlesSet {
        /// The run.
        run: RunId,
        /// That of [`ToWorker::Throttles`].
        number: u64,
    },
    /// It goes by this assignment.
    Assigned {
        /// The run.
        run: RunId,
        /// That of the assignment.
        epoch: Epoch,
    },
    /// Measurements. Travels on the stream of results.
    Frame {
        /// The frame.
        frame: Box<Frame>,
        /// Run time at which its span was closed.
        sealed_at: RunTime,
    },
    /// Single requests. Travels on the stream of results.
    Records(Box<RecordBatch>),
    /// It leaves on purpose.
    Goodbye {
        /// Why.
        text: String,
    },
}

/// A worker introduces itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Its [`PROTOCOL_VERSION`].
    pub protocol: u32,
    /// Its build, for people.
    pub build: String,
    /// The label that it wants.
    pub name: String,
    /// Load cores, at least 1.
    pub cores: u32,
    /// The session that it had, if it comes back. Over gRPC the secret stays where it is: the worker
    /// proves that it knows it ([`crate::handshake`]).
    pub returning: Option<Returning>,
}

/// A session that comes back over a new connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Returning {
    /// Which.
    pub session: SessionId,
    /// That of its welcome.
    pub secret: Bytes,
    /// It makes no load: it delivers what the session's process had measured in this run when it died.
    pub heir_of: Option<RunId>,
}

/// A heartbeat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beat {
    /// Ascends.
    pub number: u64,
    /// When it was sent, on the worker's clock.
    pub sent_at: Mono,
    /// What the worker knows of the master's clock.
    pub clock: Option<ClockReport>,
    /// Where its load stands.
    pub run: Option<RunBeat>,
}

/// A worker's estimate of the master's clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClockReport {
    /// Master − worker, ns.
    pub offset: i64,
    /// Bound on its error: half of the round trip, ns.
    pub error: u64,
}

/// Where a worker's load stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunBeat {
    /// The run.
    pub run: RunId,
    /// Run time at which the odometers were read.
    pub at: RunTime,
    /// They.
    pub odometers: Odometers,
    /// Most users at once in the newest span.
    pub users: u64,
    /// CPU share of the busiest load core in the newest span, in thousandths.
    pub cpu_permille: u32,
    /// p99 of the wait to be polled in the newest span, µs.
    pub lag_us: u64,
    /// Use of every limit on the rate of requests, as [`crate::plan::Plan::limits`] lists them.
    pub throttles: Vec<ThrottleUse>,
}

/// What the master says.
#[derive(Clone, Debug, PartialEq)]
pub enum ToWorker {
    /// The worker is in.
    Welcome {
        /// Its identity.
        session: SessionId,
        /// Proves it on the stream of results.
        secret: Bytes,
        /// The name under which it is shown.
        name: String,
    },
    /// The worker is not let in.
    Refused(Refusal),
    /// Get ready for a run.
    Prepare {
        /// The run.
        run: RunId,
        /// Digest of the plan's canonical JSON, which is one of the blobs.
        plan: Digest,
        /// Digests of all blobs.
        blobs: Vec<Digest>,
    },
    /// A part of a blob; parts ascend without gaps.
    Blob {
        /// Of the whole blob.
        digest: Digest,
        /// Length of the whole blob.
        total: u64,
        /// Where this part begins.
        offset: u64,
        /// The part.
        data: Bytes,
    },
    /// Start at an instant.
    Arm {
        /// The run.
        run: RunId,
        /// Raised with each new start instant.
        attempt: u32,
        /// The start instant on the master's clock.
        t0: Mono,
        /// What to run.
        shard: Box<Shard>,
    },
    /// Other lanes and caps from an instant. Comes first, with those in force, whenever a session
    /// is attached again to a run that goes on: the worker starts nothing before it.
    Assign {
        /// The run.
        run: RunId,
        /// What the worker owns from `shard.from` on: all of it, not the difference.
        shard: Box<Shard>,
        /// Assignments before that one which it may have missed, in order.
        earlier: Vec<Shard>,
    },
    /// The load is the plan's with these changes: all of them, not the newest.
    Program {
        /// The run.
        run: RunId,
        /// They.
        program: Program,
    },
    /// Start nothing more; open requests may take the plan's `graceful_stop`.
    Stop {
        /// The run.
        run: RunId,
    },
    /// Cut open requests off; the last frame still comes.
    Abort {
        /// The run.
        run: RunId,
    },
    /// The run is over for the master. May overtake acknowledgements, which travel on another stream.
    RunClosed {
        /// The run.
        run: RunId,
        /// The highest frame of this worker that was counted.
        frames: u64,
    },
    /// Answer to a heartbeat.
    BeatReply(BeatReply),
    /// Tickets that nobody else gets.
    Tickets {
        /// The run.
        run: RunId,
        /// The pool.
        pool: Pool,
        /// They; may be empty.
        tickets: Range<u64>,
        /// There are none after these.
        exhausted: bool,
    },
    /// New shares of the limits on the rate of requests, from now on.
    Throttles {
        /// The run.
        run: RunId,
        /// Ascends.
        number: u64,
        /// Parts of every limit, as [`crate::plan::Plan::limits`] lists them.
        parts: Vec<u32>,
    },
    /// Every frame up to `seq` is counted. Travels on the stream of results.
    FrameAck {
        /// The run.
        run: RunId,
        /// The highest frame that was counted.
        seq: u64,
        /// Records with these priorities or higher (successes, failures) are not wanted.
        record_limits: [u64; 2],
    },
    /// Every batch of records up to `seq` is counted. Travels on the stream of results.
    RecordAck {
        /// The run.
        run: RunId,
        /// The highest batch that was counted.
        seq: u64,
        /// As in `FrameAck`.
        record_limits: [u64; 2],
    },
    /// The master is done with this worker.
    Goodbye {
        /// Why.
        text: String,
    },
}

/// Answer to a heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BeatReply {
    /// That of the heartbeat.
    pub number: u64,
    /// That of the heartbeat: worker's clock.
    pub sent_at: Mono,
    /// When it was read: master's clock.
    pub received_at: Mono,
    /// When it was answered: master's clock.
    pub replied_at: Mono,
    /// How far apart heartbeats should be, [`BEAT_EVERY`] to [`SLOWEST_BEAT`].
    pub every: Duration,
}

/// Why a worker is not let in, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The cause.
    pub code: RefusalCode,
    /// A sentence that says what to do.
    pub text: String,
    /// Whether trying again unchanged can succeed.
    pub retry: bool,
}

/// Cause of a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalCode {
    /// Another protocol version.
    Version,
    /// The hello breaks the contract.
    Hello,
    /// The master has as many workers as it can take.
    Full,
    /// The master is about to end.
    Closing,
    /// The worker does not know the master's token, or the master not the worker's.
    Token,
    /// One speaks TLS and the other does not.
    Transport,
}
