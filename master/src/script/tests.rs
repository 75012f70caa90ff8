use super::*;
use crate::command::start_test;
use proptest::prelude::*;
use serde_json::json;

const COMMANDS: &[CommandSpec] = &[
    start_test::SPEC,
    CommandSpec { name: "LD_clear_records", parameters: &[], check: None },
    CommandSpec { name: "LD_summary", parameters: &[], check: None },
    CommandSpec {
        name: "LD_register_variable",
        parameters: &[Parameter::new("name", Kind::Text).required(), Parameter::new("value", Kind::Any).required()],
        check: None,
    },
];

fn faults(text: &[u8]) -> String {
    let faults = read(text, Strictness::Strict, COMMANDS).unwrap_err();
    faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

macro_rules! bad {
    ($name:literal) => {
        faults(include_bytes!(concat!("tests/bad/", $name, ".json")))
    };
}

/// The documents that the seed refuses or swallows, and what we say of them.
#[test]
fn bad_documents_get_errors_that_a_stranger_understands() {
    insta::assert_snapshot!("01_syntax_error", bad!("01_syntax_error"));
    insta::assert_snapshot!("02_wrong_top_level_key", bad!("02_wrong_top_level_key"));
    insta::assert_snapshot!("03_empty_list", bad!("03_empty_list"));
    insta::assert_snapshot!("04_scalar_document", bad!("04_scalar_document"));
    insta::assert_snapshot!("05_too_many_elements", bad!("05_too_many_elements"));
    insta::assert_snapshot!("06_unknown_command", bad!("06_unknown_command"));
    insta::assert_snapshot!("07_unknown_user_type", bad!("07_unknown_user_type"));
    insta::assert_snapshot!("08_missing_required_argument", bad!("08_missing_required_argument"));
    insta::assert_snapshot!("10_action_is_string", bad!("10_action_is_string"));
    insta::assert_snapshot!("11_bad_exporter_arguments", bad!("11_bad_exporter_arguments"));
    insta::assert_snapshot!("12_bad_numbers_are_swallowed", bad!("12_bad_numbers_are_swallowed"));
    insta::assert_snapshot!("13_bom", bad!("13_bom"));
}

#[test]
fn every_fault_of_a_document_is_reported_at_once() {
    let document = json!({"load_density": [
        ["LD_start_test", {
            "user_detail_dict": {"user": "fast_htp_user", "host": "x"},
            "user_cuont": 5,
            "test_time": "10 parsec",
            "web_ui_dict": {"port": 8089},
            "runner_mode": "master",
            "retry": {},
            "variables": 7,
            "status_check": "never",
            "thresholds": ["p95 < 5%", {"rule": "p95 < 5ms", "abort": true}, 7],
            "connections": "shared:0",
            "timeouts": {"conect": 5, "request": -1},
            "tls": {"key": "k.pem"},
            "http_version": "2",
            "records": {"bodies": "sometimes"},
            "csv_sources": [{"name": "a.b", "file_path": 5}, "x"],
            "warmup": 70,
            "tasks": {"mode": "weigthed", "tasks": [
                {"method": "get", "request_url": "http://x/${randint(5,1)}", "weight": "heavy", "assertion": []},
                {"method": "get", "run_if": {"gt": [1, 2]}, "assertions": [{"type": "regex"}], "extract": {}},
                "x",
            ]},
        }],
        ["LD_register_variable", ["a", 1, 2]],
        ["LD_register_variable", [5]],
        ["LD_summary", {"x": 1}],
        ["LD_load_har", {"file_path": "x"}],
        [],
        [5],
        ["LD_summary", "x"],
    ], "comment": 1});
    insta::assert_snapshot!(faults(document.to_string().as_bytes()));
}

#[test]
fn json_errors_show_the_place() {
    let text = "[\n  [\"LD_summary\"],\n  [\"LD_clear_records\" {}]\n]";
    insta::assert_snapshot!("missing_comma", faults(text.as_bytes()));
    insta::assert_snapshot!("unclosed", faults(b"[[\"LD_summary\"]"));
    insta::assert_snapshot!("single_quotes", faults(b"[['LD_summary']]"));
    insta::assert_snapshot!("python", faults(b"[[\"LD_summary\", {\"x\": None}]]"));
    insta::assert_snapshot!("twice", faults(b"[[\"LD_summary\", {\"x\": 1, \"x\": 2}]]"));
    insta::assert_snapshot!("not_utf8", faults(b"[\n\"\xff\"]"));
    insta::assert_snapshot!("empty", faults(b" \n"));
}

#[test]
fn arguments_by_position_get_names_and_places() {
    let text = json!([["LD_start_test", [{"user": "fast_http_user"}, -5, 1, 10]]]).to_string();
    let document = parse(text.as_bytes(), Strictness::Strict).unwrap();
    let named = document.actions[0].named(&start_test::SPEC);
    assert_eq!(named["user_count"], json!(-5));
    assert_eq!(named["test_time"], json!(10));
    let faults = check(&document, COMMANDS);
    let pointers: Vec<&str> = faults.iter().map(|fault| fault.pointer.as_str()).collect();
    assert_eq!(pointers, ["/0/1/1", "/0/1"], "the count, and that there are no tasks");
}

#[test]
fn good_documents_are_read() {
    let text = json!({"$schema": "x", "metadata": {}, "load_density": [["LD_summary"], ["LD_register_variable", {"name": "a", "value": null}]]});
    let document = read(text.to_string().as_bytes(), Strictness::Strict, COMMANDS).unwrap();
    assert_eq!(document.actions[1].pointer, "/load_density/1");
    assert_eq!(document.actions[1].arguments_pointer(), "/load_density/1/1");
    assert_eq!(document.actions[0].arguments, Arguments::None);
}

proptest! {
    /// Whatever stands anywhere in a document: faults or a test, never a panic.
    #[test]
    fn odd_values_never_panic(place in 0usize..400, odd in odd_value()) {
        let mut document = json!([["LD_start_test", {
            "user_detail_dict": {"user": "fast_http_user"}, "user_count": 5, "spawn_rate": 1, "test_time": 5,
            "variables": {"a": 1}, "csv_sources": [{"name": "a", "file_path": "b", "cycle": true}],
            "tasks": {"mode": "weighted", "tasks": [{
                "method": "get", "url": "http://x/${a}", "weight": 1, "name": "n", "think_time": [1, 2],
                "run_if": {"in": ["a", ["b"]]}, "skip_if": {"truthy": "x"},
                "assertions": [{"type": "json_path", "path": "a", "value": [1]}],
                "extract": [{"var": "a", "from": "header", "name": "x"}],
            }]},
            "thresholds": ["p95 < 5ms"], "timeouts": {"connect": 5}, "tls": {"ca": "x"},
            "records": {"keep": 5, "bodies": "none"}, "wait_time": 1, "warmup": 1, "connections": "shared:5",
        }], ["LD_start_test", {
            "user_detail_dict": {}, "tasks": {"get": {"url": "x"}}, "load_shape": "stages",
            "shape_config": {"stages": [{"duration": 1, "rate": 5, "spawn_rate": 1}, {"duration": 1, "rate": 5}]},
        }]]);
        let mut left = place;
        replace(&mut document, &mut left, &odd);
        let _read = read(document.to_string().as_bytes(), Strictness::Strict, COMMANDS);
    }

    #[test]
    fn odd_bytes_never_panic(text in prop::collection::vec(any::<u8>(), 0..50)) {
        let _read = read(&text, Strictness::Strict, COMMANDS);
    }
}

fn odd_value() -> impl Strategy<Value = Value> {
    prop::sample::select(vec![
        json!(null),
        json!(true),
        json!(-1),
        json!(0),
        json!(0.5),
        json!(1e300),
        json!(u64::MAX),
        json!(""),
        json!("${randint(1"),
        json!("ü"),
        json!("1e999s"),
        json!([]),
        json!([1]),
        json!([[], {}]),
        json!({}),
        json!({"tasks": {}}),
        json!({"get": 5}),
        json!({"~/": 1}),
    ])
}

/// Replaces the value that is `left` steps away in a walk over all of them.
fn replace(value: &mut Value, left: &mut usize, with: &Value) {
    if *left == 0 {
        *value = with.clone();
    }
    *left = left.wrapping_sub(1);
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| replace(item, left, with)),
        Value::Object(map) => map.values_mut().for_each(|item| replace(item, left, with)),
        _ => {}
    }
}
