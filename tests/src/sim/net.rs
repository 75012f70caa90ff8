//! The network between workers and the master: connections of two streams, whose bytes are late,
//! stuck, or cut off, and whose ends are seen late, early, or never.

use ld_shared::message::{ToMaster, ToWorker};
use ld_shared::rng::KeyedRng;
use ld_shared::time::SECOND;
use std::collections::{BTreeMap, VecDeque};

pub(crate) const MS: u64 = SECOND / 1_000;

pub(crate) type ConnectionId = u64;

/// A stream of a connection. Two of them are not ordered among each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    Control,
    Results,
}

/// What travels on a stream.
#[expect(clippy::large_enum_variant, reason = "messages pass through by value, as in production")]
#[derive(Clone, Debug)]
pub(crate) enum Packet {
    Up(ToMaster),
    Down(ToWorker),
    /// The stream ends here: what is seen.
    End(&'static str),
}

/// Who receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Master,
    Worker,
}

impl Side {
    fn other(self) -> Self {
        match self {
            Self::Master => Self::Worker,
            Self::Worker => Self::Master,
        }
    }
}

/// A packet that arrives at an instant.
#[derive(Debug)]
pub(crate) struct Arrival {
    pub(crate) at: u64,
    pub(crate) connection: ConnectionId,
    pub(crate) to: Side,
    pub(crate) packet: Packet,
}

#[derive(Debug, Default)]
struct Pipe {
    /// Nothing arrives before what was sent before.
    newest: u64,
    /// Sent into a silent cut: it comes when the cut is over.
    stuck: VecDeque<Packet>,
    /// What was sent before this instant and has not arrived by `lost_from` never does.
    lost_from: Option<u64>,
}

#[derive(Debug)]
struct Connection {
    /// Of which process of which worker.
    owner: (usize, u32),
    /// To the master: control, results; to the worker: control, results.
    pipes: [Pipe; 4],
    /// The sides that still listen: master, worker.
    open: [bool; 2],
}

/// How the path to one worker fares.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Path {
    /// Cuts in force: packets to the master get stuck; packets to the worker do.
    pub(crate) cut: [u32; 2],
    /// Least delay of everything, of results.
    pub(crate) slow: u64,
    pub(crate) slow_results: u64,
}

/// All connections that there ever were.
#[derive(Debug)]
pub(crate) struct Net {
    connections: BTreeMap<ConnectionId, Connection>,
    next: ConnectionId,
    pub(crate) paths: Vec<Path>,
    rng: KeyedRng,
    /// Usual one-way delay.
    delay: u64,
}

fn pipe_of(to: Side, lane: Lane) -> usize {
    usize::from(to == Side::Worker) * 2 + usize::from(lane == Lane::Results)
}

impl Net {
    pub(crate) fn new(workers: usize, delay: u64, rng: KeyedRng) -> Self {
        Self { connections: BTreeMap::new(), next: 0, paths: vec![Path::default(); workers], rng, delay }
    }

    pub(crate) fn delay(&mut self, worker: usize) -> u64 {
        let tail = if self.rng.below(50) == 0 { self.rng.below(40 * MS) } else { 0 };
        self.paths[worker].slow + self.delay / 2 + self.rng.below(self.delay) + tail
    }

    /// A connection stands.
    pub(crate) fn open(&mut self, owner: (usize, u32)) -> ConnectionId {
        self.next += 1;
        let connection = Connection { owner, pipes: Default::default(), open: [true; 2] };
        self.connections.insert(self.next, connection);
        self.next
    }

    /// The worker at its other end, and which of its processes.
    pub(crate) fn owner_of(&self, id: ConnectionId) -> (usize, u32) {
        self.connections[&id].owner
    }

    /// Sends a packet at `now`; what comes of it is to be scheduled.
    pub(crate) fn send(&mut self, now: u64, id: ConnectionId, to: Side, lane: Lane, packet: Packet) -> Option<Arrival> {
        let worker = self.connections.get(&id)?.owner.0;
        let path = self.paths[worker];
        let slow = if lane == Lane::Results { path.slow_results } else { 0 };
        let delay = self.delay(worker) + slow;
        let connection = self.connections.get_mut(&id)?;
        if !connection.open[to.other() as usize] {
            return None;
        }
        let pipe = &mut connection.pipes[pipe_of(to, lane)];
        if pipe.lost_from.is_some() {
            return None;
        }
        if path.cut[to as usize] > 0 || !pipe.stuck.is_empty() {
            pipe.stuck.push_back(packet);
            return None;
        }
        pipe.newest = (pipe.newest + 1).max(now + delay);
        Some(Arrival { at: pipe.newest, connection: id, to, packet })
    }

    /// What is stuck on the way to or from a worker, and is so no more, arrives.
    pub(crate) fn flush(&mut self, now: u64, worker: usize) -> Vec<Arrival> {
        let path = self.paths[worker];
        let mut arrivals = Vec::new();
        for (id, connection) in self.connections.iter_mut().filter(|(_, c)| c.owner.0 == worker) {
            for (index, pipe) in connection.pipes.iter_mut().enumerate() {
                let to = if index < 2 { Side::Master } else { Side::Worker };
                if path.cut[to as usize] > 0 || pipe.stuck.is_empty() {
                    continue;
                }
                // TCP sends again when its timer says so
                let mut at = pipe.newest.max(now + self.rng.below(900 * MS));
                for packet in pipe.stuck.drain(..) {
                    at += 1 + self.rng.below(MS);
                    arrivals.push(Arrival { at, connection: *id, to, packet });
                }
                pipe.newest = at;
            }
        }
        arrivals
    }

    /// One side lets go of a connection at `now`: it hears nothing more, the other one hears the end.
    /// In good order the end of `Results` says nothing; when a process dies both streams break.
    pub(crate) fn close(&mut self, now: u64, id: ConnectionId, side: Side, dies: bool) -> Vec<Arrival> {
        let (to, seen) = (side.other(), if dies { "connection reset" } else { "closed" });
        let lanes: &[Lane] = if dies { &[Lane::Control, Lane::Results] } else { &[Lane::Control] };
        let ends: Vec<Option<Arrival>> =
            lanes.iter().map(|lane| self.send(now, id, to, *lane, Packet::End(seen))).collect();
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.open[side as usize] = false;
        }
        ends.into_iter().flatten().collect()
    }

    /// A side vanishes: it hears nothing more, and nobody is told.
    pub(crate) fn forget(&mut self, id: ConnectionId, side: Side) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.open[side as usize] = false;
        }
    }

    /// Something between both resets a connection: each side sees it after its own delay, and what
    /// is under way gets lost, from a chance instant on.
    pub(crate) fn reset(&mut self, now: u64, id: ConnectionId, late: [u64; 2]) -> Vec<Arrival> {
        let Some(connection) = self.connections.get_mut(&id) else { return Vec::new() };
        let mut arrivals = Vec::new();
        for (index, pipe) in connection.pipes.iter_mut().enumerate() {
            let (to, late) = if index < 2 { (Side::Master, late[0]) } else { (Side::Worker, late[1]) };
            pipe.stuck.clear();
            pipe.lost_from.get_or_insert(now + self.rng.below(20 * MS));
            if connection.open[to as usize] {
                let packet = Packet::End("connection reset");
                arrivals.push(Arrival {
                    at: pipe.newest.min(now + 20 * MS).max(now) + late + 1,
                    connection: id,
                    to,
                    packet,
                });
            }
        }
        arrivals
    }

    /// A packet arrives: whether somebody takes it. The end closes the side that sees it.
    pub(crate) fn take(&mut self, arrival: &Arrival, lane: Lane) -> bool {
        let Some(connection) = self.connections.get_mut(&arrival.connection) else { return false };
        if !connection.open[arrival.to as usize] {
            return false;
        }
        match arrival.packet {
            Packet::End(_) => {
                connection.open[arrival.to as usize] = false;
                true
            }
            Packet::Up(_) | Packet::Down(_) => {
                let lost = connection.pipes[pipe_of(arrival.to, lane)].lost_from;
                lost.is_none_or(|from| arrival.at < from)
            }
        }
    }

    /// Connections of a worker that somebody still listens to.
    pub(crate) fn of_worker(&self, worker: usize) -> Vec<ConnectionId> {
        let mine = |(_, c): &(&ConnectionId, &Connection)| c.owner.0 == worker && c.open.contains(&true);
        self.connections.iter().filter(mine).map(|(id, _)| *id).collect()
    }

    /// Connections that the master listens to.
    pub(crate) fn of_master(&self) -> Vec<ConnectionId> {
        self.connections.iter().filter(|(_, c)| c.open[Side::Master as usize]).map(|(id, _)| *id).collect()
    }
}

/// The stream on which a message travels.
pub(crate) fn lane_of(packet: &Packet) -> Lane {
    let results = match packet {
        Packet::Up(message) => matches!(message, ToMaster::Frame { .. } | ToMaster::Records(_)),
        Packet::Down(message) => matches!(message, ToWorker::FrameAck { .. } | ToWorker::RecordAck { .. }),
        Packet::End(_) => false,
    };
    if results { Lane::Results } else { Lane::Control }
}
