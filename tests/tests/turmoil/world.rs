//! The cluster and the faults that a seed describes, and the wheel that turns it.

use super::Sabotage;
use super::load::{self, Double, Place, WORKER};
use super::network::{Port, Watched, Way};
use super::setup::{Fault, Setup, What};
use super::truth::Shared;
use ld_master::cluster::{Cluster, ClusterOptions, RunControl, RunError, RunOrder, Security, TlsMode};
use ld_master::run::{Measured, Progress};
use ld_shared::boot::clock;
use ld_shared::handshake::Token;
use ld_shared::id::{Digest, RunId};
use ld_shared::message::{Hello, PROTOCOL_VERSION};
use ld_shared::plan::Plan;
use ld_shared::sample::Phase;
use ld_shared::time::Mono;
use ld_worker::link;
use ld_worker::link::grpc::{Credentials, GrpcDial};
use ld_worker::membership::Options;
use ld_worker::spool::Folders;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use turmoil::Sim;

pub(crate) const WORKERS: usize = 3;
/// A step of the wheel.
const TICK: Duration = Duration::from_millis(5);
/// Between the end of the plan and the end of the run there are at most: the grace, the word that the slowest
/// worker is gone, and 10 s for its last frames.
const ENDS_WITHIN: u64 = 15_000;

/// What a run came to.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) started: u64,
    /// Requests with unknown ends: by the result at most, and in truth.
    pub(crate) lost: [u64; 2],
    /// Starts beyond every bound.
    pub(crate) unheard: u64,
    pub(crate) lost_workers: usize,
    /// Sessions that came back over another connection.
    pub(crate) returns: u64,
    pub(crate) has_faults: bool,
    pub(crate) ending: String,
    /// From the start of the simulation to the end of the run, ms.
    pub(crate) took_ms: u64,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { started, lost: [lost, truly], unheard, lost_workers, returns, ending, took_ms, .. } = self;
        write!(
            f,
            "{ending} after {took_ms} ms: {started} started, {lost_workers} workers lost, with {lost} requests at "
        )?;
        write!(f, "most and {truly} in truth, {unheard} beyond every bound; {returns} sessions came back")
    }
}

/// What does not hold.
#[derive(Debug)]
pub(crate) struct Violation {
    pub(crate) seed: u64,
    pub(crate) what: Vec<String>,
    story: Vec<String>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {} (LD_TURMOIL_SEED={} runs it alone):", self.seed, self.seed)?;
        self.what.iter().chain(&self.story).try_for_each(|line| writeln!(f, "  {line}"))
    }
}

type Answer = Arc<Mutex<Option<Result<Measured, RunError>>>>;

/// Runs the cluster that a seed describes to its end.
pub(crate) fn simulate(seed: u64, sabotage: Sabotage) -> Result<Outcome, Violation> {
    let setup = Setup::new(seed);
    let mut story = vec![format!("{setup:?}")];
    match run(seed, &setup, sabotage, &mut story) {
        Ok(outcome) => Ok(outcome),
        Err(what) => Err(Violation { seed, what, story }),
    }
}

fn run(seed: u64, setup: &Setup, sabotage: Sabotage, story: &mut Vec<String>) -> Result<Outcome, Vec<String>> {
    let truth = Shared::default();
    let number = load::at(Place { truth: truth.clone(), sabotage });
    let plan = Arc::new(setup.plan(number));
    let most = Duration::from_mins(1);
    let mut sim = turmoil::Builder::new()
        .tick_duration(TICK)
        .rng_seed(seed)
        .max_message_latency(Duration::from_millis(setup.latency))
        .simulation_duration(most)
        .build();
    let answer = Answer::default();
    let (progress, seen) = watch::channel(Arc::new(Progress::default()));
    sim.client("master", master(Arc::clone(&plan), progress, Arc::clone(&answer)));
    for worker in 0..WORKERS {
        let truth = truth.clone();
        sim.host(name(worker), move || {
            truth.lock().process(worker);
            work(Way { truth: truth.clone(), worker })
        });
    }
    let mut wheel = Wheel { sim, began: clock::mono(), started: None, story };
    let mut faults: Vec<(u64, Fault, bool)> = setup
        .faults
        .iter()
        .flat_map(|fault| [(fault.at, *fault, true), (fault.at + fault.length, *fault, false)])
        .collect();
    faults.sort_by_key(|(at, ..)| std::cmp::Reverse(*at));
    let mut ended_ms = None;
    loop {
        let is_over = wheel.turn().map_err(|error| vec![format!("the simulation broke off: {error}")])?;
        let now = wheel.sim.elapsed().as_millis() as u64;
        if wheel.started.is_none() && seen.borrow().state == "running" {
            wheel.started = Some(now);
        }
        if ended_ms.is_none() && answer.lock().unwrap_or_else(PoisonError::into_inner).is_some() {
            ended_ms = Some(now);
        }
        while let Some((_, fault, begins)) =
            wheel.started.and_then(|started| faults.pop_if(|(at, ..)| started + *at <= now))
        {
            // nothing befalls a cluster that is closing
            if ended_ms.is_none() {
                wheel.inflict(fault, begins);
            }
        }
        if is_over {
            break;
        }
    }
    let took_ms = ended_ms.unwrap_or_default();
    let started_ms = wheel.started.unwrap_or_default();
    drop(wheel);
    let measured = answer.lock().unwrap_or_else(PoisonError::into_inner).take();
    let measured = match measured {
        Some(Ok(measured)) => measured,
        Some(Err(error)) => return Err(vec![format!("the run did not come about: {error}")]),
        None => return Err(vec!["the master ended without a result".into()]),
    };
    story.push(format!("ended after {took_ms} ms, {:?}, losses {:?}", measured.ending, measured.losses));
    story.push(format!("{:?}", measured.workers));
    let truth = truth.lock();
    let mut broken = truth.judge(&plan, &measured);
    if took_ms > started_ms + setup.seconds * 1_000 + ENDS_WITHIN {
        broken.push(format!("it took {took_ms} ms"));
    }
    if !broken.is_empty() {
        return Err(broken);
    }
    let main = measured.total.phase(Phase::Main);
    let known = main.succeeded() + main.failed() + measured.odometers.phase(Phase::Main).requests_in_flight;
    Ok(Outcome {
        started: truth.started(),
        lost: [measured.lost, truth.started().saturating_sub(known)],
        unheard: truth.unheard(),
        lost_workers: measured.workers.iter().filter(|worker| worker.state == "lost").count(),
        returns: truth.returns,
        has_faults: !setup.faults.is_empty(),
        ending: format!("{:?}", measured.ending),
        took_ms,
    })
}

/// The simulation at the pace of the real clock, which the shells read.
struct Wheel<'a> {
    sim: Sim<'static>,
    began: Mono,
    /// When the run was seen to run, ms.
    started: Option<u64>,
    story: &'a mut Vec<String>,
}

impl Wheel<'_> {
    /// A step, once its time has come. Returns whether the master is done.
    #[expect(clippy::disallowed_methods, reason = "the thread has nothing to do but to wait for real time")]
    fn turn(&mut self) -> turmoil::Result<bool> {
        let real = clock::mono().since(self.began);
        std::thread::sleep(self.sim.elapsed().saturating_sub(real));
        self.sim.step()
    }

    fn inflict(&mut self, fault: Fault, begins: bool) {
        let now = self.sim.elapsed().as_millis();
        self.story.push(format!("at {now} ms: {} {fault:?}", if begins { "begins" } else { "ends" }));
        let (sim, worker) = (&mut self.sim, name(fault.worker));
        match (fault.what, begins) {
            (What::Cut, true) => sim.partition(worker, "master"),
            (What::CutUp, true) => sim.partition_oneway(worker, "master"),
            (What::CutDown, true) => sim.partition_oneway("master", worker),
            (What::Cut | What::CutUp | What::CutDown, false) => sim.repair(worker, "master"),
            (What::Hold, true) => sim.hold(worker, "master"),
            (What::Hold, false) => sim.release(worker, "master"),
            (What::Kill | What::KillForGood, true) => sim.crash(worker),
            (What::Kill, false) => sim.bounce(worker),
            (What::KillForGood, false) => {}
        }
    }
}

fn name(worker: usize) -> String {
    format!("w{worker}")
}

fn token() -> Token {
    Token::new("a token of the simulated network").expect("it is not empty")
}

async fn master(
    plan: Arc<Plan>,
    progress: watch::Sender<Arc<Progress>>,
    answer: Answer,
) -> Result<(), Box<dyn std::error::Error>> {
    let listener = turmoil::net::TcpListener::bind("0.0.0.0:7000").await?;
    let options = ClusterOptions {
        bind: Some(([0, 0, 0, 0], 7_000).into()),
        local_cores: None,
        expected_workers: WORKERS as u32,
        wait: Duration::from_secs(20),
        security: Security { tls: TlsMode::Off, token: Some(token()), ..Security::default() },
    };
    let (cluster, driving) = Cluster::simulated(options, Port(listener))?;
    let driving = tokio::spawn(driving);
    let order = RunOrder {
        run: RunId::random(),
        digest: Digest::of(&plan.to_json()),
        plan,
        blobs: BTreeMap::new(),
        thresholds: Vec::new(),
        allow_missing_workers: false,
        any_worker: false,
        lines: None,
        journal: None,
        resumes: None,
    };
    let result = cluster.run(order, RunControl::default(), progress).await;
    *answer.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
    cluster.close().await;
    Ok(driving.await?)
}

async fn work(way: Way) -> Result<(), Box<dyn std::error::Error>> {
    let (master, worker) = ("master:7000".to_owned(), way.worker);
    let hello =
        Hello { protocol: PROTOCOL_VERSION, build: "turmoil".into(), name: name(worker), cores: 1, returning: None };
    // what is written there every few milliseconds must not come between a worker and its way to the master
    let folder = tempfile::tempdir()?;
    let options = Options {
        hello,
        capacity: 1_000,
        stay: false,
        master_timeout: Duration::from_secs(30),
        master: master.clone(),
        targets: None,
        spool: Some(Arc::new(Folders(folder.path().to_owned()))),
    };
    let dial = GrpcDial { master, credentials: Credentials { tls: None, token: Some(token()) }, connect: way };
    let (_signal, signals) = mpsc::channel(1);
    let running = link::run::<Double>(options, Watched(dial), signals, link::unwatched());
    // how a worker ends is of no matter here: what it started, and what is known of it, is
    WORKER.scope(worker, running).await;
    Ok(())
}
