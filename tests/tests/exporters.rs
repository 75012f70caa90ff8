//! Exporters against the real ends: Prometheus, InfluxDB, a collector of OTLP; ends that are down, frozen,
//! killed and started again.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use ld_master::target::{Options, Target};
use ld_tests::document::{and, open, test};
use ld_tests::metrics::{Answer, Counts, Server, get, promtool, try_get};
use ld_tests::process::{Cluster, Process, command, free_port};
use ld_tests::summary::Summary;
use ld_tests::wait::{PATIENCE, pause, under_load, wait_for};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, UdpSocket};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const LIMIT: Duration = Duration::from_mins(1);
/// What breaks formats.
const HOSTILE: [&str; 4] = ["plain", "sp ace,com=eq\\b\"q\"\nnl", "end\\", "é|:#@\u{1}{}"];

fn target(fail: f64) -> (Target, String) {
    let target = Target::start(Options { fail, ..Options::default() }).expect("loopback has free ports");
    let url = format!("http://{}/", target.addr());
    (target, url)
}

/// Requests of a run by name.
fn counts(summary: &Summary) -> Counts {
    let number = |value: &Value, key: &str| value[key].as_u64().unwrap();
    summary.names().into_iter().map(|(name, of)| (name, [number(of, "successes"), number(of, "failures")])).collect()
}

fn total(counts: &Counts) -> u64 {
    counts.values().flatten().sum()
}

/// A name as InfluxDB's protocol can hold it.
fn in_influx(name: &str) -> String {
    let name = name.replace('\n', "\\n").replace('\u{1}', "\\x01");
    if name.ends_with('\\') { name + " " } else { name }
}

/// The newest values of the sum `loaddensity.requests` in the collector's log, and how many exports hold it.
fn exported(log: &str) -> (Counts, usize) {
    let blocks: Vec<&str> = log.split("Name: loaddensity.requests\n").skip(1).collect();
    let block = blocks.last().unwrap_or_else(|| panic!("nothing was exported: {log}"));
    let block = format!("{}\n", block.split("\nMetric #").next().unwrap());
    assert!(block.contains("AGGREGATION_TEMPORALITY_CUMULATIVE") && block.contains("IsMonotonic: true"), "{block}");
    let mut counts = Counts::new();
    for point in block.split("NumberDataPoints #").skip(1) {
        let of = |key: &str, end: &str| {
            let (_, rest) = point.split_once(key).unwrap_or_else(|| panic!("no {key} in {point}"));
            rest.split_once(end).unwrap().0.to_owned()
        };
        assert_ne!(of("StartTimestamp: ", "\n"), "0");
        let place = usize::from(of("outcome: Str(", ")\n") == "failure");
        counts.entry(of("name: Str(", ")\n     -> outcome")).or_default()[place] +=
            of("\nValue: ", "\n").parse::<u64>().unwrap();
    }
    (counts, blocks.len())
}

/// Sums the counters that datagrams bring until it is dropped.
fn statsd() -> (u16, Arc<Mutex<BTreeMap<String, u64>>>) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    let sums: Arc<Mutex<BTreeMap<String, u64>>> = Arc::default();
    let seen = Arc::clone(&sums);
    std::thread::spawn(move || {
        let mut buffer = vec![0; 65_536];
        while let Ok(length) = socket.recv(&mut buffer) {
            let text = String::from_utf8(buffer[..length].to_vec()).unwrap();
            for line in text.lines() {
                let Some((count, tags)) = line.strip_prefix("x.requests:").and_then(|l| l.split_once("|c|#")) else {
                    continue;
                };
                *seen.lock().unwrap().entry(tags.to_owned()).or_default() += count.parse::<u64>().unwrap();
            }
        }
    });
    (port, sums)
}

#[test]
fn every_end_holds_the_run_s_total_of_a_cluster() {
    let page = free_port();
    let (Some(prometheus), Some(influx)) = (Server::prometheus(page), Server::influx()) else { return };
    let (Some(by_grpc), Some(by_http)) = (Server::collector(), Server::collector()) else { return };
    let (datagrams, sums) = statsd();
    let (_target, url) = target(0.1);
    let task = |name: &str| json!({"method": "get", "request_url": url, "name": name});
    let tasks: Vec<Value> = HOSTILE.map(task).into();
    let thresholds = json!(["p95 < 10 s", "failure_rate < 50%"]);
    let load = and(open(200.0, 6.0), &json!({"tasks": tasks, "thresholds": thresholds}));
    let flags = [
        format!("prometheus=127.0.0.1:{page}"),
        format!("influx=udp://127.0.0.1:{}", influx.other_port),
        format!("influx=http://127.0.0.1:{}/write?db=http", influx.port),
        format!("otlp=http://127.0.0.1:{}", by_grpc.port),
        format!("otlp=http://127.0.0.1:{}/v1/metrics", by_http.other_port),
        format!("statsd=127.0.0.1:{datagrams}/x"),
    ];
    let flags: Vec<&str> = flags.iter().flat_map(|flag| ["--export", flag]).collect();
    let mut cluster = Cluster::launch(
        &test(&url, &load),
        3,
        &format!("127.0.0.1:{}", free_port()),
        &flags,
        |state| {
            let mut master = command("ld-master", state);
            master.env("OTEL_METRIC_EXPORT_INTERVAL", "1000").env("OTEL_SERVICE_NAME", "svc-x");
            master
        },
        |_, state| command("ld-worker", state),
    );
    // the page while the run goes on: any path
    let scraped = wait_for("a page with requests", PATIENCE, || {
        try_get(page, "/whatever?x=y").filter(|answer| answer.body.contains("\nloaddensity_requests_total{"))
    });
    check_page(&scraped);
    let (finished, summary) = cluster.finish(LIMIT);
    // a machine that is the limit makes rules unsure, and no count wrong
    assert!(matches!(finished.code, Some(0 | 4)), "{finished:?}");
    summary.check_conservation();
    let wanted = counts(&summary);
    assert!(total(&wanted) > 4_000 && wanted.values().all(|[ok, failed]| *ok > 0 && *failed > 0), "{wanted:?}");
    finished.expect_said("points sent, none dropped");

    assert_eq!(prometheus.scraped(), wanted);
    let renamed: Counts = wanted.iter().map(|(name, n)| (in_influx(name), *n)).collect();
    assert_eq!(influx.points("http"), renamed);
    let mut by_datagrams = Counts::new();
    // it writes what came with a delay
    for _ in 0..100 {
        by_datagrams = influx.points("udp");
        if by_datagrams == renamed {
            break;
        }
        pause(Duration::from_millis(50));
    }
    assert_eq!(by_datagrams, renamed);
    for collector in [&by_grpc, &by_http] {
        let log = collector.log();
        let (found, exports) = exported(&log);
        assert_eq!(found, wanted);
        assert!(exports >= 5, "{exports} exports");
        assert!(log.contains("service.name: Str(svc-x)"));
    }
    let by_tag: u64 = sums.lock().unwrap().values().sum();
    assert_eq!(by_tag, total(&wanted), "{:?}", sums.lock().unwrap());
    let plain = sums.lock().unwrap()["method:GET,name:plain,outcome:failure"];
    assert_eq!(plain, wanted["plain"][1]);
}

fn check_page(page: &Answer) {
    assert_eq!(page.status, 200);
    assert!(page.head.to_lowercase().contains("content-type: text/plain; version=0.0.4"), "{}", page.head);
    let metrics = [
        "loaddensity_requests_total{name=\"sp ace,com=eq\\\\b\\\"q\\\"\\nnl\",outcome=\"success\",request_type=\"GET\"} ",
        "loaddensity_request_latency_ms_bucket{le=\"2500.0\",name=\"plain\",request_type=\"GET\"} ",
        "loaddensity_response_bytes_sum{name=\"plain\",request_type=\"GET\"} ",
        "loaddensity_workers 3",
        "loaddensity_build_info{version=",
        "loaddensity_exporter_dropped_total{exporter=\"influx-2\"} 0",
    ];
    for metric in metrics {
        assert!(page.body.contains(metric), "no {metric} in\n{}", page.body);
    }
    // the name is the seed's, and the only thing that promtool would have otherwise
    let Some(said) = promtool(&page.body) else { return };
    assert_eq!(said.trim(), "loaddensity_request_latency_ms metric names should not contain abbreviated units");
}

#[test]
fn ends_that_break_cost_the_run_nothing_and_drops_are_said() {
    let (Some(mut influx), Some(mut collector)) = (Server::influx(), Server::collector()) else { return };
    // it takes connections and never answers
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let (target, url) = target(0.0);
    let flags = [
        format!("influx=http://127.0.0.1:{}/write?db=http", influx.port),
        format!("influx=http://{}/write?db=x", silent.local_addr().unwrap()),
        format!("otlp=http://127.0.0.1:{}", collector.port),
        format!("statsd=127.0.0.1:{}", free_port()),
        format!("prometheus=127.0.0.1:{}?linger=0s", free_port()),
    ];
    let flags: Vec<&str> = flags.iter().flat_map(|flag| ["--export", flag]).collect();
    let mut cluster = Cluster::launch(
        &test(&url, &open(200.0, 9.0)),
        0,
        "",
        &flags,
        |state| {
            let mut master = command("ld-master", state);
            master.env("OTEL_METRIC_EXPORT_INTERVAL", "500").env("OTEL_EXPORTER_OTLP_TIMEOUT", "500");
            master
        },
        |_, state| command("ld-worker", state),
    );
    under_load(&target, 500);
    influx.kill();
    collector.signal(Signal::STOP);
    under_load(&target, 1_100);
    influx.restart();
    let (finished, summary) = cluster.finish(LIMIT);
    finished.expect_code(0);
    // the load did not notice
    summary.check_conservation();
    // on a busy machine the end may overtake the last one
    let dropped = summary.count("/conservation/dropped");
    assert!(summary.count("/conservation/due") == 1_800 && dropped <= 2, "{}", summary.0["conservation"]);
    for (second, started) in summary.timeline("started").iter().take(9).enumerate() {
        assert!((*started - 200.0).abs() <= 40.0, "{started} started in second {second}");
    }
    // what waited while it was away arrived
    assert_eq!(influx.points("http"), counts(&summary));
    let lines: Vec<&str> = finished.stderr.lines().filter(|line| line.contains("exporter ")).collect();
    let said = |name: &str| {
        *lines.iter().find(|line| line.contains(&format!("exporter {name} (")) && line.contains("sent")).unwrap()
    };
    assert!(said("influx").ends_with("none dropped"), "{lines:#?}");
    assert!(said("influx-2").contains(": 0 points sent, "), "{lines:#?}");
    for (name, why) in
        [("influx-2", "no answer within 2 s"), ("otlp", "exports sent"), ("statsd", "Connection refused")]
    {
        assert!(said(name).starts_with("warning: ") && said(name).contains(" dropped: "), "{lines:#?}");
        assert!(said(name).contains(why), "{lines:#?}");
    }
    collector.signal(Signal::CONT);
}

/// Heads and bodies of requests.
type Posts = Arc<Mutex<Vec<(String, String)>>>;

/// Takes posts, answers them, and keeps them.
fn posts() -> (u16, Posts) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let kept: Arc<Mutex<Vec<(String, String)>>> = Arc::default();
    let posts = Arc::clone(&kept);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, posts) = (stream.unwrap(), Arc::clone(&posts));
            std::thread::spawn(move || {
                let mut all = Vec::new();
                let mut chunk = vec![0; 65_536];
                loop {
                    let text = String::from_utf8_lossy(&all).into_owned();
                    if let Some((head, body)) = text.split_once("\r\n\r\n") {
                        let length = head.to_lowercase();
                        let length = length.split_once("content-length: ").unwrap().1;
                        let length: usize = length.split("\r\n").next().unwrap().parse().unwrap();
                        if body.len() == length {
                            posts.lock().unwrap().push((head.to_owned(), body.to_owned()));
                            all.clear();
                            if stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").is_err() {
                                return;
                            }
                        }
                    }
                    match stream.read(&mut chunk) {
                        Ok(0) | Err(_) => return,
                        Ok(length) => all.extend_from_slice(&chunk[..length]),
                    }
                }
            });
        }
    });
    (port, kept)
}

#[test]
fn documents_start_stop_and_start_again() {
    let (port, page) = (posts(), free_port());
    let (_target, url) = target(0.5);
    let load = json!({"user_detail_dict": {"user": "fast_http_user"}, "user_count": 2, "test_time": 1, "wait_time": 0.05,
                      "tasks": [{"method": "get", "request_url": url, "name": "hit"}], "thresholds": ["failure_rate < 100%"]});
    let influx = json!({"transport": "http", "url": format!("http://127.0.0.1:{}", port.0), "token": "tk", "org": "o o",
                        "bucket": "b", "measurement": "m x", "per_request": true});
    let prometheus = json!({"port": page, "linger": 0});
    let document = json!([
        ["LD_start_prometheus_exporter", prometheus],
        ["LD_start_prometheus_exporter", [free_port()]],
        ["LD_start_influxdb_sink", influx],
        ["LD_start_opentelemetry_exporter", [format!("http://127.0.0.1:{}", free_port())]],
        ["LD_stop_opentelemetry_exporter"],
        ["LD_start_test", load],
        ["LD_stop_influxdb_sink"],
        ["LD_stop_prometheus_exporter"],
        ["LD_stop_prometheus_exporter"],
        ["LD_start_test", load],
        ["LD_start_prometheus_exporter", prometheus],
        ["LD_start_influxdb_sink", {"transport": "carrier pigeon"}],
        ["LD_start_test", load],
    ]);
    let folder = tempfile::tempdir().unwrap();
    let mut master = command("ld-master", folder.path());
    master.args(["run-str", &document.to_string(), "--results", "results.jsonl"]);
    let finished = Process::start("ld-master", master).wait(LIMIT);
    finished.expect_code(1);
    let results = std::fs::read_to_string(folder.path().join("results.jsonl")).unwrap();
    let results: Vec<Value> = results.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let value = |n: usize| &results[n]["value"];
    assert_eq!([value(0), value(1)], [&json!(page), &json!(page)], "the port that is in use");
    assert_eq!([value(2), value(3), value(4)], [&Value::Null, &json!(true), &Value::Null]);
    assert_eq!([value(7), value(8)], [&Value::Null, &Value::Null]);
    assert_eq!(value(10), &json!(page), "the same port again");
    assert_eq!(results[11]["error"]["kind"], "ValueError", "{}", results[11]);
    assert!(results.iter().enumerate().all(|(n, line)| line["ok"] == (n != 11)), "{results:#?}");
    finished.expect_said("exporter prometheus is at work already");

    // what the first test measured, and no more
    let posts = port.1.lock().unwrap();
    for (head, _) in posts.iter() {
        assert!(head.starts_with("POST /api/v2/write?org=o%20o&bucket=b&precision=ns HTTP/1.1"), "{head}");
        assert!(head.to_lowercase().contains("authorization: token tk"), "{head}");
    }
    let lines: Vec<&str> = posts.iter().flat_map(|(_, body)| body.lines()).collect();
    let field = |line: &str, key: &str| -> u64 {
        let (_, rest) = line.split_once(&format!("{key}=")).unwrap_or_else(|| panic!("no {key} in {line}"));
        rest.split('i').next().unwrap().parse().unwrap()
    };
    let counted: Vec<&&str> =
        lines.iter().filter(|line| line.starts_with("m\\ x,") && line.contains(" count=")).collect();
    let single: Vec<&&str> = lines.iter().filter(|line| line.contains(" latency_ms=")).collect();
    let all: u64 = counted.iter().map(|line| field(line, "count")).sum();
    let failed: u64 = counted.iter().map(|line| field(line, "failures")).sum();
    assert!(all > 10 && failed > 0, "{lines:#?}");
    assert_eq!(single.len() as u64, all, "each request of so few is kept");
    assert_eq!(single.iter().filter(|line| line.contains(",success=false,error=\"")).count() as u64, failed);
    finished.expect_said(&format!("per-request points: {all} of {all} kept of {all} requests"));
}

/// A run of one second whose page is at a port, until it waits for a last scrape.
fn waits_for_a_scrape(more: impl FnOnce(&mut std::process::Command)) -> (Process, u16, tempfile::TempDir) {
    let (_target, url) = target(0.0);
    let (folder, page) = (tempfile::tempdir().unwrap(), free_port());
    let mut master = command("ld-master", folder.path());
    master.args(["run-str", &test(&url, &open(50.0, 1.0)).to_string(), "--summary", "summary.json"]);
    master.env("LD_MASTER_EXPORT", format!("prometheus=127.0.0.1:{page}"));
    more(&mut master);
    let mut master = Process::start("ld-master", master);
    master.line_with("waiting up to 15 s for a last scrape");
    (master, page, folder)
}

#[test]
fn the_page_waits_for_a_last_scrape() {
    let (mut master, page, folder) = waits_for_a_scrape(|_| {});
    let last = get(page, "/metrics", "");
    let wanted = counts(&Summary::read(&folder.path().join("summary.json")).unwrap())["hit"][0];
    let line =
        format!("loaddensity_requests_total{{name=\"hit\",outcome=\"success\",request_type=\"GET\"}} {wanted}\n");
    assert!(wanted > 0 && last.body.contains(&line), "no {line} in\n{}", last.body);
    for line in ["loaddensity_running 0\n", "loaddensity_verdict{outcome=\"passed\"} 1\n", "loaddensity_runs_total 1\n"]
    {
        assert!(last.body.contains(line), "no {line} in\n{}", last.body);
    }
    let finished = master.wait(Duration::from_secs(5));
    finished.expect_code(0).expect_said("1 scrapes sent, none dropped");
}

#[test]
fn a_signal_ends_the_wait_and_a_token_guards_the_page() {
    let (mut master, page, _folder) = waits_for_a_scrape(|master| {
        master.env("LD_TOKEN", "a long enough token").env("LD_VIEWER_TOKEN", "only for looking");
    });
    let refused = get(page, "/metrics", "");
    assert_eq!(refused.status, 401);
    assert!(!refused.body.contains("loaddensity_"), "{refused:?}");
    assert_eq!(get(page, "/metrics", "Authorization: Bearer wrong\r\n").status, 401);
    // refusals are no scrapes
    assert!(master.runs());
    master.signal(Signal::TERM);
    master.wait(Duration::from_secs(5)).expect_said("0 scrapes sent");
    let (mut master, page, _folder) = waits_for_a_scrape(|master| {
        master.env("LD_TOKEN", "a long enough token").env("LD_VIEWER_TOKEN", "only for looking");
    });
    assert_eq!(get(page, "/metrics", "Authorization: Bearer only for looking\r\n").status, 200);
    master.wait(Duration::from_secs(5)).expect_code(0);
}

#[test]
fn a_test_with_workers_of_its_own_is_seen_while_it_runs() {
    let (_target, url) = target(0.0);
    let (folder, page, port) = (tempfile::tempdir().unwrap(), free_port(), free_port());
    let own = json!({"runner_mode": "master", "master_bind_host": "127.0.0.1", "master_bind_port": port, "expected_workers": 1});
    let mut master = command("ld-master", folder.path());
    master.args(["run-str", &test(&url, &and(open(50.0, 4.0), &own)).to_string(), "--summary", "summary.json"]);
    master.args(["--export", &format!("prometheus=127.0.0.1:{page}?linger=0s")]);
    let mut master = Process::start("ld-master", master);
    let mut worker = command("ld-worker", folder.path());
    worker.args(["--master", &format!("127.0.0.1:{port}"), "--cores", "1"]);
    let mut worker = Process::start("ld-worker", worker);
    let seen = wait_for("a page with requests", PATIENCE, || {
        try_get(page, "/").filter(|answer| answer.body.contains("\nloaddensity_requests_total{"))
    });
    for line in ["\nloaddensity_running 1\n", "\nloaddensity_workers 1\n", "\nloaddensity_runs_total 0\n"] {
        assert!(seen.body.contains(line), "no {line} in\n{}", seen.body);
    }
    master.wait(LIMIT).expect_code(0);
    worker.wait(LIMIT).expect_code(0);
}

#[test]
fn a_taken_port_is_refused_before_anything_runs() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut master = command("ld-master", folder.path());
    let place = format!("prometheus={}", taken.local_addr().unwrap());
    master.args(["run-str", &test("http://127.0.0.1:1/", &json!({"test_time": 1})).to_string(), "--export", &place]);
    let finished = Process::start("ld-master", master).wait(LIMIT);
    finished.expect_code(3).expect_said("cannot listen on").expect_said("choose another");
    assert!(!finished.stderr.contains("starting:"), "{}", finished.stderr);
}
