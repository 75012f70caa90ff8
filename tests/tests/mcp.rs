//! MCP: the official Python client with every tool, a client of the seed's time, and what is no message.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use ld_master::target::{Options, Target};
use ld_tests::binaries::{binary, python, test_file};
use ld_tests::process::{Process, command};
use ld_tests::wait::{PATIENCE, under_load, wait_for};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// A client that writes lines by hand.
struct Talk {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Talk {
    fn start(folder: &Path, flags: &[&str]) -> Self {
        let mut command = command("ld-master", folder);
        command.arg("mcp").args(flags).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let (input, output) = (child.stdin.take(), BufReader::new(child.stdout.take().unwrap()));
        Self { child, input, output }
    }

    fn say(&mut self, line: &str) {
        writeln!(self.input.as_mut().unwrap(), "{line}").unwrap();
    }

    /// The next line: JSON, like everything on stdout.
    fn hear(&mut self) -> Option<Value> {
        let mut line = String::new();
        let read = self.output.read_line(&mut line).unwrap();
        (read > 0).then(|| serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}")))
    }

    fn ask(&mut self, request: &Value) -> Value {
        self.say(&request.to_string());
        self.hear().unwrap()
    }

    fn initialize(&mut self, version: &str) -> Value {
        let client = json!({"name": "by hand", "version": "0"});
        let params = json!({"protocolVersion": version, "capabilities": {}, "clientInfo": client});
        self.ask(&json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params}))
    }

    /// Waits for its end; gives the exit code.
    fn end(&mut self) -> Option<i32> {
        wait_for("the end of ld-master mcp", PATIENCE, || self.child.try_wait().unwrap()).code()
    }
}

impl Drop for Talk {
    fn drop(&mut self) {
        // it may have ended by itself, which is as good
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn call(id: u32, tool: &str, arguments: &Value) -> Value {
    let params = json!({"name": tool, "arguments": arguments});
    json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params})
}

fn test(target: &Target, seconds: u32) -> Value {
    json!({
        "user_detail_dict": {"user": "fast_http_user"}, "user_count": 1, "spawn_rate": 10, "test_time": seconds,
        "tasks": [{"method": "get", "request_url": format!("http://{}/", target.addr()), "name": "g"}],
    })
}

#[test]
fn the_official_client_calls_every_tool() {
    let Some(python) = python() else {
        ld_tests::skip("no Python environment: tests/run makes one");
        return;
    };
    let target = Target::start(Options::default()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().canonicalize().unwrap();
    let mut client = Command::new(python);
    client.arg(test_file("py/mcp_client.py")).arg(binary("ld-master")).arg(&root);
    client.arg(format!("http://{}/", target.addr()));
    let finished = Process::start("mcp_client.py", client).wait(PATIENCE);
    finished.expect_code(0);
    let seen: Value = serde_json::from_str(finished.stdout.lines().last().unwrap()).unwrap();
    assert_eq!(seen["server"], json!(["loaddensity", env!("CARGO_PKG_VERSION")]));
    let run = &seen["run"];
    // on a machine that others use too the generator may be the limit
    let outcome = run["verdict"]["outcome"].as_str().unwrap();
    assert!(run["user_count"] == 2 && ["passed", "inconclusive"].contains(&outcome), "{run}");
    // each second or so, ever farther, with the end in view
    let told = seen["progress"].as_array().unwrap();
    assert!(told.len() >= 2, "{told:?}");
    assert!(told.windows(2).all(|pair| pair[0][0].as_f64() < pair[1][0].as_f64()), "{told:?}");
    assert!(told.iter().all(|told| told[1].as_f64() >= Some(3.2)), "{told:?}");
    assert!(told.iter().all(|told| told[2].as_str().is_some_and(|text| text.contains("requests/s"))), "{told:?}");
    assert_eq!(seen["stopped"]["exit_code"], json!(130), "{}", seen["stopped"]);
    assert_eq!((&seen["cancelled"]["state"], &seen["cancelled"]["exit_code"]), (&json!("finished"), &json!(130)));
    let errors: Vec<&str> = seen["errors"].as_array().unwrap().iter().map(|e| e.as_str().unwrap()).collect();
    let expected = ["nofile.har", "database_path", "outside", "--max-users", "", "not open", "outside", "no job 999"];
    for (error, part) in errors.iter().zip(expected) {
        assert!(error.contains(part) && error.contains(": "), "no `{part}` in `{error}`");
    }
    assert!(seen["unknown"].as_str().unwrap().contains("unknown tool: nope"));
    assert!(seen["over_the_cap"].as_str().unwrap().contains("--max-users"));
    assert!(seen["resources"].as_array().unwrap().len() > 6);
    let audit = std::fs::read_to_string(root.join("audit.jsonl")).unwrap();
    let lines: Vec<Value> = audit.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.len() > 25 && lines.iter().any(|line| line["ok"] == false), "{audit}");
    assert!(lines.iter().all(|line| line["client"].is_string() && line["tool"].is_string() && line["ms"].is_u64()));
}

#[test]
fn a_client_of_the_seeds_time_and_what_is_no_message() {
    let target = Target::start(Options::default()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut talk = Talk::start(folder.path(), &[]);
    let code = |answer: &Value| (answer["id"].clone(), answer["error"]["code"].as_i64());
    // before the introduction nothing that is said ends the process
    talk.say(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#);
    talk.say("{bad json");
    assert_eq!(code(&talk.hear().unwrap()), (Value::Null, Some(-32700)));
    assert!(talk.ask(&json!({"jsonrpc": "2.0", "id": 9, "method": "tools/list"}))["error"]["code"].is_i64());
    let hello = talk.initialize("2024-11-05");
    assert_eq!(hello["result"]["protocolVersion"], "2024-11-05");
    assert_eq!(hello["result"]["serverInfo"]["name"], "loaddensity");
    talk.say(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#);
    assert_eq!(
        talk.ask(&json!({"jsonrpc": "2.0", "id": 3, "method": "ping"})),
        json!({"jsonrpc": "2.0", "id": 3, "result": {}})
    );
    let wrong = [
        ("{bad json", Value::Null, -32700),
        ("\u{1}\u{2}", Value::Null, -32700),
        (r#"{"jsonrpc": "1.0", "id": 21, "method": "ping"}"#, Value::Null, -32600),
        ("[]", Value::Null, -32600),
        (r#"{"jsonrpc": "2.0", "id": 22, "method": "tools/call", "params": []}"#, json!(22), -32602),
        (r#"{"jsonrpc": "2.0", "id": 23, "method": "load/everything"}"#, json!(23), -32601),
        (
            r#"{"jsonrpc": "2.0", "id": 24, "method": "tools/call", "params": {"name": "load_density.nope"}}"#,
            json!(24),
            -32602,
        ),
        (
            r#"{"jsonrpc": "2.0", "id": 25, "method": "tools/call", "params": {"name": "summary", "arguments": 5}}"#,
            json!(25),
            -32602,
        ),
    ];
    for (line, id, expected) in wrong {
        talk.say(line);
        assert_eq!(code(&talk.hear().unwrap()), (id, Some(expected)), "{line}");
    }
    talk.say(&format!("{{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"{}\"}}", "x".repeat(17 << 20)));
    assert_eq!(code(&talk.hear().unwrap()), (Value::Null, Some(-32700)), "a message of 17 MiB");
    let done = talk.ask(&call(6, "load_density.run_test", &test(&target, 1)));
    let text = done["result"]["content"][0]["text"].as_str().unwrap();
    let result: Value = serde_json::from_str(text).unwrap();
    assert_eq!(result["user_detail"], json!({"user": "fast_http_user"}), "{result}");
    assert_eq!(done["result"]["isError"], false);
    let missing = talk.ask(&call(17, "load_density.persist_records", &json!({})));
    assert_eq!(missing["result"]["isError"], true);
    // the end of input ends what runs, and what was asked is answered
    talk.say(&call(30, "run_test", &test(&target, 300)).to_string());
    under_load(&target, target.counts().total + 5);
    drop(talk.input.take());
    let last = talk.hear().unwrap();
    assert_eq!((&last["id"], &last["result"]["isError"]), (&json!(30), &json!(false)), "{last}");
    assert!(talk.hear().is_none(), "nothing after the last answer");
    assert_eq!(talk.end(), Some(0));
}

#[test]
fn a_signal_drains_and_the_root_may_be_another_folder() {
    let target = Target::start(Options::default()).unwrap();
    let (folder, root) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let root_path = root.path().display().to_string();
    let mut talk = Talk::start(folder.path(), &["--root", &root_path]);
    // a client that introduces itself with nothing
    let hello = talk.ask(&json!({"jsonrpc": "2.0", "id": 0, "method": "initialize"}));
    assert!(hello["result"]["protocolVersion"].is_string(), "{hello}");
    let inside = root.path().join("m.db").display().to_string();
    for (id, path, refused) in [(1, inside.as_str(), false), (2, "m.db", true)] {
        let kept = talk.ask(&call(id, "persist_records", &json!({"database_path": path})));
        assert_eq!(kept["result"]["isError"], refused, "{kept}");
    }
    talk.say(&call(3, "run_test", &test(&target, 300)).to_string());
    under_load(&target, 5);
    kill_process(Pid::from_raw(talk.child.id().cast_signed()).unwrap(), Signal::TERM).unwrap();
    let last = talk.hear().unwrap();
    assert_eq!((&last["id"], &last["result"]["structuredContent"]["user_count"]), (&json!(3), &json!(1)), "{last}");
    assert_eq!(talk.end(), Some(0));
    // targets beyond this machine are never dialled unless they are allowed
    let mut talk = Talk::start(folder.path(), &[]);
    talk.initialize("2025-06-18");
    let away = json!({
        "user_detail_dict": {"user": "fast_http_user"}, "user_count": 1, "spawn_rate": 10, "test_time": 0.3,
        "tasks": [{"method": "get", "request_url": "http://192.0.2.1/"}],
    });
    let done = talk.ask(&call(1, "run_test", &away));
    let totals = &done["result"]["structuredContent"]["totals"];
    assert_eq!(totals["successes"], json!(0), "{done}");
}
