//! Reports of real runs, held against what the seed wrote for the same traffic.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use ld_tests::binaries::{python, test_file};
use ld_tests::process::{Finished, Process, command, free_port};
use ld_tests::scripted::{Answer, ScriptedServer};
use ld_tests::seed::{golden, http_target};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const LIMIT: Duration = Duration::from_mins(2);

/// Names of document 01 in their order: those that succeed, those that fail.
const SUCCESSES: usize = 5;
const FAILURES: usize = 3;

fn run(folder: &Path, document: &Value, ports: [u16; 2]) -> Finished {
    fs::write(folder.join("document.json"), document.to_string()).unwrap();
    let mut command = command("ld-master", folder);
    command.env("LD_HTTP_PORT", ports[0].to_string()).env("LD_DEAD_PORT", ports[1].to_string());
    command.args(["run", "document.json", "--results", "results.jsonl"]);
    Process::start("ld-master run", command).wait(LIMIT)
}

/// Values of `--results` by command.
fn results(folder: &Path) -> Vec<(String, Value)> {
    let lines = fs::read_to_string(folder.join("results.jsonl")).unwrap();
    let line = |line: &str| serde_json::from_str::<Value>(line).unwrap();
    lines.lines().map(line).map(|line| (line["command"].as_str().unwrap().to_owned(), line)).collect()
}

/// The text with the seed's ports, and without what no two runs share.
fn stable(text: &str, ports: [u16; 2]) -> String {
    let text = text.replace(&format!(":{}", ports[0]), ":18080").replace(&format!(":{}", ports[1]), ":18099");
    let line = |line: &str| {
        let end = line.find('<').map_or("", |at| line.split_at(at).1);
        match line.split_once(": ") {
            Some((name @ ("Date" | "Server"), _)) => format!("{name}: -{end}"),
            _ => line.to_owned(),
        }
    };
    text.split('\n').map(line).collect::<Vec<_>>().join("\n")
}

/// Every text of `value` through [`stable`].
fn stable_value(value: &Value, ports: [u16; 2]) -> Value {
    match value {
        Value::String(text) => stable(text, ports).into(),
        Value::Array(items) => items.iter().map(|item| stable_value(item, ports)).collect(),
        Value::Object(map) => map.iter().map(|(key, value)| (key.clone(), stable_value(value, ports))).collect(),
        other => other.clone(),
    }
}

/// Requests as the seed would have listed them: its own `cycle` again and again, numbered on.
fn repeated(cycle: &[String], title: &str, count: usize) -> String {
    let numbered = |(i, n): (usize, usize)| {
        let (old, new) = (format!("{title}{}>", i % cycle.len() + 1), format!("{title}{n}>"));
        cycle[i % cycle.len()].replace(&old, &new)
    };
    (0..count).zip(1..).map(numbered).collect()
}

#[test]
fn document_01_gives_the_seeds_reports() {
    let Some((_target, port)) = http_target() else { return };
    let ports = [port, free_port()];
    let text = fs::read_to_string(test_file("fixtures/actions/01_http_smoke_all_reports.json")).unwrap();
    let mut document: Value = serde_json::from_str(&text).unwrap();
    document["load_density"][2][1]["records"] = json!({"bodies": "all"});
    let folder = tempfile::tempdir().unwrap();
    let finished = run(folder.path(), &document, ports);
    finished.expect_code(1);
    let read = |name: &str| stable(&fs::read_to_string(folder.path().join(name)).unwrap(), ports);
    let results = results(folder.path());
    let value = |command: &str| stable_value(&results.iter().find(|(c, _)| c == command).unwrap().1["value"], ports);
    let path = |name: &str| stable(&golden(&format!("reports/{name}")), ports);

    assert_eq!(value("LD_generate_json_report"), json!(["01_success.json", "01_failure.json"]));
    assert_eq!(value("LD_generate_xml_report"), json!(["01_success.xml", "01_failure.xml"]));
    assert_eq!(value("LD_generate_junit_report"), "01-junit.xml");

    let mut counts = [0; 2];
    for (i, (part, cycle)) in [("success", SUCCESSES), ("failure", FAILURES)].into_iter().enumerate() {
        // JSON: file, value, golden file
        let file: Value =
            serde_json::from_str(&fs::read_to_string(folder.path().join(format!("01_{part}.json"))).unwrap()).unwrap();
        let file = stable_value(&file, ports);
        assert_eq!(value("LD_generate_json")[i], file);
        let seeds: Value = serde_json::from_str(&golden(&format!("reports/01_{part}.json"))).unwrap();
        let seeds: Vec<Value> =
            stable_value(&seeds, ports).as_object().unwrap().values().take(cycle).cloned().collect();
        let rows = file.as_object().unwrap();
        counts[i] = rows.len();
        assert!(rows.len() > cycle, "{}", rows.len());
        for (n, (title, row)) in rows.iter().enumerate() {
            let case = if part == "success" { "Success" } else { "Failure" };
            assert_eq!(*title, format!("{case}_Test{}", n + 1));
            // as text, so that the order of keys counts
            assert_eq!(row.to_string(), seeds[n % cycle].to_string());
        }
        // XML: the whole file
        let seeds = path(&format!("01_{part}.xml"));
        let title = if part == "success" { "Success_Test" } else { "Failure_Test" };
        let end = format!("\t</{title}");
        let blocks: Vec<String> = seeds.split_inclusive('\n').fold(vec![String::new()], |mut blocks, line| {
            blocks.last_mut().unwrap().push_str(line);
            if line.starts_with(&end) || line == "<xml_data>\n" {
                blocks.push(String::new());
            }
            blocks
        });
        let expected = format!("{}{}</xml_data>\n", blocks[0], repeated(&blocks[1..=cycle], title, rows.len()));
        assert_eq!(read(&format!("01_{part}.xml")), expected);
        let in_memory = value("LD_generate_xml")[i].as_str().unwrap().to_owned();
        assert!(in_memory.starts_with(&format!("<xml_data><{title}1><Method>GET</Method><test_url>")), "{in_memory}");
        // HTML: a table each
        let tables = value("LD_generate_html")[i].as_array().unwrap().clone();
        let page = path("01.html");
        let seeds: Vec<&str> =
            page.split_inclusive("<br>").filter(|t| t.contains(&format!("{part}_table_head\""))).collect();
        for (n, table) in tables.iter().enumerate() {
            let seed = seeds[n % cycle];
            assert_eq!(table, seed.split_once("<h1 class=\"text\">Test Report</h1>").map_or(seed, |(_, table)| table));
        }
        assert_eq!(tables.len(), rows.len());
    }
    let [successes, failures] = counts;

    // CSV: everything but the times
    let columns = |csv: &str| -> Vec<Vec<String>> {
        csv.split_terminator("\r\n").map(|line| line.splitn(8, ',').map(str::to_owned).collect()).collect()
    };
    let (ours, seeds) = (columns(&read("01.csv")), columns(&path("01.csv")));
    assert_eq!((&ours[0], ours.len()), (&seeds[0], 1 + successes + failures));
    let first_failure = 1 + seeds.iter().filter(|row| row[0] == "success").count();
    for (n, row) in ours[1..].iter().enumerate() {
        let seed =
            if n < successes { &seeds[1 + n % SUCCESSES] } else { &seeds[first_failure + (n - successes) % FAILURES] };
        assert!(row[5].contains('.') && row[5].parse::<f64>().is_ok_and(|ms| ms > 0.0), "{row:?}");
        assert_eq!((&row[..5], &row[6..]), (&seed[..5], &seed[6..]));
    }

    // JUnit: everything but the times
    let cases = |junit: &str| -> Vec<String> {
        let timeless = |case: &str| {
            let (before, after) = case.split_once("time=\"").unwrap();
            assert!(after.get(..5).is_some_and(|start| start.contains('.')), "{case}");
            format!("{before}{}", after.split_once('"').unwrap().1)
        };
        junit.split("<testcase ").skip(1).map(timeless).collect()
    };
    let (ours, seeds) = (read("01-junit.xml"), path("01-junit.xml"));
    let tests = format!(r#"<testsuite name="loaddensity" tests="{}" failures="{failures}""#, successes + failures);
    assert!(ours.contains(&tests), "{tests}");
    let (ours, seeds) = (cases(&ours), cases(&seeds));
    assert_eq!(ours.len(), successes + failures);
    for (n, case) in ours.iter().enumerate() {
        let seed =
            if n < successes { &seeds[n % SUCCESSES] } else { &seeds[first_failure - 1 + (n - successes) % FAILURES] };
        assert_eq!(case.trim_end_matches("</testsuite>"), seed.trim_end_matches("</testsuite>"));
    }

    // summary: the same numbers
    let summary = value("LD_summary");
    assert_eq!(summary["totals"]["requests"], successes + failures);
    assert_eq!(serde_json::from_str::<Value>(&read("01-sum.json")).unwrap()["totals"], summary["totals"]);
    let page = read("01.html");
    assert!(page.contains("assert-fail") && page.contains("body does not contain") && page.len() < 2_000_000);
}

fn answer(status: &str, body: &[u8]) -> Answer {
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nX-Odd: <]]>&\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    Answer { bytes: [head.as_bytes(), body].concat(), close: false }
}

#[test]
fn xml_and_junit_stay_well_formed_whatever_arrives() {
    let Some(python) = python() else {
        ld_tests::skip("no Python environment: tests/run makes one");
        return;
    };
    let megabyte = b"\x01]]>&\xff\xef\xbf\xbe\r\n".repeat(100_000);
    let bodies = [b"bad\x01ctl".to_vec(), b"\xff\xfe\xed\xa0\x80".to_vec(), b"]]><![CDATA[-->".to_vec(), megabyte];
    let server = ScriptedServer::start(move |n| answer("200 OK", &bodies[n as usize % bodies.len()]));
    let folder = tempfile::tempdir().unwrap();
    let tasks: Vec<Value> = ["\u{1}", "]]>", "\u{fffe}", "a\"'\n\tb"]
        .iter()
        .enumerate()
        .map(|(i, odd)| {
            let check = json!({"type": "contains", "value": format!("{odd}{}", "nowhere")});
            let mut task = json!({"method": "get", "request_url": server.url(), "name": format!("odd {odd}")});
            if i % 2 == 1 {
                task["assertions"] = json!([check]);
            }
            task
        })
        .collect();
    let document = json!([
        ["LD_start_test", {
            "user_detail_dict": {"user": "fast_http_user"}, "user_count": 1, "spawn_rate": 1, "test_time": 1, "wait_time": 0.1,
            "tasks": tasks, "records": {"bodies": "all:2MiB"}
        }],
        ["LD_generate_xml_report", ["r"]],
        ["LD_generate_json_report", ["r"]],
        ["LD_generate_junit_report", ["r-junit"]],
        ["LD_generate_html_report", ["r"]],
        ["LD_generate_csv_report", ["r"]],
    ]);
    run(folder.path(), &document, [1, 2]).expect_code(1);
    let strict = "import sys, json, csv, xml.dom.minidom as m\n\
        for f in ['r_success.xml', 'r_failure.xml', 'r-junit.xml']: m.parse(f)\n\
        x = m.parse('r_success.xml').getElementsByTagName('content'); j = json.load(open('r_success.json'))\n\
        for c, row in zip(x, j.values()): assert c.firstChild.data == row['content'] and len(eval(c.firstChild.data)) > 3\n\
        assert max(len(c.firstChild.data) for c in x) > 1000000 and len(x) == len(j) > 4\n\
        assert len(list(csv.reader(open('r.csv', newline='')))) == 1 + len(j) + len(json.load(open('r_failure.json')))";
    let mut command = Command::new(python);
    command.args(["-c", strict]).current_dir(folder.path());
    Process::start("python", command).wait(LIMIT).expect_code(0);
    assert!(fs::metadata(folder.path().join("r.html")).unwrap().len() < 2_000_000);
}

#[test]
fn without_requests_reports_are_empty_or_fail_as_the_seeds_do() {
    let commands = [
        "LD_generate_html",
        "LD_generate_html_report",
        "LD_generate_json",
        "LD_generate_json_report",
        "LD_generate_xml",
        "LD_generate_xml_report",
        "LD_generate_csv_report",
        "LD_generate_junit_report",
        "LD_generate_summary_report",
        "LD_summary",
    ];
    let folder = tempfile::tempdir().unwrap();
    let document = json!({"load_density": commands.map(|command| [command])});
    run(folder.path(), &document, [1, 2]).expect_code(1);
    let results = results(folder.path());
    for (command, line) in &results {
        let error = match command.as_str() {
            "LD_generate_html" | "LD_generate_html_report" => {
                json!({"kind": "LoadDensityHTMLException", "message": "no records to generate HTML report"})
            }
            "LD_generate_json" | "LD_generate_json_report" | "LD_generate_xml" | "LD_generate_xml_report" => {
                json!({"kind": "LoadDensityGenerateJsonReportException", "message": "can't generate JSON report"})
            }
            _ => Value::Null,
        };
        assert_eq!((&line["error"], line["ok"] == true), (&error, error.is_null()), "{command}");
    }
    let mut files: Vec<_> =
        fs::read_dir(folder.path()).unwrap().map(|f| f.unwrap().file_name().into_string().unwrap()).collect();
    files.retain(|f| !["document.json", "results.jsonl"].contains(&f.as_str()));
    files.sort();
    assert_eq!(files, ["default_name.csv", "loaddensity-junit.xml", "loaddensity-summary.json"]);
    for name in ["default_name.csv", "loaddensity-junit.xml"] {
        assert_eq!(fs::read_to_string(folder.path().join(name)).unwrap(), golden(&format!("empty-records/{name}")));
    }
}

#[test]
fn what_cannot_be_written_fails_its_action_and_says_why() {
    let server = ScriptedServer::start(|_| answer("200 OK", b"ok"));
    let folder = tempfile::tempdir().unwrap();
    let url = server.url();
    let document = json!([
        ["LD_start_test", {
            "user_detail_dict": {"user": "fast_http_user"}, "user_count": 1, "spawn_rate": 1, "test_time": 0.3,
            "tasks": [{"method": "get", "request_url": url, "name": "hit"}], "wait_time": 0.05
        }],
        ["LD_generate_json_report", ["no/such/folder"]],
        ["LD_generate_csv_report", {"csv_name": "good"}],
    ]);
    run(folder.path(), &document, [1, 2]).expect_code(1);
    let results = results(folder.path());
    assert_eq!(results[1].1["ok"], false);
    assert_eq!(results[1].1["error"]["kind"], "OSError");
    assert_eq!(
        results[1].1["error"]["message"],
        "cannot write `no/such/folder_success.json`: its folder does not exist"
    );
    assert_eq!(results[2].1["value"], "good.csv");
    assert!(folder.path().join("good.csv").is_file());
}
