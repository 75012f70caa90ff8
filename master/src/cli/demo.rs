//! `demo`: a target, a run against it, a report to look at. No network needed.

use super::session::{self, Source};
use super::{Global, Outputs, ReportFiles};
use crate::command::with_causes;
use crate::console::Console;
use crate::run::verdict::exit;
use crate::target::{Law, Options, Target};
use serde_json::json;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// The report, unless `--html` says otherwise.
const REPORT: &str = "loaddensity-demo.html";

/// Runs it.
pub(super) fn run(global: &Global, console: Console, files: ReportFiles) -> u8 {
    let latency = Law::LogNormal(Duration::from_millis(8), 0.5);
    let target = match Target::start(Options { latency, body_bytes: 512, ..Options::default() }) {
        Ok(target) => target,
        Err(error) => {
            console.error(&format!("error: {}", with_causes(&error)));
            return exit::NOT_RUN;
        }
    };
    console.note(&format!("target: http://{}, answers after 8 ms (median, log-normal)", target.addr()));
    let html = files.html.unwrap_or_else(|| PathBuf::from(REPORT));
    let report = std::path::absolute(&html).unwrap_or_else(|_| html.clone());
    let source = Source {
        name: "the demo".into(),
        label: Some("LoadDensity demo".into()),
        content: document(target.addr()),
        shown: false,
    };
    let outputs = Outputs { files: ReportFiles { html: Some(html), ..files }, ..Outputs::default() };
    let said = Console::new(global.quiet);
    let unsaved = Global { unsaved: true, ..global.clone() };
    let code = session::run(&unsaved, console, vec![source], &outputs);
    drop(target);
    if report.exists() {
        said.note(&format!("look at it: file://{}", report.display()));
    }
    code
}

/// A shop: four pages of which some are slower than others.
fn document(target: SocketAddr) -> Vec<u8> {
    let task = |name: &str, method: &str, path: &str| json!({"name": name, "method": method, "request_url": path});
    let test = json!({
        "user_detail_dict": {"user": "fast_http_user"},
        "host": format!("http://{target}"),
        "user_count": 60,
        "spawn_rate": 20,
        "test_time": "10s",
        "wait_time": [0.05, 0.25],
        "tasks": [
            task("home", "get", "/"),
            task("search", "get", "/search?ms=30"),
            task("add to cart", "post", "/cart"),
            task("checkout", "post", "/checkout?ms=75"),
        ],
        "thresholds": ["p95 < 500ms", "failure_rate < 1%"],
    });
    json!([["LD_start_test", test]]).to_string().into_bytes()
}
