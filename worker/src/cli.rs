//! The command line of `ld-worker`.

use crate::engine::Engine;
use crate::health::{self, Standing};
use crate::healthcheck::Question;
use crate::limits::load_files;
use crate::link::grpc::{Credentials, GrpcDial};
use crate::link::socket::Tcp;
use crate::link::trust::Tls;
use crate::link::{self, LoadMaker};
use crate::membership::{Exit, Options};
use crate::pages::{Completions, ManPages};
use crate::spool::{self, Folders, Shelves};
use clap::{ArgAction, CommandFactory as _, Parser, Subcommand, ValueEnum};
use ld_shared::boot::signal::Signals;
use ld_shared::boot::telemetry::{self, LogFormat};
use ld_shared::boot::version;
use ld_shared::handshake::{Fingerprint, Token};
use ld_shared::message::{Hello, PROTOCOL_VERSION};
use ld_shared::targets::{TargetList, TargetRule};
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, LazyLock};
use std::time::Duration;
use tokio::sync::{mpsc, watch};

static VERSION: LazyLock<String> =
    LazyLock::new(|| version::text(env!("CARGO_PKG_VERSION"), &format!("cluster protocol {PROTOCOL_VERSION}")));
const BUILD: &str = concat!("ld-worker ", env!("CARGO_PKG_VERSION"));
const EXAMPLES: &str = "\
Examples:
  ld-worker --master 10.0.0.10:5557            join, make load, end with the master
  ld-worker --master 10.0.0.10:5557 --stay     outlive the master: wait for the next one
  ld-worker --master host:5557 --cores 2 --name rack-7
  LD_TOKEN=… ld-worker --master host:5557 --ca-fingerprint sha256:…

Exit codes: 0 done, 130 ended by the user while it made load, 3 could not do its work, 2 wrong arguments";

/// Makes load for an `ld-master`: joins it, and needs nothing else.
#[derive(Clone, Debug, Parser)]
#[command(name = "ld-worker", version = VERSION.as_str(), after_help = EXAMPLES, subcommand_negates_reqs = true)]
pub struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// The master's address.
    #[arg(long, env = "LD_WORKER_MASTER", value_name = "HOST:PORT", value_parser = address, required = true)]
    pub master: Option<String>,
    /// The name under which it is shown [default: the host's name]
    #[arg(long, env = "LD_WORKER_NAME")]
    pub name: Option<String>,
    /// Load cores [default: all]
    #[arg(long, env = "LD_WORKER_CORES", value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub cores: Option<u32>,
    /// Stay when the master goes, and wait for the next one.
    #[arg(long, env = "LD_WORKER_STAY")]
    pub stay: bool,
    /// How long to go without hearing from a master: `60s`, `500ms`, `2m`.
    #[arg(long, env = "LD_WORKER_MASTER_TIMEOUT", default_value = "60s", value_name = "TIME", value_parser = duration)]
    pub master_timeout: Duration,
    /// `off` joins a master that was started with --tls off.
    #[arg(long, env = "LD_WORKER_TLS", value_enum, default_value_t = TlsSwitch::Auto)]
    pub tls: TlsSwitch,
    /// Trusts only the master whose certificate has this fingerprint, as it prints it [default: the first that is met]
    #[arg(long, env = "LD_WORKER_CA_FINGERPRINT", value_name = "sha256:…")]
    pub ca_fingerprint: Option<Fingerprint>,
    /// Certificate and key for a master that asks for one.
    #[arg(long, env = "LD_WORKER_TLS_CERT", value_name = "CERT,KEY", value_parser = pair_of_files)]
    pub tls_cert: Option<(PathBuf, PathBuf)>,
    /// The token that the master must know, in a file; else in `LD_TOKEN`.
    #[arg(long, env = "LD_WORKER_TOKEN_FILE", value_name = "FILE", value_parser = token_file)]
    pub token_file: Option<Token>,
    /// Dials nothing else, whatever the plan says: HOST or HOST:PORT, a pattern like *.example.com, an address or a
    /// network like 10.0.0.0/8. May be given several times.
    #[arg(long = "allow-target", env = "LD_WORKER_ALLOW_TARGET", value_name = "TARGET", value_delimiter = ',')]
    pub allow_targets: Vec<TargetRule>,
    /// Users, or open iterations of an open model, that it takes part for at most [default: what its open files allow].
    #[arg(long, env = "LD_WORKER_MAX_USERS", value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub max_users: Option<u64>,
    /// A folder for results that the master has not taken yet: memory need not hold them all while it is away, and
    /// what a worker that was killed leaves there the next one delivers.
    #[arg(long, env = "LD_WORKER_SPOOL", value_name = "DIR")]
    pub spool: Option<PathBuf>,
    /// Serves /healthz (it lives) and /readyz (it has joined a master; else 503 and why), without a token.
    #[arg(long, env = "LD_WORKER_WEB", value_name = "ADDRESS|off", value_parser = web, default_value = "off")]
    pub web: Web,
    /// Form of log lines.
    #[arg(long, env = "LD_WORKER_LOG", value_enum, default_value_t = Log::Text)]
    pub log: Log,
    /// Say more; twice: every message.
    #[arg(short, long, action = ArgAction::Count, env = "LD_WORKER_VERBOSE")]
    pub verbose: u8,
    /// Say nothing but errors.
    #[arg(short, long, conflicts_with = "verbose", env = "LD_WORKER_QUIET")]
    pub quiet: bool,
}

#[derive(Clone, Debug, Subcommand)]
enum Command {
    /// Asks a running worker how it is: exit code 0 if it is well, else 1 and why
    Healthcheck {
        /// What its --web is
        #[arg(long, env = "LD_WORKER_WEB", value_name = "ADDRESS|off", value_parser = web, default_value = DEFAULT_WEB)]
        web: Web,
        #[command(flatten)]
        question: Question,
    },
    /// Prints the completion script of a shell
    Completions(Completions),
    /// Writes the manual as man pages
    #[command(hide = true)]
    ManPages(ManPages),
}

/// Where health is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Web {
    /// Nowhere.
    Off,
    /// There.
    At(SocketAddr),
}

/// Where `healthcheck` asks.
const DEFAULT_WEB: &str = "127.0.0.1:8089";

/// Whether the way to the master is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TlsSwitch {
    /// It is.
    Auto,
    /// It is not.
    Off,
}

/// Form of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Log {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// `off` or an address.
pub fn web(text: &str) -> Result<Web, String> {
    if text == "off" {
        return Ok(Web::Off);
    }
    let address = text.parse().map(Web::At);
    address.map_err(|_| format!("an address with a port like {DEFAULT_WEB} is accepted, or `off`"))
}

/// `HOST:PORT`.
pub fn address(text: &str) -> Result<String, String> {
    let parts = text.rsplit_once(':').filter(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
    parts.map(|_| text.to_owned()).ok_or_else(|| "expected HOST:PORT, for example 10.0.0.10:5557".to_owned())
}

/// A token from a file.
pub fn token_file(path: &str) -> Result<Token, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("cannot read it: {error}"))?;
    Token::new(&text).ok_or_else(|| "it holds no token".to_owned())
}

/// `CERT,KEY`.
pub fn pair_of_files(text: &str) -> Result<(PathBuf, PathBuf), String> {
    let pair = text.split_once(',').filter(|(certificate, key)| !certificate.is_empty() && !key.is_empty());
    pair.map(|(certificate, key)| (certificate.into(), key.into()))
        .ok_or_else(|| "expected two PEM files with a comma between them: CERT,KEY".to_owned())
}

/// `10s`, `1.5m`, `500ms`, `2h`; a bare number is seconds.
pub fn duration(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    let unit_at = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let factor = match unit {
        "" | "s" => 1.0,
        "ms" => 1e-3,
        "m" | "min" => 60.0,
        "h" => 3_600.0,
        _ => return Err(format!("unknown unit `{unit}`; accepted: ms, s, m, h")),
    };
    let seconds = number.trim().parse::<f64>().ok().filter(|n| n.is_finite() && *n >= 0.0);
    let seconds = seconds.ok_or_else(|| "a time like 10s, 500ms or 2m is accepted".to_owned())? * factor;
    Duration::try_from_secs_f64(seconds).map_err(|_| "too long".to_owned())
}

/// Runs `ld-worker` with the process's arguments.
pub fn main() -> ExitCode {
    main_with::<Engine>()
}

/// [`main`] with another maker of load.
pub fn main_with<L: LoadMaker>() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(command) = &arguments.command {
        return aside(command);
    }
    let format = match arguments.log {
        Log::Text => LogFormat::Text,
        Log::Json => LogFormat::Json,
    };
    // joining, losing and leaving a master are what one wants to see of a worker
    let verbosity = match (arguments.quiet, arguments.verbose) {
        (true, _) => -1,
        (false, 0) => 1,
        (false, 1) => 2,
        (false, 2..) => 3,
    };
    if let Err(error) = telemetry::start(format, verbosity) {
        return fail(&format!(
            "{error}: {}",
            std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default()
        ));
    }
    let credentials = match credentials(&arguments) {
        Ok(credentials) => credentials,
        Err(text) => {
            writeln!(std::io::stderr(), "error: {text}").ok();
            return ExitCode::from(2);
        }
    };
    let (standing, watched) = watch::channel(Err("the master has not been dialled yet".to_owned()));
    if let Web::At(address) = arguments.web {
        match health::serve(address, watched) {
            Ok(bound) => tracing::info!("health is served on http://{bound}/healthz and /readyz"),
            Err(error) => return fail(&format!("cannot serve --web {address}: {error}; choose another, or `off`")),
        }
    }
    match run::<L>(arguments, credentials, standing) {
        Ok(Exit::Done(text)) => {
            tracing::info!("{text}");
            ExitCode::SUCCESS
        }
        Ok(Exit::Interrupted) => ExitCode::from(130),
        Ok(Exit::Failed(text)) => fail(&text),
        Err(error) => fail(&format!("cannot start: {error}")),
    }
}

/// What a worker's binary does beside working.
fn aside(command: &Command) -> ExitCode {
    let said = match command {
        Command::Healthcheck { web, question } => question.ask(match *web {
            Web::Off => None,
            Web::At(web) => Some(web),
        }),
        Command::Completions(completions) => written(completions.print(Arguments::command())),
        Command::ManPages(pages) => written(pages.write(Arguments::command())),
    };
    // nobody may be listening any more: the exit code says it too
    match said {
        Ok(text) => {
            if !text.is_empty() {
                writeln!(std::io::stdout(), "{text}").ok();
            }
            ExitCode::SUCCESS
        }
        Err(text) => {
            writeln!(std::io::stderr(), "{text}").ok();
            ExitCode::FAILURE
        }
    }
}

fn written(result: std::io::Result<()>) -> Result<String, String> {
    result.map(|()| String::new()).map_err(|error| format!("error: cannot write: {error}"))
}

fn fail(text: &str) -> ExitCode {
    // with a closed stderr the exit code still says it
    writeln!(std::io::stderr(), "error: {text}").ok();
    ExitCode::from(3)
}

/// How this worker knows the master, and the master it.
fn credentials(arguments: &Arguments) -> Result<Credentials, String> {
    #[expect(clippy::disallowed_methods, reason = "the environment is read here, at the edge")]
    let from_environment = || Token::new(&std::env::var("LD_TOKEN").ok()?);
    let token = arguments.token_file.clone().or_else(from_environment);
    if let Some(weakness) = token.as_ref().and_then(Token::weakness) {
        tracing::warn!("{weakness}");
    }
    let (pin, identity) = (arguments.ca_fingerprint, arguments.tls_cert.as_ref());
    if arguments.tls == TlsSwitch::Off {
        if pin.is_some() || identity.is_some() {
            return Err(
                "--tls off goes with neither --ca-fingerprint nor --tls-cert: without TLS there is no certificate"
                    .into(),
            );
        }
        tracing::warn!("--tls off: whoever sees the traffic reads plans and results, and can change them");
        return Ok(Credentials { tls: None, token });
    }
    let identity = identity.map(|(certificate, key)| (certificate.as_path(), key.as_path()));
    let tls = Tls::new(pin, identity).map_err(|error| error.to_string())?;
    Ok(Credentials { tls: Some(tls), token })
}

fn run<L: LoadMaker>(
    arguments: Arguments,
    credentials: Credentials,
    standing: watch::Sender<Standing>,
) -> std::io::Result<Exit> {
    let master = arguments.master.expect("clap requires it of whoever runs no subcommand");
    let all = std::thread::available_parallelism().map_or(1, std::num::NonZero::get) as u32;
    let hello = Hello {
        protocol: PROTOCOL_VERSION,
        build: BUILD.into(),
        name: arguments.name.unwrap_or_else(host_name),
        cores: arguments.cores.unwrap_or(all),
        returning: None,
    };
    let options = Options {
        hello,
        capacity: load_files().min(arguments.max_users.unwrap_or(u64::MAX)),
        stay: arguments.stay,
        master_timeout: arguments.master_timeout,
        master: master.clone(),
        targets: (!arguments.allow_targets.is_empty()).then_some(TargetList(arguments.allow_targets)),
        spool: arguments.spool.clone().map(|dir| Arc::new(Folders(dir)) as Arc<dyn Shelves>),
    };
    let spool = arguments.spool;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let exit = runtime.block_on(async {
        let mut signals = Signals::listen()?;
        let (signal, requests) = mpsc::channel(4);
        tokio::spawn(async move {
            let mut known = 0;
            loop {
                known = signals.beyond(known).await;
                if signal.send(()).await.is_err() {
                    return;
                }
            }
        });
        let dial = GrpcDial { master, credentials, connect: Tcp };
        if let Some(dir) = spool {
            let (own, dial) = (options.hello.clone(), dial.clone());
            tokio::spawn(async move {
                // it may be much to read
                if let Ok(left) = tokio::task::spawn_blocking(move || spool::find(&dir)).await {
                    link::heir::deliver(left, own, dial).await;
                }
            });
        }
        Ok(link::run::<L>(options, dial, requests, standing).await)
    });
    // a task that still waits, for example for a name look-up, must not hold the process
    runtime.shutdown_background();
    exit
}

/// Name of this machine, or `worker`.
pub fn host_name() -> String {
    #[cfg(unix)]
    let name = rustix::system::uname().nodename().to_str().ok().map(str::to_owned);
    #[cfg(not(unix))]
    let name: Option<String> = None;
    name.filter(|name| !name.is_empty()).unwrap_or_else(|| "worker".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_understood() {
        Arguments::command().debug_assert();
        let parsed = Arguments::try_parse_from(["ld-worker", "--master", "h:1", "--master-timeout", "500ms", "--stay"]);
        let parsed = parsed.unwrap();
        assert_eq!((parsed.master.as_deref(), parsed.master_timeout), (Some("h:1"), Duration::from_millis(500)));
        assert!(parsed.stay);
        for bad in ["h", ":1", "h:99999"] {
            assert!(Arguments::try_parse_from(["ld-worker", "--master", bad]).is_err(), "{bad}");
        }
        let good = [("10s", 10.0), ("500ms", 0.5), ("1.5m", 90.0), ("2min", 120.0), ("2h", 7_200.0), ("7", 7.0)];
        for (text, seconds) in good {
            assert_eq!(duration(text), Ok(Duration::from_secs_f64(seconds)));
        }
        for text in ["", "x", "-1s", "10 parsecs", "1e400s"] {
            assert!(duration(text).is_err(), "{text}");
        }
        assert!(VERSION.contains(&format!("protocol {PROTOCOL_VERSION}")));
    }

    #[test]
    fn only_work_needs_a_master() {
        assert!(Arguments::try_parse_from(["ld-worker"]).is_err());
        let parsed = Arguments::try_parse_from(["ld-worker", "healthcheck", "--web", "0.0.0.0:1", "--path", "/readyz"]);
        let Some(Command::Healthcheck { web, question }) = parsed.unwrap().command else { panic!("another command") };
        assert_eq!((web, question.path.as_str()), (Web::At("0.0.0.0:1".parse().unwrap()), "/readyz"));
        assert!(Arguments::try_parse_from(["ld-worker", "--master", "h:1", "--web", "8089"]).is_err());
    }
}
