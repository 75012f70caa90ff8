//! `runs`: what stores hold, and how two runs differ.

mod compared;
mod listed;
mod reference;
mod rescue;
mod shown;

use super::{Global, ReportFiles, session};
use crate::compare::{Metric, Options};
use crate::console::Console;
use crate::run::verdict::exit;
use crate::store::{self, Missing, Store, StoreError};
use clap::{Args, Subcommand, ValueEnum};

const RUN: &str = "\
A run is named by its number, its id or the begin of it, its label (the newest of that label),
`latest`, `previous`, or the path of a file that --summary wrote";

const COMPARE: &str = "\
A run is named by its number, its id or the begin of it, its label (the newest of that label),
`latest`, `previous`, or the path of a file that --summary wrote

Examples:
  ld-master runs compare previous latest                      what the last change did
  ld-master runs compare 12 latest --fail-on regression       exit 1 if anything got worse
  ld-master runs compare base.json new.json --fail-on p95,failures

A metric has moved if the confidence interval of its change lies wholly beyond the threshold.
Rates of closed tests are held against those that their response times explain";

const RESCUE: &str = "\
A run under way writes a journal below the data folder. What was acknowledged before its master
ended becomes a result with the verdict `error`; the journal is removed once that is kept";

/// What is done.
#[derive(Debug, Subcommand)]
pub(crate) enum Action {
    /// Lists kept runs, the newest first
    List {
        /// At most so many
        #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(i64).range(1..))]
        limit: i64,
        /// Writes JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        place: Place,
    },
    /// Shows a run: names, verdict, conservation
    #[command(after_help = RUN)]
    Show {
        /// The run
        run: String,
        /// Writes its result (loaddensity.run/1) and its plan as JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        place: Place,
    },
    /// Says which metrics of which names moved beyond noise from run A to run B
    #[command(after_help = COMPARE)]
    Compare {
        /// The run that is compared with
        a: String,
        /// The run that is judged
        b: String,
        /// Exit code 1 if any of these got worse
        #[arg(long, value_name = "WHAT", value_enum, value_delimiter = ',')]
        fail_on: Vec<FailOn>,
        /// Least change that counts, in percent
        #[arg(long, value_name = "PERCENT", default_value_t = 5.0, value_parser = percent)]
        threshold: f64,
        /// Writes JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        place: Place,
    },
    /// Results of runs whose master was killed: lists them, or keeps and reports one
    #[command(after_help = RESCUE)]
    Rescue {
        /// The run: its id or the begin of it, or `latest`; without it all are listed
        run: Option<String>,
        #[command(flatten)]
        files: ReportFiles,
    },
}

/// Which store.
#[derive(Args, Clone, Debug)]
pub(crate) struct Place {
    /// Database to look into: that of `LD_persist_records`, a path or postgres:// URL; without it the data folder's
    #[arg(long, value_name = "PATH|URL", env = "LD_MASTER_STORE", hide_env_values = true)]
    store: Option<String>,
}

/// What makes a comparison fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum FailOn {
    /// Anything
    Regression,
    /// The median
    P50,
    /// The 95th percentile
    P95,
    /// The 99th percentile
    P99,
    /// Requests per second
    Rate,
    /// The share of failures
    Failures,
}

impl FailOn {
    fn covers(self, metric: Metric) -> bool {
        match self {
            Self::Regression => true,
            Self::P50 => metric == Metric::P50,
            Self::P95 => metric == Metric::P95,
            Self::P99 => metric == Metric::P99,
            Self::Rate => metric == Metric::Rate,
            Self::Failures => metric == Metric::Failures,
        }
    }
}

/// Why nothing could be said.
#[derive(Debug, thiserror::Error)]
enum Fault {
    /// A run that is not there, or one that cannot be used.
    #[error("{0}")]
    Input(String),
    /// A store that fails.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Does it. Returns the exit code.
pub(super) fn run(global: &Global, console: &Console, action: Action) -> u8 {
    session::block_on(console, async |_| {
        let outcome = match action {
            Action::List { limit, json, place } => listed::run(global, console, &place, limit, json).await,
            Action::Show { run, json, place } => shown::run(global, console, &place, &run, json).await,
            Action::Compare { a, b, fail_on, threshold, json, place } => {
                let wanted = compared::Wanted {
                    options: Options { threshold: threshold / 100.0, ..Options::default() },
                    fail_on,
                    json,
                };
                compared::run(global, console, &place, [&a, &b], &wanted).await
            }
            Action::Rescue { run, files } => Box::pin(rescue::run(global, console, run.as_deref(), &files)).await,
        };
        outcome.unwrap_or_else(|fault| {
            console.error(&format!("error: {fault}"));
            match fault {
                Fault::Input(_) | Fault::Store(StoreError::Open { .. }) => exit::REFUSED,
                Fault::Store(StoreError::Read { .. } | StoreError::Write { .. }) => exit::NOT_RUN,
            }
        })
    })
}

impl Place {
    /// Opens it; `None` if it is the data folder's, and nothing was kept there yet.
    async fn open(&self, global: &Global) -> Result<Option<Store>, Fault> {
        if let Some(place) = &self.store {
            return Ok(Some(store::open(place, Missing::Fail).await?));
        }
        let path = global.history().ok_or_else(|| {
            Fault::Input(
                "no store: neither HOME nor --data-dir says where runs are kept, and there is no --store".into(),
            )
        })?;
        let path = path.path();
        if !path.exists() {
            return Ok(None);
        }
        Ok(Some(store::open(&path.display().to_string(), Missing::Fail).await?))
    }
}

fn percent(text: &str) -> Result<f64, String> {
    let number = text.trim().trim_end_matches('%').trim().parse::<f64>().ok();
    number.filter(|n| (0.0..=1_000.0).contains(n)).ok_or_else(|| "a number of percent like 5 is accepted".to_owned())
}
