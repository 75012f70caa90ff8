//! Logs of both binaries: on stderr, and in a file on request.

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal as _};
use std::path::PathBuf;
use std::sync::Mutex;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer};

/// Form of log lines on stderr.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// The log file that was asked for cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot open the log file `{}` of {VARIABLE}", path.display())]
pub struct LogFileError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// Names the log file, as the seed's releases do; an empty value is as if unset.
const VARIABLE: &str = "LOAD_DENSITY_LOG_FILE";

/// Starts logging. `verbosity`: −1 errors only, 0 warnings, 1 what happens, 2 messages, 3 everything.
/// The variable `LD_LOG` (`info,ld_master::cluster=debug`) overrides it. The file that
/// `LOAD_DENSITY_LOG_FILE` names gets what happens (and what `verbosity` asks for beyond that),
/// appended as `time | logger | LEVEL | message`.
///
/// Called once; a second call changes nothing.
///
/// # Errors
///
/// The log file cannot be opened; then nothing is logged.
pub fn start(format: LogFormat, verbosity: i8) -> Result<(), LogFileError> {
    let level = match verbosity {
        ..0 => LevelFilter::ERROR,
        0 => LevelFilter::WARN,
        1 => LevelFilter::INFO,
        2 => LevelFilter::DEBUG,
        3.. => LevelFilter::TRACE,
    };
    let filter = |least: LevelFilter| {
        EnvFilter::builder().with_default_directive(least.into()).with_env_var("LD_LOG").from_env_lossy()
    };
    let stderr = tracing_subscriber::fmt::layer().with_writer(io::stderr).with_ansi(io::stderr().is_terminal());
    let stderr = match format {
        LogFormat::Text => stderr.with_target(false).boxed(),
        LogFormat::Json => stderr.json().boxed(),
    };
    let file = log_file()?.map(|file| {
        let lines = tracing_subscriber::fmt::layer().with_ansi(false).event_format(Lines).with_writer(Mutex::new(file));
        lines.with_filter(filter(level.max(LevelFilter::INFO)))
    });
    let started = tracing_subscriber::registry().with(stderr.with_filter(filter(level))).with(file).try_init();
    if let Err(error) = started {
        tracing::debug!(%error, "logging was started before");
    }
    Ok(())
}

fn log_file() -> Result<Option<File>, LogFileError> {
    let Some(path) = std::env::var_os(VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from) else {
        return Ok(None);
    };
    let file = OpenOptions::new().create(true).append(true).open(&path);
    file.map(Some).map_err(|source| LogFileError { path, source })
}

/// The seed's form of a line.
struct Lines;

impl<S, N> FormatEvent<S, N> for Lines
where
    S: tracing::Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &tracing::Event<'_>,
    ) -> std::fmt::Result {
        SystemTime.format_time(&mut writer)?;
        write!(writer, " | {} | {} | ", event.metadata().target(), event.metadata().level())?;
        context.format_fields(writer.by_ref(), event)?;
        writeln!(writer)
    }
}
