use super::*;
use crate::command::start_test;
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
    let faults = read(text, COMMANDS).unwrap_err();
    faults.iter().map(|fault| format!("{fault}\n")).collect()
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
    insta::assert_snapshot!("not_utf8", faults(b"[\n\"\xff\"]"));
    insta::assert_snapshot!("empty", faults(b" \n"));
}

#[test]
fn arguments_by_position_get_names_and_places() {
    let text = json!([["LD_start_test", [{"user": "fast_http_user"}, -5, 1, 10]]]).to_string();
    let document = parse(text.as_bytes()).unwrap();
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
    let document = read(text.to_string().as_bytes(), COMMANDS).unwrap();
    assert_eq!(document.actions[1].pointer, "/load_density/1");
    assert_eq!(document.actions[1].arguments_pointer(), "/load_density/1/1");
    assert_eq!(document.actions[0].arguments, Arguments::None);
}
