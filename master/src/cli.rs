//! The command line.

mod aside;
mod bench;
mod demo;
mod doctor;
mod documents;
pub(crate) mod init;
mod lint;
mod mcp;
mod open;
mod runs;
mod serve;
mod session;
mod web;

use crate::cluster::{ClusterOptions, Security, TlsMode};
use crate::command::{Commands, with_causes};
use crate::console::Console;
use crate::data_dir::DataDir;
use crate::exporter::Wanted;
use crate::remote::{Access, Caps, Policy};
use crate::run::verdict::exit;
use crate::schema;
use crate::script::Strictness;
use crate::store::history::History;
use crate::target::{self, TargetArgs};
use clap::{ArgAction, Args, CommandFactory as _, Parser, Subcommand, ValueEnum};
use ld_shared::boot::signal::Signals;
use ld_shared::boot::telemetry::{self, LogFormat};
use ld_shared::boot::version;
use ld_shared::handshake::Token;
use ld_shared::message::PROTOCOL_VERSION;
use ld_shared::targets::{TargetList, TargetRule};
use ld_worker::cli::{Web, duration};
use ld_worker::healthcheck::Question;
use ld_worker::pages::{Completions, ManPages};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Duration;

/// Version of the program and of the protocol that it speaks with workers.
static VERSION: LazyLock<String> =
    LazyLock::new(|| version::text(env!("CARGO_PKG_VERSION"), &format!("cluster protocol {PROTOCOL_VERSION}")));

const EXAMPLES: &str = "\
Examples:
  ld-master demo                                 target, run and HTML report; no network needed
  ld-master run test.json --html report.html     the document's tests on this machine
  ld-master bench http://127.0.0.1:8080/         50 users for 10 s
  ld-master bench URL --rate 500 --duration 1m   500 requests/s, whatever the target does
  ld-master --expected-workers 4 run test.json   waits for 4 × `ld-worker --master THIS:5557`

Exit codes: 0 passed, 1 failed, 2 input refused, 3 could not run,
            4 inconclusive, 130 ended by the user";

/// Load tests that can be believed: plans, shares out, measures, judges
#[derive(Debug, Parser)]
#[command(name = "ld-master", version = VERSION.as_str(), after_help = EXAMPLES, max_term_width = 100)]
#[command(args_conflicts_with_subcommands = false)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(flatten)]
    seed: SeedFlags,
    #[command(subcommand)]
    command: Option<Command>,
}

/// Flags that may stand before or after the subcommand.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// Where workers connect. Without this flag and without --expected-workers no port is bound by a run
    #[arg(long, global = true, value_name = "ADDRESS", env = "LD_MASTER_BIND")]
    bind: Option<SocketAddr>,
    /// Where the HTTP API is served. Without this flag: 127.0.0.1:8089 if no subcommand is given, else nowhere
    #[arg(long, global = true, value_name = "ADDRESS|off", value_parser = ld_worker::cli::web, env = "LD_MASTER_WEB")]
    web: Option<Web>,
    /// Runs on this many workers, and waits for them; 0: documents run in this process
    #[arg(long, global = true, value_name = "N", default_value_t = 0, env = "LD_MASTER_EXPECTED_WORKERS")]
    expected_workers: u32,
    /// How long to wait for them
    #[arg(long, global = true, value_name = "TIME", default_value = "60s", value_parser = duration, env = "LD_MASTER_WAIT")]
    wait: Duration,
    /// Cores that make load in this process; without it all that the process may use
    #[arg(long, global = true, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), env = "LD_MASTER_CORES")]
    cores: Option<u32>,
    /// Folder of what outlives the process: every run is kept there for `runs`. Without it a folder of the user's
    #[arg(long, global = true, value_name = "DIR", env = "LD_MASTER_DATA_DIR")]
    data_dir: Option<PathBuf>,
    /// Protection of the port for workers: `auto` makes a certificate once and keeps it in --data-dir, `off` is
    /// for nobody but you, or files of your own
    #[arg(long, global = true, value_name = "auto|off|CERT,KEY", default_value = "auto", value_parser = parse_tls, env = "LD_MASTER_TLS")]
    tls: TlsMode,
    /// Only workers with a certificate of this authority may join
    #[arg(long, global = true, value_name = "CA", env = "LD_MASTER_TLS_CLIENT_CA")]
    tls_client_ca: Option<PathBuf>,
    /// The token of workers, the HTTP API and the Prometheus page, in a file; else in `LD_TOKEN`
    #[arg(long, global = true, value_name = "FILE", value_parser = ld_worker::cli::token_file, env = "LD_MASTER_TOKEN_FILE")]
    token_file: Option<Token>,
    /// The worker in this process dials nothing else, and callers from outside may name nothing else (without it:
    /// loopback): HOST[:PORT], a pattern like *.example.com, an address or a network like 10.0.0.0/8. May be given
    /// several times
    #[arg(
        long = "allow-target",
        global = true,
        value_name = "TARGET",
        value_delimiter = ',',
        env = "LD_MASTER_ALLOW_TARGET"
    )]
    allow_targets: Vec<TargetRule>,
    /// Environment variables that ${env.NAME} may read in documents from outside (API, MCP, socket)
    #[arg(long = "allow-env", global = true, value_name = "NAME", value_delimiter = ',', env = "LD_MASTER_ALLOW_ENV")]
    allow_env: Vec<String>,
    /// Most users at once of a test from outside
    #[arg(long, global = true, value_name = "N", default_value_t = Caps::default().users, env = "LD_MASTER_MAX_USERS")]
    max_users: u64,
    /// Most iterations per second of a test from outside
    #[arg(long, global = true, value_name = "RATE", default_value_t = Caps::default().rate, env = "LD_MASTER_MAX_RATE")]
    max_rate: f64,
    /// Longest test from outside
    #[arg(long, global = true, value_name = "TIME", default_value = "1h", value_parser = duration, env = "LD_MASTER_MAX_TIME")]
    max_time: Duration,
    /// Sends metrics elsewhere while tests run: prometheus[=ADDRESS], influx=udp://HOST:PORT, influx=URL, otlp[=URL],
    /// statsd[=HOST:PORT]. May be given several times
    #[arg(long = "export", global = true, value_name = "NAME=WHERE", value_delimiter = ',', env = "LD_MASTER_EXPORT")]
    exports: Vec<Wanted>,
    /// Runs are not kept: this is no test of anybody's.
    #[arg(skip)]
    unsaved: bool,
    /// What SIGTERM does to a run: `end` lets open requests finish and writes everything; `leave` ends this process on
    /// the spot, and the same command on the same --data-dir, which it needs, takes the run up
    #[arg(long, global = true, value_name = "WHAT", default_value = "end", env = "LD_MASTER_ON_TERMINATE")]
    on_terminate: OnTerminate,
    /// Form of log lines
    #[arg(long, global = true, value_name = "FORM", default_value = "text", env = "LD_MASTER_LOG")]
    log: Form,
    /// Logs more; twice: messages, three times: everything
    #[arg(short, long, global = true, action = ArgAction::Count, env = "LD_MASTER_VERBOSE")]
    verbose: u8,
    /// Says nothing on stderr but errors
    #[arg(short, long, global = true, conflicts_with = "verbose", env = "LD_MASTER_QUIET")]
    quiet: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum OnTerminate {
    End,
    Leave,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Form {
    Text,
    Json,
}

/// Flags of the seed that stand for subcommands.
#[derive(Args, Debug)]
struct SeedFlags {
    #[arg(short = 'e', long = "execute_file", id = "execute_file", hide = true, value_name = "FILE")]
    file: Option<PathBuf>,
    #[arg(short = 'd', long = "execute_dir", id = "execute_dir", hide = true, value_name = "DIR")]
    dir: Option<PathBuf>,
    #[arg(long = "execute_str", id = "execute_str", hide = true, value_name = "JSON")]
    text: Option<String>,
    #[arg(short = 'c', long = "create_project", id = "create_project", hide = true, value_name = "PATH")]
    project: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs an action document
    Run {
        /// The document
        file: PathBuf,
        #[command(flatten)]
        outputs: Outputs,
    },
    /// Runs an action document given as text
    RunStr {
        /// The document
        json: String,
        #[command(flatten)]
        outputs: Outputs,
    },
    /// Runs every .json file below a folder in order of names, after checking all of them
    RunDir {
        /// The folder
        dir: PathBuf,
        #[command(flatten)]
        outputs: Outputs,
    },
    /// Writes a project that runs: documents, data, scripts, a schema for editors
    Init {
        /// Its folder, made if it is missing
        path: PathBuf,
        /// Overwrites files that are there
        #[arg(long)]
        force: bool,
    },
    /// Shows every fault of documents at once, without running anything
    Lint {
        /// The documents
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// Findings as JSON lines on stdout: {"file", "severity", "pointer", "message", "help"}
        #[arg(long)]
        json: bool,
    },
    /// Prints the JSON Schema of action documents, for editors and other checkers
    Schema,
    /// Loads one URL
    Bench {
        #[command(flatten)]
        bench: bench::Bench,
        #[command(flatten)]
        outputs: ReportFiles,
    },
    /// Starts a target, runs a test against it for 10 s and writes an HTML report
    Demo {
        #[command(flatten)]
        outputs: ReportFiles,
    },
    /// Runs that were kept: lists, shows and compares them
    Runs {
        #[command(subcommand)]
        action: runs::Action,
    },
    /// Stays up with the control socket, over which documents are run
    Serve(serve::Serve),
    /// Serves assistants over stdin and stdout by the Model Context Protocol; this process is the master
    Mcp(mcp::Mcp),
    /// The embedded target on its own: answers with a stated latency law, logs and counts what arrived
    Target(TargetArgs),
    /// Limits of this machine, its own noise, and its top rate against the embedded target
    Doctor,
    /// Asks a running master, at --web, how it is: exit code 0 if it is well, else 1 and why
    Healthcheck(Question),
    /// Prints the completion script of a shell
    Completions(Completions),
    /// Writes the manual as man pages
    #[command(hide = true)]
    ManPages(ManPages),
    /// Makes a folder and gives it to a user: for containers, whose images have no shell
    #[command(hide = true)]
    PrepareDir(aside::PrepareDir),
}

/// Files that show the result.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct ReportFiles {
    /// Writes the result of all tests as JSON
    #[arg(long, value_name = "OUT.json")]
    pub summary: Option<PathBuf>,
    /// Writes the HTML report of all tests
    #[arg(long, value_name = "OUT.html")]
    pub html: Option<PathBuf>,
}

/// Everything that a document's run may write.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Outputs {
    #[command(flatten)]
    pub files: ReportFiles,
    /// Writes one JSON line per action: {"index", "command", "ok", "value"} or, failed, "error"; - is stdout
    #[arg(long, value_name = "OUT.jsonl|-")]
    pub results: Option<PathBuf>,
    /// Where ${secret.NAME} comes from: a JSON object, or lines NAME=VALUE; else from `LD_SECRET_NAME`
    #[arg(long, value_name = "FILE")]
    pub secrets: Option<PathBuf>,
    /// Runs what the seed would run: what it passes over is a warning, other faults fail their action
    #[arg(long)]
    pub lenient: bool,
}

impl Outputs {
    /// How documents are taken.
    fn strictness(&self) -> Strictness {
        if self.lenient { Strictness::Lenient } else { Strictness::Strict }
    }
}

/// Parses the command line and does what it says. Returns the exit code.
pub fn run() -> u8 {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // to stderr, or to stdout for --help and --version; there is nowhere to report a failure
            drop(error.print());
            return if error.use_stderr() { exit::REFUSED } else { exit::PASSED };
        }
    };
    let global = cli.global;
    let verbosity = if global.quiet { -1 } else { i8::try_from(global.verbose).unwrap_or(i8::MAX) };
    let form = if matches!(global.log, Form::Json) { LogFormat::Json } else { LogFormat::Text };
    let console = Console::new(global.quiet);
    if let Err(error) = telemetry::start(form, verbosity) {
        console.error(&format!("error: {}", with_causes(&error)));
        return exit::REFUSED;
    }
    if global.tls == TlsMode::Off && global.tls_client_ca.is_some() {
        console.error("error: --tls off goes with no --tls-client-ca: without TLS nobody shows a certificate");
        return exit::REFUSED;
    }
    match cli.command {
        Some(Command::Run { file, outputs }) => documents::run_file(&global, console, &file, &outputs),
        Some(Command::RunStr { json, outputs }) => documents::run_text(&global, console, &json, &outputs),
        Some(Command::RunDir { dir, outputs }) => documents::run_dir(&global, console, &dir, &outputs),
        Some(Command::Init { path, force }) => init::run(&console, &path, force),
        Some(Command::Lint { files, json }) => lint::run(&console, &files, json),
        Some(Command::Schema) => {
            console.lines(&schema::text(&Commands::default()));
            exit::PASSED
        }
        Some(Command::Bench { bench, outputs }) => bench::run(&global, console, &bench, outputs),
        Some(Command::Demo { outputs }) => demo::run(&global, console, outputs),
        Some(Command::Runs { action }) => runs::run(&global, &console, action),
        Some(Command::Serve(serve)) => serve::run(&global, console, &serve),
        Some(Command::Mcp(mcp)) => mcp::run(&global, console, &mcp),
        Some(Command::Target(args)) => run_target(&console, &args),
        Some(Command::Doctor) => doctor::run(&global, &console),
        Some(Command::Healthcheck(question)) => aside::healthcheck(&global, &console, &question),
        Some(Command::Completions(completions)) => aside::written(&console, completions.print(Cli::command())),
        Some(Command::ManPages(pages)) => aside::written(&console, pages.write(Cli::command())),
        Some(Command::PrepareDir(folder)) => aside::written(&console, folder.prepare()),
        None => seed_flags(&global, &console, &cli.seed),
    }
}

/// The seed's flags in the seed's order; without any the master stays up.
fn seed_flags(global: &Global, console: &Console, seed: &SeedFlags) -> u8 {
    let mut codes = Vec::new();
    let quiet = global.quiet;
    let outputs = Outputs::default();
    if let Some(file) = &seed.file {
        codes.push(documents::run_file(global, Console::new(quiet), file, &outputs));
    }
    if let Some(dir) = &seed.dir {
        codes.push(documents::run_dir(global, Console::new(quiet), dir, &outputs));
    }
    if let Some(json) = &seed.text {
        codes.push(documents::run_text(global, Console::new(quiet), json, &outputs));
    }
    if let Some(path) = &seed.project {
        codes.push(init::run(console, path, false));
    }
    codes.into_iter().reduce(exit::worse).unwrap_or_else(|| stay_up(global))
}

fn run_target(console: &Console, args: &TargetArgs) -> u8 {
    let stop = async {
        match Signals::listen() {
            Ok(mut signals) => {
                signals.beyond(0).await;
            }
            Err(error) => tracing::error!(%error, "cannot listen for signals"),
        }
    };
    match target::run(args, stop) {
        Ok(()) => exit::PASSED,
        Err(error) => {
            console.error(&format!("error: {}", with_causes(&error)));
            exit::NOT_RUN
        }
    }
}

/// Stays up: workers may join, and tests are started from outside, one document at a time, each on the
/// workers that are there then: at least as many as are expected, at least one.
fn stay_up(global: &Global) -> u8 {
    let bind = global.bind.unwrap_or(DEFAULT_BIND);
    let options = ClusterOptions { bind: Some(bind), local_cores: None, ..global.cluster() };
    open::with_app(global, options, Console::new(global.quiet), Some(web::DEFAULT), async |app, mut signals| {
        app.console.note(&format!("listening for workers on {bind}; Ctrl-C ends"));
        signals.beyond(0).await;
        app.end_jobs().await;
        exit::PASSED
    })
}

const DEFAULT_BIND: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), 5557);

impl Global {
    /// Where runs are kept; `None` if neither a flag nor the environment says.
    fn history(&self) -> Option<History> {
        self.data_dir().map(|dir| History::new(dir.root().to_owned()))
    }

    /// The folder of what outlives the process; `None` if neither a flag nor the environment says.
    fn data_dir(&self) -> Option<DataDir> {
        self.data_dir.clone().map(DataDir::new).or_else(|| DataDir::of_user(environment))
    }

    /// Load cores of this process: none if workers are expected, for they make the load.
    fn local_cores(&self) -> Option<usize> {
        let all = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        (self.expected_workers == 0).then(|| self.cores.map_or(all, |cores| cores as usize))
    }

    /// What callers from outside may do: files lie below the working folder.
    fn policy(&self) -> std::io::Result<Policy> {
        let mut policy = Policy::narrow(std::env::current_dir()?);
        if !self.allow_targets.is_empty() {
            policy.targets = TargetList(self.allow_targets.clone());
        }
        policy.env.clone_from(&self.allow_env);
        policy.caps = Caps { users: self.max_users, rate: self.max_rate, time: self.max_time };
        Ok(policy)
    }

    /// The token that every surface wants.
    fn token(&self) -> Option<Token> {
        self.token_file.clone().or_else(|| Token::new(&environment("LD_TOKEN")?))
    }

    /// The token of those who may only look.
    fn viewer_token() -> Option<Token> {
        Token::new(&environment("LD_VIEWER_TOKEN")?)
    }

    /// Who may look at what exporters show, and those that are to be started.
    fn exports(&self) -> (Access, &[Wanted]) {
        (Access { token: self.token(), viewer: Self::viewer_token() }, &self.exports)
    }

    /// What the cluster is opened with: a port only if workers are expected or a port was named.
    fn cluster(&self) -> ClusterOptions {
        ClusterOptions {
            bind: self.bind.or((self.expected_workers > 0).then_some(DEFAULT_BIND)),
            local_cores: self.local_cores(),
            expected_workers: self.expected_workers.max(1),
            wait: self.wait,
            security: Security {
                tls: self.tls.clone(),
                client_ca: self.tls_client_ca.clone(),
                token: self.token(),
                data_dir: self.data_dir(),
                targets: (!self.allow_targets.is_empty()).then(|| TargetList(self.allow_targets.clone())),
            },
        }
    }
}

/// An environment variable of the master, for `${env.NAME}`.
#[expect(clippy::disallowed_methods, reason = "the environment is read here, at the edge")]
pub(crate) fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// `auto`, `off` or `CERT,KEY`.
fn parse_tls(text: &str) -> Result<TlsMode, String> {
    match text {
        "auto" => Ok(TlsMode::Auto),
        "off" => Ok(TlsMode::Off),
        files => {
            let (certificate, key) = ld_worker::cli::pair_of_files(files)?;
            Ok(TlsMode::Files { certificate, key })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_of_everything() {
        Cli::command().debug_assert();
        let mut command = Cli::command().term_width(100);
        command.build();
        let mut text = vec![command.render_help().to_string()];
        for subcommand in command.get_subcommands_mut() {
            let name = subcommand.get_name().to_owned();
            if name != "help" && name != "target" {
                text.push(format!("==== {name}\n{}", subcommand.clone().term_width(100).render_help()));
            }
        }
        insta::assert_snapshot!("help", text.join("\n"));
    }

    #[test]
    fn global_flags_stand_before_or_after() {
        for line in ["ld-master --expected-workers 2 run x.json", "ld-master run x.json --expected-workers 2"] {
            let cli = Cli::try_parse_from(line.split(' ')).unwrap();
            assert_eq!(cli.global.cluster().bind, Some(DEFAULT_BIND), "{line}");
        }
        let alone = Cli::try_parse_from(["ld-master", "run", "x.json", "--cores", "3"]).unwrap().global.cluster();
        assert_eq!((alone.bind, alone.local_cores), (None, Some(3)), "no port without workers, and load from here");
    }

    #[test]
    fn flags_of_subcommands_are_not_those_of_all() {
        let line = ["ld-master", "target", "--arrivals", "a.log", "--seed", "3", "--log", "json", "-v"];
        let cli = Cli::try_parse_from(line).unwrap();
        assert!(matches!(cli.global.log, Form::Json));
        let Some(Command::Target(args)) = cli.command else { panic!("{:?}", cli.command) };
        assert_eq!((args.log, args.seed), (Some("a.log".into()), 3));
    }

    #[test]
    fn where_the_api_is_served() {
        let web = |text: &str| Cli::try_parse_from(["ld-master", "--web", text, "demo"]).map(|cli| cli.global.web);
        assert_eq!(web("off").unwrap(), Some(Web::Off));
        assert_eq!(web("[::1]:8089").unwrap(), Some(Web::At("[::1]:8089".parse().unwrap())));
        assert!(web("8089").is_err());
    }
}
