//! `ld-worker` with a fault planted on purpose: its engine forgets the samples of one second. The truth
//! suite checks that the result notices.

use ld_shared::frame::Odometers;
use ld_shared::load::Program;
use ld_shared::plan::Pool;
use ld_shared::shard::Shard;
use ld_shared::snapshot::Snapshot;
use ld_shared::throttle::ThrottleUse;
use ld_shared::time::Mono;
use ld_worker::engine::{Engine, EngineEvent, EngineSpec};
use ld_worker::link::LoadMaker;
use ld_worker::protocol::PrepareError;
use std::ops::Range;
use std::process::ExitCode;
use tokio::sync::mpsc;

fn main() -> ExitCode {
    // an error means that a provider is installed already: the same one
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    ld_worker::cli::main_with::<Lossy>()
}

struct Lossy(Engine);

impl LoadMaker for Lossy {
    fn prepare(spec: EngineSpec, events: mpsc::UnboundedSender<EngineEvent>) -> Result<Self, PrepareError> {
        let (sender, mut real) = mpsc::unbounded_channel();
        std::thread::spawn(move || {
            let mut forgotten = false;
            while let Some(mut event) = real.blocking_recv() {
                if let EngineEvent::Span(body) = &mut event
                    && !forgotten
                    && body.counts.rows.values().any(|row| row.succeeded > 0)
                {
                    forgotten = true;
                    body.counts = Snapshot::default();
                }
                if events.send(event).is_err() {
                    return;
                }
            }
        });
        <Engine as LoadMaker>::prepare(spec, sender).map(Self)
    }
    fn start(&self, shard: Shard, t0: Mono) {
        self.0.start(&shard, t0);
    }
    fn assign(&self, shard: Shard) {
        self.0.assign(&shard);
    }
    fn change(&self, program: &Program) {
        self.0.change(program);
    }
    fn set_lease(&self, until: Mono) {
        self.0.set_lease(until);
    }
    fn lease_lost(&self) {
        self.0.lease_lost();
    }
    fn stop(&self) {
        self.0.stop();
    }
    fn abort(&self) {
        self.0.abort();
    }
    fn odometers(&self) -> Odometers {
        self.0.odometers()
    }
    fn grant(&self, pool: Pool, tickets: Range<u64>, exhausted: bool) {
        self.0.grant(pool, tickets, exhausted);
    }
    fn records_acknowledged(&self) {
        self.0.records_acknowledged();
    }
    fn set_record_limits(&self, limits: [u64; 2]) {
        self.0.set_record_limits(limits);
    }
    fn set_throttles(&self, parts: &[u32]) {
        self.0.set_throttles(parts);
    }
    fn throttle_use(&self) -> Vec<ThrottleUse> {
        self.0.throttle_use()
    }
}
