//! `doctor`: what this machine can do, seen in three seconds.

use super::Global;
use super::session;
use crate::command::with_causes;
use crate::console::Console;
use crate::doctor::Machine;
use crate::format;
use crate::run::result::RunResult;
use crate::run::verdict::exit;
use crate::target::{Options, Target};
use serde_json::json;

/// Users of the run for the top rate.
const USERS: u64 = 50;

/// Looks, and prints what it saw.
pub(super) fn run(global: &Global, console: &Console) -> u8 {
    let mut advice = Vec::new();
    session::block_on(console, async |_| {
        let machine = Machine::look().await;
        machine.lines().iter().for_each(|line| console.print(&format!("{line}\n")));
        advice = machine.advice();
        exit::PASSED
    });
    let code = match top_rate(global) {
        Ok(result) => {
            console.print(&rate_lines(&result));
            exit::PASSED
        }
        Err(error) => {
            console.error(&format!("error: the run against the embedded target failed: {error}"));
            exit::NOT_RUN
        }
    };
    for line in &advice {
        console.print(&format!("advice: {line}\n"));
    }
    if advice.is_empty() {
        console.print("nothing to mend\n");
    }
    code
}

fn rate_lines(result: &RunResult) -> String {
    let lag = result.workers.iter().map(|w| w.lag_p99_ms).fold(0.0, f64::max);
    format!(
        "top rate     {} requests/s with {USERS} users, target and generator sharing the cores\n\
         own noise    scheduler lag p99 {} at that rate\n",
        format::rate(result.totals.requests_per_s),
        format::latency(lag)
    )
}

fn top_rate(global: &Global) -> Result<RunResult, String> {
    let target = Target::start(Options::default()).map_err(|error| with_causes(&error))?;
    let test = json!({
        "user_detail_dict": {"user": "fast_http_user"},
        "host": format!("http://{}", target.addr()),
        "user_count": USERS,
        "spawn_rate": USERS,
        "test_time": 2,
        "tasks": [{"name": "top rate", "method": "get", "request_url": "/"}],
    });
    let local = Global { bind: None, expected_workers: 0, ..global.clone() };
    session::measure(&local, json!([["LD_start_test", test]]).to_string().as_bytes())
}
