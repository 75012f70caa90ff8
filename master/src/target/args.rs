//! `ld-master target`: the target as a program.

use crate::target::{Law, Options, Stall, Target, TargetError, parse_duration};
use clap::Args;
use std::io::{self, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// Answers HTTP/1.1 with a stated latency law; logs and counts what arrived
///
/// A query overrides it for one request: ?ms=20, ?status=404, ?bytes=100. GET /__counts returns what
/// was counted, /__reset forgets it; these two are not counted themselves.
#[derive(Args, Clone, Debug)]
pub struct TargetArgs {
    /// Address to listen on; port 0 takes a free one. May be repeated
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:0")]
    pub listen: Vec<SocketAddr>,
    /// Delay of answers: 0, fixed:5ms, uniform:1ms..9ms, exp:5ms, lognormal:5ms,0.5. Timers have a grain of 1 ms;
    /// the delay really imposed is measured and returned by /__counts
    #[arg(long, value_name = "LAW", default_value = "0")]
    pub latency: Law,
    /// Answer nothing for a while: AT,LENGTH[,every=PERIOD], AT counted from the first request. May be repeated
    #[arg(long = "stall", value_name = "STALL")]
    pub stalls: Vec<Stall>,
    /// Share of requests answered with 503
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = parse_share)]
    pub fail: f64,
    /// Share of requests whose connection is reset instead of an answer
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = parse_share)]
    pub reset: f64,
    /// Size of answers
    #[arg(long, value_name = "BYTES", default_value_t = 2)]
    pub body: usize,
    /// Close each connection after this many requests
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub close_after: Option<u64>,
    /// Make one client wait longer, as in 10.0.0.3=100ms. May be repeated
    #[arg(long = "slow-client", value_name = "IP=DELAY", value_parser = parse_slow_client)]
    pub slow_clients: Vec<(IpAddr, Duration)>,
    /// One line an arrival: id, ns since start, client, method, path, status, planned delay in ns
    // not `--log`: that is the form of log lines, before and after every subcommand
    #[arg(id = "arrivals", long = "arrivals", value_name = "FILE")]
    pub log: Option<PathBuf>,
    /// One line an answer: id of its arrival, delay imposed in ns
    #[arg(long, value_name = "FILE")]
    pub answers: Option<PathBuf>,
    /// Speak TLS with a certificate made at start, and write that certificate to this file
    #[arg(long, value_name = "PEM")]
    pub tls_certificate: Option<PathBuf>,
    /// Seed of the latency law
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Threads; without it one a core
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
}

fn parse_share(text: &str) -> Result<f64, String> {
    let share: f64 = text.parse().map_err(|_| "a number from 0 to 1 is accepted".to_owned())?;
    if (0.0..=1.0).contains(&share) { Ok(share) } else { Err("a number from 0 to 1 is accepted".to_owned()) }
}

fn parse_slow_client(text: &str) -> Result<(IpAddr, Duration), String> {
    let (ip, by) = text.split_once('=').ok_or("IP=DELAY is accepted, as in 10.0.0.3=100ms")?;
    let ip: IpAddr = ip.parse().map_err(|_| format!("`{ip}` is no IP address"))?;
    Ok((ip.to_canonical(), parse_duration(by).map_err(|e| e.to_string())?))
}

impl From<&TargetArgs> for Options {
    fn from(args: &TargetArgs) -> Self {
        Self {
            listen: args.listen.clone(),
            latency: args.latency,
            stalls: args.stalls.clone(),
            fail: args.fail,
            reset: args.reset,
            body_bytes: args.body,
            close_after: args.close_after,
            slow_clients: args.slow_clients.clone(),
            log: args.log.clone(),
            answers: args.answers.clone(),
            tls: args.tls_certificate.is_some(),
            keep_arrivals: false,
            seed: args.seed,
            threads: args.threads.unwrap_or(0),
        }
    }
}

/// Runs a target until `stop` ends. Prints one line an address on stdout, `listening
/// http://127.0.0.1:8000`, once it answers there, and a JSON line of what arrived at the end.
///
/// Blocks; not from a task. `stop` is polled on a runtime of its own.
pub fn run(args: &TargetArgs, stop: impl Future<Output = ()>) -> Result<(), TargetError> {
    let waiter = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(TargetError::Start)?;
    let target = Target::start(args.into())?;
    if let (Some(path), Some(pem)) = (&args.tls_certificate, target.certificate()) {
        std::fs::write(path, pem).map_err(|source| TargetError::Log { path: path.clone(), source })?;
    }
    let scheme = if target.certificate().is_some() { "https" } else { "http" };
    let mut out = io::stdout().lock();
    for address in target.addresses() {
        writeln!(out, "listening {scheme}://{address}").map_err(TargetError::Start)?;
    }
    out.flush().map_err(TargetError::Start)?;
    drop(out);
    waiter.block_on(stop);
    let counts = target.stop()?;
    let text = serde_json::to_string(&counts).map_err(|e| TargetError::Start(e.into()))?;
    // whoever read the address may be gone by now
    writeln!(io::stdout(), "{text}")
        .or_else(|e| if e.kind() == io::ErrorKind::BrokenPipe { Ok(()) } else { Err(e) })
        .map_err(TargetError::Start)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        target: TargetArgs,
    }

    #[test]
    fn every_flag_reaches_the_options() {
        let line = "target --listen 127.0.0.1:0 --listen [::1]:0 --latency exp:5ms --stall 1s,2s --stall 9s,1s,every=5s \
            --fail 0.5 --reset 0.25 --body 9 --close-after 3 --slow-client ::ffff:10.0.0.3=100ms --seed 4 --threads 2";
        let options = Options::from(&Cli::try_parse_from(line.split_whitespace()).unwrap().target);
        assert_eq!(options.listen.len(), 2);
        assert_eq!(options.latency, Law::Exponential(Duration::from_millis(5)));
        assert_eq!(options.stalls.len(), 2);
        assert_eq!((options.body_bytes, options.close_after, options.seed, options.threads), (9, Some(3), 4, 2));
        assert_eq!(options.slow_clients, [("10.0.0.3".parse().unwrap(), Duration::from_millis(100))]);
        assert!((options.fail - 0.5).abs() < 1e-9 && (options.reset - 0.25).abs() < 1e-9);
    }

    #[test]
    fn shares_beyond_one_and_nonsense_are_refused() {
        for line in ["--fail 2", "--fail x", "--reset -1", "--slow-client 10.0.0.3", "--close-after 0", "--stall 1s"] {
            assert!(Cli::try_parse_from(std::iter::once("target").chain(line.split_whitespace())).is_err(), "{line}");
        }
    }
}
