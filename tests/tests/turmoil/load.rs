//! A double of the engine: the shell's calls, and a task that starts what is due.

use super::Sabotage;
use super::arrivals::State;
use super::truth::Shared;
use ld_shared::boot::clock;
use ld_shared::frame::Odometers;
use ld_shared::load::Program;
use ld_shared::plan::Pool;
use ld_shared::shard::Shard;
use ld_shared::throttle::ThrottleUse;
use ld_shared::time::Mono;
use ld_worker::engine::{EngineEvent, EngineSpec};
use ld_worker::link::LoadMaker;
use ld_worker::protocol::PrepareError;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

/// Who makes load on a host. The link makes its load makers itself, on any thread, and gives them nothing but the
/// plan: they find the rest here, by the plan's seed.
#[derive(Clone)]
pub(crate) struct Place {
    pub(crate) truth: Shared,
    pub(crate) sabotage: Sabotage,
}

static PLACES: Mutex<BTreeMap<u64, Place>> = Mutex::new(BTreeMap::new());

fn places() -> MutexGuard<'static, BTreeMap<u64, Place>> {
    PLACES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes a place known under a number of its own, which is the plan's seed.
pub(crate) fn at(place: Place) -> u64 {
    let mut places = places();
    let number = places.last_key_value().map_or(1, |(last, _)| last + 1);
    places.insert(number, place);
    number
}

tokio::task_local! {
    /// The worker on whose behalf the link runs.
    pub(crate) static WORKER: usize;
}

/// The load of one worker.
pub(crate) struct Double(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
    changed: Notify,
    gone: CancellationToken,
}

impl Drop for Double {
    fn drop(&mut self) {
        self.0.gone.cancel();
    }
}

impl Double {
    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.0.state());
        self.0.changed.notify_one();
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn run(&self) {
        loop {
            let deadline = {
                let mut state = self.state();
                state.step(clock::mono().0);
                if state.is_finished {
                    return;
                }
                state.deadline()
            };
            tokio::select! {
                () = tokio::time::sleep(Mono(deadline).since(clock::mono())) => {}
                () = self.changed.notified() => {}
                () = self.gone.cancelled() => return,
            }
        }
    }
}

impl LoadMaker for Double {
    fn prepare(spec: EngineSpec, events: mpsc::UnboundedSender<EngineEvent>) -> Result<Self, PrepareError> {
        let place = places().get(&spec.plan.seed).cloned();
        let place = place.ok_or_else(|| PrepareError("nobody made this plan's place known".into()))?;
        let state = Mutex::new(State::new(spec.plan, place, events));
        Ok(Self(Arc::new(Inner { state, changed: Notify::new(), gone: CancellationToken::new() })))
    }

    fn start(&self, shard: Shard, t0: Mono) {
        let worker = WORKER.get();
        self.change(|state| state.start(worker, &shard, t0));
        let inner = Arc::clone(&self.0);
        tokio::spawn(async move { inner.run().await });
    }

    fn assign(&self, shard: Shard) {
        self.change(|state| state.assign(&shard));
    }

    fn change(&self, _program: &Program) {}

    fn set_lease(&self, until: Mono) {
        self.change(|state| state.set_lease(clock::mono().0, until.0));
    }

    fn lease_lost(&self) {}

    fn stop(&self) {
        self.change(|state| state.stop(clock::mono().0));
    }

    fn abort(&self) {
        self.change(|state| {
            state.is_aborted = true;
            state.stop(clock::mono().0);
        });
    }

    fn odometers(&self) -> Odometers {
        self.0.state().odometers
    }

    fn grant(&self, _pool: Pool, _tickets: Range<u64>, _exhausted: bool) {}

    fn records_acknowledged(&self) {}

    fn set_record_limits(&self, _limits: [u64; 2]) {}

    fn set_throttles(&self, _parts: &[u32]) {}

    fn throttle_use(&self) -> Vec<ThrottleUse> {
        Vec::new()
    }
}
