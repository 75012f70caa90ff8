//! The exporters of an app: started, fed, ended.

use super::{ExporterError, Life, Line, Opened, Reading, Site, Tally, Wanted};
use crate::app::App;
use crate::console::Console;
use crate::remote::{Access, Feed};
use ld_shared::boot::{clock, task};
use serde_json::{Map, Value};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

/// How often what was measured is read.
const EVERY: Duration = Duration::from_secs(1);
/// A cluster that does not answer within this time is not waited for.
const ANSWERED_WITHIN: Duration = Duration::from_secs(1);
/// An exporter that has not ended so long after it was cut off never will.
const MERCY: Duration = Duration::from_secs(1);

/// The exporters of an app.
#[derive(Debug)]
pub struct Exporters {
    readings: watch::Sender<Arc<Reading>>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    access: Access,
    at_work: Vec<AtWork>,
    /// Of every exporter there was.
    tallies: Vec<Arc<Tally>>,
    /// Reads what was measured as long as there is an exporter.
    pump: Option<JoinHandle<()>>,
}

/// An exporter at work.
#[derive(Debug)]
struct AtWork {
    kind: &'static str,
    /// The result of the command that started it.
    result: Value,
    tally: Arc<Tally>,
    ending: CancellationToken,
    cut: CancellationToken,
    work: JoinHandle<()>,
}

/// How an exporter is asked for.
#[derive(Debug)]
pub enum Start {
    /// By its command: a second start changes nothing.
    Command(Map<String, Value>),
    /// By a flag: each is one more.
    Flag(String),
}

impl Default for Exporters {
    fn default() -> Self {
        let nothing = Reading { at: clock::wall(), feed: Feed::default(), tallies: Vec::new() };
        Self { readings: watch::Sender::new(Arc::new(nothing)), state: Mutex::default() }
    }
}

impl Exporters {
    fn state(&self) -> MutexGuard<'_, State> {
        // lists that are pushed to are whole at every moment
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who may look where an exporter opens a port.
    pub fn protect(&self, access: Access) {
        self.state().access = access;
    }

    /// What every exporter there was delivered and dropped.
    pub fn tallies(&self) -> Vec<Arc<Tally>> {
        self.state().tallies.clone()
    }
}

impl App {
    /// Starts the exporters that flags ask for.
    ///
    /// # Errors
    ///
    /// The first that cannot be started.
    pub async fn start_exporters(&self, wanted: &[Wanted]) -> Result<(), ExporterError> {
        for Wanted { line, text } in wanted {
            self.start_exporter(line, Start::Flag(text.clone())).await?;
        }
        Ok(())
    }

    /// Starts an exporter. Gives what its command gives.
    ///
    /// # Errors
    ///
    /// Ports that are taken, and arguments that make no sense.
    pub async fn start_exporter(&self, line: &'static Line, start: Start) -> Result<Value, ExporterError> {
        let exporters = self.exporters();
        if let Start::Command(_) = start {
            let state = exporters.state();
            if let Some(there) = state.at_work.iter().find(|there| there.kind == line.name) {
                let place = &there.tally.place;
                self.console.note(&format!("exporter {} is at work already: {place}", line.name));
                return Ok(there.result.clone());
            }
        }
        let site = Site { environment: crate::cli::environment, access: exporters.state().access.clone() };
        let opened = match start {
            Start::Command(arguments) => line.open(arguments, &site).await?,
            Start::Flag(text) => line.open_flag(&text, &site).await?,
        };
        // what was measured before is not for it
        self.read_now().await;
        let Opened { place, result, unit, notes, work } = opened;
        self.console.notes(&notes);
        self.console.note(&format!("exporter {}: {place}", line.name));
        let mut state = exporters.state();
        let beside = state.at_work.iter().filter(|there| there.kind == line.name).count();
        let name = if beside == 0 { line.name.to_owned() } else { format!("{}-{}", line.name, beside + 1) };
        let tally = Arc::new(Tally::new(name, place, unit));
        let life = Life {
            readings: exporters.readings.subscribe(),
            ending: CancellationToken::new(),
            cut: CancellationToken::new(),
            tally: Arc::clone(&tally),
            console: Arc::clone(&self.console),
        };
        let (ending, cut) = (life.ending.clone(), life.cut.clone());
        state.tallies.push(Arc::clone(&tally));
        let work = task::spawn("exporter", work(life));
        state.at_work.push(AtWork { kind: line.name, result: result.clone(), tally, ending, cut, work });
        if state.pump.is_none() {
            state.pump = Some(task::spawn("readings of exporters", pump(self.clone())));
        }
        Ok(result)
    }

    /// Ends every exporter of a kind: what was measured until now is delivered first.
    pub async fn stop_exporters(&self, line: &Line) {
        self.end(|there| there.kind == line.name).await.finished().await;
    }

    /// Takes a last reading for every exporter. They end when they have delivered it.
    pub async fn end_exporters(&self) -> Ending {
        self.end(|_| true).await
    }

    async fn end(&self, which: impl Fn(&AtWork) -> bool) -> Ending {
        let exporters = self.exporters();
        let is_any = exporters.state().at_work.iter().any(&which);
        if is_any {
            self.read_now().await;
        }
        let ended: Vec<AtWork> = {
            let mut state = exporters.state();
            let ended = state.at_work.extract_if(.., |there| which(there)).collect();
            if state.at_work.is_empty()
                && let Some(pump) = state.pump.take()
            {
                pump.abort();
            }
            ended
        };
        for there in &ended {
            there.ending.cancel();
        }
        Ending { ended, signals: self.later_signals(), console: Arc::clone(&self.console) }
    }

    /// Shows what was measured to every exporter.
    async fn read_now(&self) {
        let exporters = self.exporters();
        let Ok(feed) = timeout(ANSWERED_WITHIN, self.feed()).await else {
            tracing::warn!("the cluster does not tell exporters what was measured");
            return;
        };
        exporters.readings.send_replace(Arc::new(Reading { at: clock::wall(), feed, tallies: exporters.tallies() }));
    }
}

/// Shows what was measured once a second.
async fn pump(app: App) {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // the first comes at once
    ticks.tick().await;
    loop {
        ticks.tick().await;
        app.read_now().await;
    }
}

/// Exporters that deliver their last.
#[must_use = "they are cut off if nobody waits"]
pub struct Ending {
    ended: Vec<AtWork>,
    /// Requests of the user to end that came after the last reading was taken.
    signals: mpsc::Receiver<()>,
    console: Arc<Console>,
}

impl Ending {
    /// Waits until all have ended: sending ones within two seconds, a page when it was scraped once
    /// more or its time is over. A signal of the user ends the wait.
    pub async fn finished(self) {
        if self.ended.is_empty() {
            return;
        }
        let Self { ended, mut signals, console } = self;
        let cuts: Vec<_> = ended.iter().map(|there| there.cut.clone()).collect();
        let all = async {
            for AtWork { work, tally, .. } in ended {
                if work.await.is_err() {
                    tally.close("it broke down");
                }
                console.note(&tally.summary());
            }
        };
        tokio::pin!(all);
        tokio::select! {
            () = &mut all => return,
            Some(()) = signals.recv() => cuts.iter().for_each(CancellationToken::cancel),
        }
        drop(timeout(MERCY, all).await);
    }
}
