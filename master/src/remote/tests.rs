//! Documents from outside, over a cluster of one core in this process.

use super::*;
use crate::app::App;
use crate::cluster::{Cluster, ClusterOptions, Security};
use crate::console::Console;
use crate::run::verdict::exit;
use crate::script::Strictness;
use crate::target::{self, Target};
use ld_shared::boot::signal::Signals;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

async fn app() -> App {
    let options = ClusterOptions {
        bind: None,
        local_cores: Some(1),
        expected_workers: 1,
        wait: Duration::from_mins(1),
        security: Security::default(),
    };
    let (_, nobody) = watch::channel(0);
    let cluster = Cluster::open(options).await.unwrap();
    App::new(cluster, Console::silent(), Signals::from_channel(nobody), None)
}

fn order(document: &Value) -> Order {
    let root = std::env::current_dir().unwrap();
    Order {
        document: document.to_string().into_bytes(),
        strictness: Strictness::Strict,
        label: Some("a label".into()),
        by: "a test".into(),
        policy: Some(Arc::new(Policy::narrow(root))),
    }
}

fn test_of(url: &str, more: &Value) -> Value {
    let mut test = json!({
        "user_detail_dict": {"user": "fast_http_user"}, "user_count": 2, "spawn_rate": 10, "test_time": 1,
        "tasks": [{"method": "get", "request_url": url, "name": "home"}],
    });
    test.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!([["LD_start_test", test]])
}

fn refused(app: &App, document: &Value) -> Vec<String> {
    match app.submit(order(document)) {
        Err(SubmitError::Faults(faults)) => faults.into_iter().map(|fault| fault.message).collect(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_run_one_after_another_and_every_second_is_there_once() {
    let target = Target::start(target::Options::default()).unwrap();
    let app = app().await;
    let url = format!("http://{}/", target.addr());
    let first = app.submit(order(&test_of(&url, &json!({"test_time": 2})))).unwrap();
    let second = app.submit(order(&test_of(&url, &json!({})))).unwrap();
    assert!(matches!(second.state(), JobState::Queued));
    let mut watch = app.now_watch();
    let now = watch.wait_for(Option::is_some).await.unwrap().clone().unwrap();
    assert_eq!((now.by.as_str(), now.label.as_deref()), ("a test", Some("a label")));
    // what is fed only grows, also while the run ends
    let mut before = 0;
    while !matches!(first.state(), JobState::Finished(_)) {
        let fed = app.feed().await.odometers.of_requests()[0].requests_started;
        assert!(fed >= before, "{fed} after {before}");
        before = fed;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let run = first.runs().pop().unwrap();
    assert_eq!(run.measured.run, now.run);
    let seconds: Vec<u32> = now.seconds.after(0).iter().map(|second| second.second).collect();
    assert_eq!(seconds, (0..seconds.len() as u32).collect::<Vec<_>>());
    let sum: u64 = now.seconds.after(0).iter().map(|second| second.succeeded).sum();
    assert_eq!(sum, run.measured.odometers.of_requests()[0].requests_ended);
    assert!(now.seconds.watch().borrow().1, "no more seconds come");
    assert_eq!(second.finished().await.exit_code, exit::PASSED);
    let total: u64 = [&first, &second]
        .iter()
        .flat_map(|job| job.runs())
        .map(|run| run.measured.odometers.of_requests()[0].requests_started)
        .sum();
    assert_eq!(app.feed().await.odometers.of_requests()[0].requests_started, total);
    app.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_can_be_ended_while_it_waits_and_while_it_runs() {
    let target = Target::start(target::Options::default()).unwrap();
    let app = app().await;
    let document = test_of(&format!("http://{}/", target.addr()), &json!({"test_time": 60}));
    let [first, second] = [0, 1].map(|_| app.submit(order(&document)).unwrap());
    let now = app.now_watch().wait_for(Option::is_some).await.unwrap().clone().unwrap();
    now.progress.clone().wait_for(|progress| progress.state == "running").await.unwrap();
    second.caller.control.stop.cancel();
    assert_eq!(second.finished().await.outcomes.len(), 0);
    first.caller.control.stop.cancel();
    let finished = first.finished().await;
    assert_eq!((finished.exit_code, first.runs().len()), (exit::ENDED_BY_USER, 1));
    app.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_from_outside_get_what_the_policy_allows() {
    let app = app().await;
    let ok = "http://127.0.0.1:1/";
    let started = |more: Value| test_of(ok, &more);
    let cases = [
        (started(json!({"runner_mode": "worker"})), "`runner_mode` is not open"),
        (started(json!({"variables": {"a": "${env.HOME}"}})), "`${env.HOME}` may not be read"),
        (json!([["LD_add_package_to_executor", ["time"]]]), "is not open to callers from outside"),
        (json!([["LD_load_har", ["/etc/passwd"]]]), "lies outside the working folder"),
        (json!([["LD_generate_summary_report", ["../out"]]]), "lies outside the working folder"),
        (json!([["LD_execute_files", [["/tmp/a.json"]]]]), "lies outside the working folder"),
        (json!([["LD_list_runs", ["postgres://h/db"]]]), "is no file"),
    ];
    for (document, expected) in cases {
        let seen = refused(&app, &document);
        assert!(seen.iter().any(|text| text.contains(expected)), "{document}: {seen:?}");
    }
    // what shows only when the test is made fails its action
    let cases = [
        (started(json!({"test_time": 7200})), "test_time: 7200 s is more"),
        (started(json!({"test_time": null})), "a test without end"),
        (started(json!({"user_count": 20_000, "spawn_rate": 20_000})), "users: 20000 is more"),
        (started(json!({"csv_sources": [{"name": "a", "file_path": "/etc/passwd"}]})), "lies outside"),
        (started(json!({"tls": {"ca": "/etc/passwd"}})), "lies outside"),
        (started(json!({"records": {"all": "/tmp/x.csv"}})), "lies outside"),
        (json!([["LD_execute_action", [[["LD_load_har", ["/etc/passwd"]]]]]]), "lies outside"),
    ];
    for (document, expected) in cases {
        let finished = app.submit(order(&document)).unwrap().finished().await;
        let errors: Vec<String> =
            finished.outcomes.iter().flat_map(|o| o.errors()).map(|(_, e)| e.to_string()).collect();
        assert!(errors.iter().any(|text| text.contains(expected)), "{document}: {errors:?}");
    }
    // only where the policy says; a name does not help
    let document = test_of("http://192.0.2.1:9/", &json!({"timeouts": {"connect": 1}}));
    let job = app.submit(order(&document)).unwrap();
    job.finished().await;
    let run = job.runs().pop().unwrap();
    let reasons: Vec<_> = run.measured.total.phases[0].failures.keys().map(|(_, reason)| reason.to_string()).collect();
    assert!(reasons.iter().all(|reason| reason.contains("not allowed")) && !reasons.is_empty(), "{reasons:?}");
    app.close().await;
}
