//! What importers make must be documents that this product takes.

use super::*;
use crate::command::Commands;
use crate::script::{self, Strictness};

/// Every fault of a document.
fn faults(document: &Value) -> Vec<String> {
    let read = script::read(document.to_string().as_bytes(), Strictness::Strict, &Commands::default());
    read.err().unwrap_or_default().iter().map(ToString::to_string).collect()
}

fn load() -> Load {
    Load { user: "fast_http_user".into(), user_count: 2.into(), spawn_rate: 5.into(), test_time: 1.into() }
}

#[test]
fn recordings_pass_the_checker() {
    let har: Value = serde_json::from_str(include_str!("tests/har/recording.har")).unwrap();
    let exclude = ["^data:".to_owned(), "^ws:".to_owned()];
    let filter = Filter::new(&[], &exclude).unwrap();
    for credentials in [Credentials::Keep, Credentials::Variables, Credentials::Secrets] {
        let imported = har_tasks(&har, &filter, HarOptions { pauses: true, credentials }).unwrap();
        assert!(imported.notes.len() <= 1, "{:?}", imported.notes);
        assert_eq!(imported.tasks[0]["think_time"], 0.995, "1.007 s from start to start, 12.3 ms of them under way");
        let document = document(&imported, &load());
        assert_eq!(faults(&document), Vec::<String>::new(), "{credentials:?}");
        assert_eq!(document.to_string().contains("sid=abc"), credentials == Credentials::Keep);
        assert_eq!(document.get("metadata").is_some(), credentials != Credentials::Keep);
    }
}

#[test]
fn commands_and_collections_and_descriptions_pass_the_checker() {
    let curls = [
        "curl http://127.0.0.1/z",
        "curl -X PUT -b 'c=1; d=2' -L -H 'A: b' -H 'Accept:' -d x=1 127.0.0.1/a -m 5 -k",
        "curl -F a=1 -u me:pw http://h/",
        "curl --json '{\"a\":1}' http://h/ --oauth2-bearer t",
    ];
    let mut imported = Imported::default();
    for line in curls {
        imported.tasks.push(complete_curl(curl_task(line).unwrap()));
    }
    assert_eq!(faults(&generated(&imported, &load())), Vec::<String>::new());

    let collection = json!({"variable": [{"key": "b", "value": "http://h"}], "item": [
        {"name": "a", "request": {"url": "{{b}}/x", "body": {"mode": "formdata", "formdata": [{"key": "k", "value": "v"}]},
            "auth": {"type": "basic", "basic": [{"key": "username", "value": "u"}]}}},
        {"name": "b", "request": {"url": "h/y", "method": "PUT", "body": {"mode": "raw", "raw": "[1]"}}},
    ]});
    let mut imported = postman_tasks(&collection).unwrap();
    complete_postman(&mut imported);
    assert_eq!(faults(&document(&imported, &load())), Vec::<String>::new());

    let spec = json!({"components": {"securitySchemes": {"c": {"type": "apiKey", "in": "cookie", "name": "s"}}}, "security": [{"c": []}],
        "paths": {"/a/{id}": {"parameters": [{"name": "id", "in": "path", "example": 1}], "put": {"requestBody": {"content": {
            "multipart/form-data": {"schema": {"properties": {"n": {"type": "integer"}}}}}}, "responses": {"204": {}}}}}});
    let imported = openapi_tasks(&spec, &OpenApi::default()).unwrap();
    assert_eq!(faults(&document(&imported, &load())), Vec::<String>::new());
    assert_eq!(faults(&generated(&imported, &load())), Vec::<String>::new());
}

#[test]
fn generated_documents_are_the_seeds() {
    let tasks = vec![complete_curl(curl_task("curl http://127.0.0.1/z").unwrap())];
    let variables = json!({"a": 1}).as_object().unwrap().clone();
    let load =
        Load { user: "fast_http_user".into(), user_count: 20.into(), spawn_rate: 5.into(), test_time: 60.into() };
    let golden = concat!(
        r#"{"load_density":[["LD_register_variables",{"variables":{"a":1}}],["LD_start_test",{"user_detail_dict":{"user":"fast_http_user"},"#,
        r#""user_count":20,"spawn_rate":5,"test_time":60,"tasks":[{"method":"get","request_url":"http://127.0.0.1/z"}]}],"#,
        r#"["LD_generate_summary_report",{"report_name":"summary"}]]}"#
    );
    assert_eq!(generated(&Imported { tasks, variables, ..Imported::default() }, &load).to_string(), golden);
}

#[test]
fn files_are_read_with_and_without_a_mark() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.har");
    std::fs::write(&path, "\u{feff}{\"log\": {\"entries\": []}}").unwrap();
    assert_eq!(load_value(&path), json!({"log": {"entries": []}}));
    std::fs::write(&path, "{\n\"a\" 1}").unwrap();
    let error = super::load(&path).unwrap_err();
    assert_eq!(error.kind(), "JSONDecodeError");
    assert_eq!(super::load(folder.path()).unwrap_err().kind(), "OSError");
    assert_eq!(super::load(&folder.path().join("none")).unwrap_err().kind(), "FileNotFoundError");
}

fn load_value(path: &Path) -> Value {
    super::load(path).unwrap()
}
