//! The control socket: the seed's sessions byte for byte, what was wrong with the seed, hostile clients,
//! what remote documents may not do.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use ld_master::target::{Options, Target};
use ld_tests::certificates::Certificates;
use ld_tests::control::{Exchange, Served, framed, last_reply, reply, secured, session, tls10_hello};
use ld_tests::document::closed;
use ld_tests::process::{Process, command};
use ld_tests::seed::golden;
use ld_tests::wait::{PATIENCE, under_load};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::thread;

const END: &str = "Return_Data_Over_JE\n";

/// A document of one test, as a client sends it.
fn test(target: &Target, load: &Value) -> Value {
    let url = format!("http://{}/", target.addr());
    ld_tests::document::test(&url, load)["load_density"].clone()
}

fn lines(reply: &[u8]) -> Vec<Value> {
    let text = std::str::from_utf8(reply).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {text}"))).collect()
}

fn text(reply: &[u8]) -> String {
    String::from_utf8_lossy(reply).into_owned()
}

/// The captured exchanges of a part, each with what is to come: the same bytes, but where the seed shows
/// an error text of Python's JSON reader, or read no more than 8 KiB.
fn replay(part: &str, ask: impl Fn(&Exchange) -> Vec<u8>) {
    let session: Vec<Exchange> =
        session(&golden("control-socket/session-0.0.79.txt")).into_iter().filter(|e| e.part == part).collect();
    assert!(session.len() > 1, "no {part}");
    for mut exchange in session {
        match exchange.name.as_str() {
            "large >8KiB" => {
                exchange.sent = format!("[[\"len\",[\"{}\"]]]", "a".repeat(9_000)).into_bytes();
                exchange.got = format!("9000\n{END}").into_bytes();
            }
            "framed exactly 1MiB" => {
                let empty = r#"{"token":"s3cret","command":[["len",[""]]]}"#;
                let body = empty.replace("\"\"", &format!("\"{}\"", "a".repeat((1 << 20) - empty.len())));
                exchange.sent = framed(body.as_bytes());
            }
            _ => {}
        }
        let got = ask(&exchange);
        let of_python = ["Expecting ", "Extra data"].iter().any(|text_| text(&exchange.got).contains(text_));
        if of_python {
            let is_framed = exchange.got.starts_with(b"\0");
            let end = if is_framed { framed(END.as_bytes()) } else { END.into() };
            let line = got.strip_suffix(&end[..]).unwrap_or_else(|| panic!("{exchange:?}: {}", text(&got)));
            let error = if is_framed { &line[4..] } else { line };
            assert!(error.starts_with(b"Error: ") && error.ends_with(b"\n") && error.len() > 10, "{}", text(error));
            assert!(!is_framed || line == framed(error), "{exchange:?}");
        } else {
            assert_eq!(text(&got), text(&exchange.got), "{exchange:?}");
            assert_eq!(got, exchange.got);
        }
    }
}

/// Whether the client of an exchange ended its side after its request.
fn asks_and_leaves(exchange: &Exchange) -> bool {
    exchange.sent.is_empty() || exchange.name.contains("FIN")
}

#[test]
fn the_seeds_sessions_byte_for_byte() {
    let folder = tempfile::tempdir().unwrap();
    let ask = |served: &Served, exchange: &Exchange| {
        if asks_and_leaves(exchange) {
            last_reply(served.connect(), &exchange.sent).unwrap()
        } else {
            served.ask(&exchange.sent)
        }
    };
    let mut plain = Served::start(folder.path(), &[], &[]);
    replay("legacy no token", |exchange| ask(&plain, exchange));
    plain.process.wait(PATIENCE).expect_code(0);
    assert!(TcpStream::connect(("127.0.0.1", plain.port)).is_err(), "it ended");

    let mut prefixed = Served::start(folder.path(), &["--framed", "--token", "s3cret"], &[]);
    replay("framed + token", |exchange| ask(&prefixed, exchange));
    prefixed.process.wait(PATIENCE).expect_code(0);

    let env = [("LOAD_DENSITY_SOCKET_TOKEN", "envtok"), ("LD_TOKEN", "another"), ("LD_VIEWER_TOKEN", "look")];
    let mut by_env = Served::start(folder.path(), &[], &env);
    for token in ["another", "look", ""] {
        let asked = json!({"token": token, "command": [["abs", [-1]]]}).to_string();
        assert_eq!(text(&by_env.ask(asked.as_bytes())), "Error: unauthorised\n", "{token}");
    }
    replay("token via env, legacy framing", |exchange| ask(&by_env, exchange));
    by_env.process.wait(PATIENCE).expect_code(0);

    let certificates = Certificates::make();
    let (cert, key) = (certificates.cert.display().to_string(), certificates.key.display().to_string());
    let mut tls = Served::start(folder.path(), &["--framed", "--tls-cert", &cert, "--tls-key", &key], &[]);
    replay("TLS", |exchange| reply(secured(tls.connect(), &certificates.ca), &exchange.sent).unwrap());
    tls.process.wait(PATIENCE).expect_code(0);
}

#[test]
fn others_are_served_whatever_some_clients_do() {
    let folder = tempfile::tempdir().unwrap();
    let certificates = Certificates::make();
    let (cert, key) = (certificates.cert.display().to_string(), certificates.key.display().to_string());
    for tls in [false, true] {
        let mut flags = vec!["--framed"];
        if tls {
            flags.extend(["--tls-cert", &cert, "--tls-key", &key]);
        }
        let served = Served::start(folder.path(), &flags, &[]);
        let ask = |request: &[u8]| {
            if tls {
                reply(secured(served.connect(), &certificates.ca), request)
            } else {
                reply(served.connect(), request)
            }
        };
        let silent: Vec<TcpStream> = (0..100).map(|_| served.connect()).collect();
        thread::scope(|scope| {
            let clients: Vec<_> = (1..398)
                .map(|n: i32| {
                    let ask = &ask;
                    let small = thread::Builder::new().stack_size(256 * 1024);
                    small
                        .spawn_scoped(scope, move || (n, ask(&framed(format!("[[\"abs\",[-{n}]]]").as_bytes()))))
                        .unwrap()
                })
                .collect();
            // refused at once, without a reset
            assert_eq!(ask(b"\x80\0\0\0 and so on").unwrap(), b"", "a length of 2 GiB");
            let random: Vec<u8> = (0..4096_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8 | 0x80).collect();
            // what is no TLS may be answered by an alert, and what is said after it by a reset
            let odd = reply(served.connect(), &random);
            assert!(if tls { odd.is_err() || odd.is_ok_and(|said| said.len() < 100) } else { odd.unwrap().is_empty() });
            let old = reply(served.connect(), &tls10_hello()).unwrap();
            if tls {
                // an alert: no version, or nothing else, in common
                assert!(old.first() == Some(&0x15) && matches!(old.last(), Some(40 | 70)), "{old:?}");
            }
            for client in clients {
                let (n, reply) = client.join().unwrap();
                let expected = [framed(format!("{n}\n").as_bytes()), framed(END.as_bytes())].concat();
                assert_eq!(reply.unwrap(), expected);
            }
        });
        drop(silent);
    }
}

#[test]
fn silent_and_slow_clients_have_their_time_and_documents_as_long_as_they_take() {
    let target = Target::start(Options::default()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut served = Served::start(folder.path(), &["--timeout", "1s"], &[]);
    assert_eq!(served.ask(b""), b"", "a client without a word");
    let cut = text(&served.ask(b"[[\"len\",[\"aaa"));
    assert!(cut.starts_with("Error: ") && cut.ends_with(END), "{cut}");
    let now = text(&served.ask(b"{nope"));
    assert!(now.starts_with("Error: ") && now.ends_with(END), "{now}");
    // a document in pieces
    let mut pieces = served.connect();
    pieces.write_all(b"[[\"len\",[\"").unwrap();
    for _ in 0..40 {
        pieces.write_all(&[b'a'; 10_000]).unwrap();
    }
    assert_eq!(text(&reply(pieces, b"\"]]]").unwrap()), format!("400000\n{END}"));
    let too_long = text(&served.ask(&vec![b'['; (1 << 20) + 1]));
    assert!(too_long.starts_with("Error: "), "{too_long}");
    // longer than the patience, and the client has ended its side
    let document = test(&target, &closed(2, 2.0)).to_string();
    let done = text(&last_reply(served.connect(), document.as_bytes()).unwrap());
    assert!(done.starts_with("{'user_detail'") && done.ends_with(END), "{done}");
    // a second server on the port is refused, one after the first has ended is not
    let mut second = command("ld-master", folder.path());
    second.args(["serve", "--port", &served.port.to_string()]);
    Process::start("a second", second).wait(PATIENCE).expect_code(3).expect_said("cannot serve the control socket");
    assert_eq!(text(&served.ask(b"quit_server")), "Server shutting down\n");
    served.process.wait(PATIENCE).expect_code(0);
    let mut again = command("ld-master", folder.path());
    again.args(["serve", "--port", &served.port.to_string()]);
    let mut again = Process::start("again", again);
    let line = again.line_with("control socket on");
    // both families, if this machine has them
    for host in ["127.0.0.1", "::1"] {
        if line.contains(host) {
            let stream = TcpStream::connect((host, served.port)).unwrap();
            assert_eq!(text(&reply(stream, b"[[\"abs\",[-1]]]").unwrap()), format!("1\n{END}"));
        }
    }
    again.signal(Signal::TERM);
    again.wait(PATIENCE).expect_code(0);
}

#[test]
fn documents_of_different_clients_are_never_mixed_and_a_signal_drains() {
    let target = Target::start(Options::default()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut served = Served::start(folder.path(), &[], &[]);
    let mut actions = test(&target, &closed(2, 1.0)).as_array().unwrap().clone();
    actions.insert(0, json!(["LD_clear_records"]));
    actions.push(json!(["LD_summary"]));
    let request = json!({"command": actions, "reply": "json"}).to_string();
    let replies: Vec<Vec<Value>> = thread::scope(|scope| {
        let clients: Vec<_> = (0..3).map(|_| scope.spawn(|| lines(&served.ask(request.as_bytes())))).collect();
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    });
    let mut runs = Vec::new();
    let mut seen = 0;
    for reply in &replies {
        assert_eq!(reply.len(), 4, "{reply:?}");
        assert!(reply[..3].iter().all(|line| line["ok"] == true), "{reply:?}");
        assert_eq!((&reply[1]["command"], &reply[3]["end"]), (&json!("LD_start_test"), &json!(true)));
        assert_eq!((reply[3]["exit_code"].as_u64(), reply[3]["runs"].as_array().map(Vec::len)), (Some(0), Some(1)));
        runs.push(reply[3]["runs"][0].clone());
        // its own test, and nobody else's
        let summary = &reply[2]["value"];
        assert_eq!(summary["run"]["id"], reply[3]["runs"][0], "{summary}");
        seen += summary["totals"]["requests"].as_u64().unwrap();
    }
    runs.dedup();
    assert_eq!(runs.len(), 3, "each has a run of its own");
    assert!(seen <= target.counts().total, "{seen} counted");

    let before = target.counts().total;
    let mut long = served.connect();
    let document = test(&target, &closed(2, 300.0));
    long.write_all(json!({"command": document, "reply": "json"}).to_string().as_bytes()).unwrap();
    under_load(&target, before + 10);
    let mut waiting = served.connect();
    waiting.write_all(br#"{"command": [["abs", [-1]]], "reply": "json"}"#).unwrap();
    served.process.signal(Signal::TERM);
    let mut reply = Vec::new();
    long.read_to_end(&mut reply).unwrap();
    let reply = lines(&reply);
    assert_eq!((&reply[0]["ok"], &reply[1]["exit_code"]), (&json!(true), &json!(130)), "{reply:?}");
    served.process.wait(PATIENCE).expect_code(0);
}

#[test]
fn remote_documents_are_confined() {
    let target = Target::start(Options::default()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let env = [("LD_SECRET_OF_OURS", "s"), ("ALLOWED", "ok"), ("FORBIDDEN", "no")];
    let served = Served::start(folder.path(), &["--allow-env", "ALLOWED", "--max-users", "5"], &env);
    let ask = |document: &Value| text(&served.ask(document.to_string().as_bytes()));
    let of = |load: Value, url: &str| {
        ld_tests::document::test(url, &ld_tests::document::and(closed(1, 0.3), &load))["load_density"].clone()
    };
    let url = format!("http://{}/", target.addr());
    let refused = [
        json!([["LD_add_package_to_executor", ["os"]]]),
        json!([["LD_start_socket_server", {"port": 0}]]),
        json!([["LD_generate_html_report", ["/tmp/outside"]]]),
        json!([["LD_execute_files", [["../elsewhere.json"]]]]),
        of(json!({"web_ui_dict": {"host": "0.0.0.0", "port": 8089}}), &url),
        of(json!({"user_count": 6}), &url),
        of(json!({"tasks": [{"method": "get", "request_url": "${env.FORBIDDEN}"}]}), &url),
    ];
    for document in &refused {
        let reply = ask(document);
        assert!(reply.contains("Error") && reply.ends_with(END), "{document}: {reply}");
    }
    assert_eq!(target.counts().total, 0, "nothing of it was run");
    // an address that is not on the list is never dialled
    let away = of(json!({"records": {"keep": 10}}), "http://192.0.2.1/");
    let mut actions = away.as_array().unwrap().clone();
    actions.push(json!(["LD_summary"]));
    let reply = lines(&served.ask(json!({"command": actions, "reply": "json"}).to_string().as_bytes()));
    assert_eq!(reply[1]["value"]["totals"]["successes"], json!(0), "{reply:?}");
    assert_ne!(reply[2]["exit_code"], json!(0));
    // what is allowed works
    let reply = ask(&of(json!({"tasks": [{"method": "get", "request_url": format!("{url}${{env.ALLOWED}}")}]}), &url));
    assert!(reply.starts_with("{'user_detail'"), "{reply}");
    assert!(target.counts().total > 0);
    assert!(!Path::new("/tmp/outside.html").exists());
}

#[test]
fn files_of_tls_come_in_pairs_and_documents_may_serve() {
    let folder = tempfile::tempdir().unwrap();
    let mut half = command("ld-master", folder.path());
    half.args(["serve", "--port", "0", "--tls-cert", "cert.pem"]);
    Process::start("half", half).wait(PATIENCE).expect_code(2).expect_said("both are needed");
    let mut document = command("ld-master", folder.path());
    document
        .args(["run-str", r#"[["LD_start_socket_server", {"port": 0, "framed": true, "token": "t"}], ["abs", [-3]]]"#]);
    let mut process = Process::start("a document", document);
    let line = process.line_with("control socket on");
    let port = line.split_whitespace().nth(3).unwrap().rsplit(':').next().unwrap().parse().unwrap();
    let ask = |body: &[u8]| reply(ld_tests::control::connect(port), &framed(body)).unwrap();
    assert_eq!(ask(b"[[\"abs\",[-1]]]"), framed(b"Error: token required\n"));
    let expected = [framed(b"1\n"), framed(END.as_bytes())].concat();
    assert_eq!(ask(br#"{"token":"t","command":[["abs",[-1]]]}"#), expected);
    assert_eq!(ask(br#"{"token":"t","op":"quit"}"#), framed(b"Server shutting down\n"));
    process.wait(PATIENCE).expect_code(0).expect_said("'status': 'stopped'").expect_said("\n3\n");
}
