//! Exporters: what is measured goes to dashboards while it is measured.
//!
//! To add one: a file beside this one's children, its `mod` line and its line in [`EXPORTERS`]. Its
//! commands, its `--export NAME=WHERE` and its lines in the notes come from there.
//!
//! One pump asks the cluster once a second for all that was measured since the process began
//! ([`Feed`]) and shows it to every exporter as a [`Reading`]. An exporter is a task of its own with
//! a bounded queue of its own: the newest reading replaces one that was not looked at, so whoever is
//! slow sees fewer of them, never old ones, and nobody waits for anybody. What an exporter could not
//! deliver it counts in its [`Tally`].

mod counts;
mod hub;
pub mod influx;
mod names;
mod net;
mod otlp;
pub mod place;
pub mod prometheus;
mod push;
mod statsd;
mod tally;

pub use hub::{Exporters, Start};
pub use tally::Tally;

use crate::console::Console;
use crate::remote::{Access, Feed};
use crate::script::CommandSpec;
use chrono::{DateTime, Utc};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// An exporter: a plain struct that serde reads from the arguments of its command.
pub trait Exporter: DeserializeOwned + Send + 'static {
    /// What flags, notes and metrics call it.
    const NAME: &'static str;
    /// The command that starts it. Whatever is not required has a default.
    const START: CommandSpec;
    /// The command that ends it.
    const STOP: CommandSpec;
    /// What the command that starts it does.
    const ABOUT: &'static str;

    /// From what stands behind `NAME=` in a flag.
    ///
    /// # Errors
    ///
    /// What is wrong with it, and what would be accepted.
    fn from_flag(text: &str) -> Result<Self, String>;

    /// Takes ports, and refuses what can never work. Whether anybody is at the other end shows later.
    fn open(self, site: &Site) -> impl Future<Output = Result<Opened, ExporterError>> + Send;
}

/// What an exporter finds where it runs.
#[derive(Clone, Debug)]
pub struct Site {
    /// Variables of the environment.
    pub environment: fn(&str) -> Option<String>,
    /// Who may look, where it opens a port.
    pub access: Access,
}

/// An exporter that can go to work.
pub struct Opened {
    /// Where its metrics go, without secrets.
    pub place: String,
    /// The result of its command.
    pub result: Value,
    /// What it counts in its tally.
    pub unit: &'static str,
    /// Warnings for whoever started it.
    pub notes: Vec<String>,
    /// Its work, to the end.
    pub work: Box<dyn FnOnce(Life) -> Working + Send>,
}

/// An exporter at work.
pub type Working = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What an exporter lives on.
pub struct Life {
    /// What was measured; the first is from when it was started.
    pub readings: watch::Receiver<Arc<Reading>>,
    /// The reading that is there now is the last: deliver it and end.
    pub ending: CancellationToken,
    /// End at once.
    pub cut: CancellationToken,
    /// What became of what it was to deliver.
    pub tally: Arc<Tally>,
    /// Where people read.
    pub console: Arc<Console>,
}

/// All that was measured until a moment.
#[derive(Clone, Debug)]
pub struct Reading {
    /// The moment.
    pub at: DateTime<Utc>,
    /// What was measured.
    pub feed: Feed,
    /// Every exporter there was, with its tally.
    pub tallies: Vec<Arc<Tally>>,
}

/// Why an exporter cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum ExporterError {
    /// Its port is not to be had.
    #[error("cannot listen on {place}")]
    Listen {
        /// Where.
        place: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No socket is to be had.
    #[error("cannot send to {place}")]
    Socket {
        /// Where.
        place: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Arguments that make no sense.
    #[error("{0}")]
    Refused(String),
}

impl ExporterError {
    /// The seed's class of the error.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Listen { .. } | Self::Socket { .. } => "OSError",
            Self::Refused(_) => "ValueError",
        }
    }

    /// What to do about it.
    pub fn help(&self) -> Option<&'static str> {
        match self {
            Self::Listen { source, .. } if source.kind() == io::ErrorKind::AddrInUse => {
                Some("another program, perhaps another ld-master, has that port: choose another")
            }
            _ => None,
        }
    }
}

/// A line of the table.
#[derive(Clone, Copy)]
pub struct Line {
    /// [`Exporter::NAME`].
    pub name: &'static str,
    /// [`Exporter::START`].
    pub start: CommandSpec,
    /// [`Exporter::STOP`].
    pub stop: CommandSpec,
    /// [`Exporter::ABOUT`].
    pub about: &'static str,
    from_arguments: for<'a> fn(Map<String, Value>, &'a Site) -> Opening<'a>,
    from_flag: for<'a> fn(&str, &'a Site) -> Opening<'a>,
    check_flag: fn(&str) -> Result<(), String>,
}

/// An exporter that is being opened.
type Opening<'a> = Pin<Box<dyn Future<Output = Result<Opened, ExporterError>> + Send + 'a>>;

impl std::fmt::Debug for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Line").field(&self.name).finish()
    }
}

impl Line {
    const fn of<E: Exporter>() -> Self {
        Self {
            name: E::NAME,
            start: E::START,
            stop: E::STOP,
            about: E::ABOUT,
            from_arguments: |arguments, site| Box::pin(from_arguments::<E>(arguments, site)),
            from_flag: |text, site| {
                let exporter = E::from_flag(text).map_err(ExporterError::Refused);
                Box::pin(async move { exporter?.open(site).await })
            },
            check_flag: |text| E::from_flag(text).map(drop),
        }
    }

    /// Opens it as its command asks.
    pub async fn open(&self, arguments: Map<String, Value>, site: &Site) -> Result<Opened, ExporterError> {
        (self.from_arguments)(arguments, site).await
    }

    /// Opens it as a flag asks.
    pub async fn open_flag(&self, text: &str, site: &Site) -> Result<Opened, ExporterError> {
        (self.from_flag)(text, site).await
    }
}

async fn from_arguments<E: Exporter>(arguments: Map<String, Value>, site: &Site) -> Result<Opened, ExporterError> {
    let exporter: E =
        serde_json::from_value(Value::Object(arguments)).map_err(|error| ExporterError::Refused(error.to_string()))?;
    exporter.open(site).await
}

/// Every exporter.
pub const EXPORTERS: &[Line] = &[
    Line::of::<prometheus::Prometheus>(),
    Line::of::<influx::Influx>(),
    Line::of::<otlp::Otlp>(),
    Line::of::<statsd::StatsD>(),
];

/// What a flag `--export` asks for: `NAME=WHERE`.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The exporter.
    pub line: &'static Line,
    /// Where to, and how.
    pub text: String,
}

impl std::str::FromStr for Wanted {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, place) = text.split_once('=').unwrap_or((text, ""));
        let line = EXPORTERS.iter().find(|line| line.name == name).ok_or_else(|| {
            let known: Vec<_> = EXPORTERS.iter().map(|line| line.name).collect();
            format!("unknown exporter `{name}`; accepted: {}", known.join(", "))
        })?;
        (line.check_flag)(place)?;
        Ok(Self { line, text: place.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_name_an_exporter_and_a_place() {
        let good = [
            "prometheus",
            "prometheus=127.0.0.1:9646",
            "prometheus=[::1]:9646?linger=0s",
            "influx=udp://127.0.0.1:8089",
            "influx=http://u:p@h:8086/write?db=ld",
            "influx=https://h/api/v2/write?org=o&bucket=b",
            "otlp",
            "otlp=http://h:4317",
            "statsd=h:8125/prefix",
        ];
        for text in good {
            text.parse::<Wanted>().unwrap_or_else(|why| panic!("{text}: {why}"));
        }
        for text in ["", "graphite=h", "prometheus=9646", "influx=ftp://h", "influx", "statsd=h:x", "otlp=h:4317"] {
            assert!(text.parse::<Wanted>().is_err(), "{text}");
        }
        assert_eq!(
            "x=y".parse::<Wanted>().unwrap_err(),
            "unknown exporter `x`; accepted: prometheus, influx, otlp, statsd"
        );
    }

    #[test]
    fn commands_have_the_seed_s_names_and_parameters() {
        let shown: Vec<String> = EXPORTERS
            .iter()
            .flat_map(|line| [line.start, line.stop])
            .map(|spec| {
                let names: Vec<_> = spec.parameters.iter().filter(|p| p.positional).map(|p| p.name).collect();
                format!("{}({})", spec.name, names.join(", "))
            })
            .collect();
        assert_eq!(
            shown,
            [
                "LD_start_prometheus_exporter(port, addr)",
                "LD_stop_prometheus_exporter()",
                "LD_start_influxdb_sink(transport, host, port, url, token, measurement, timeout)",
                "LD_stop_influxdb_sink()",
                "LD_start_opentelemetry_exporter(endpoint, service_name, export_interval_ms)",
                "LD_stop_opentelemetry_exporter()",
                "LD_start_statsd_sink(host, port, prefix)",
                "LD_stop_statsd_sink()",
            ]
        );
    }
}
