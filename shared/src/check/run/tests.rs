use super::*;
use crate::reply::Headers;
use crate::testing::{bindings_with, task};
use serde_json::json;

fn reply(status: u16, body: &str) -> Reply {
    let mut headers = Headers::default();
    headers.push("X-Request-Id", "req-login");
    Reply { status: Some(status), headers, body: body.into(), body_bytes: body.len() as u64, refusal: None }
}

/// The answer that the seed's assertions were captured against.
fn login() -> String {
    json!({
        "data": {
            "token": "tok-bob", "role": "admin", "id": 7, "ratio": 1.5, "active": true, "none": null,
            "tags": ["a", "b"], "zero": 0, "0": "zk",
        },
        "a.b": "dotted",
    })
    .to_string()
}

fn run(assertions: Vec<Assertion>, reply: &Reply, status_check: StatusCheck) -> Result<(), String> {
    let bindings = bindings_with(json!({}), &[], vec![], &[]);
    let checks = Checks::compile(&task(assertions, vec![]), &bindings);
    let outcome = checks.run(reply, &bindings, &mut Scope::new(&bindings), status_check);
    outcome.map_err(|failure| failure.reason.to_string())
}

fn json_path(path: &str, value: Value) -> Vec<Assertion> {
    vec![Assertion::JsonPath { path: path.into(), value }]
}

fn header(name: &str, value: Value) -> Vec<Assertion> {
    vec![Assertion::Header { name: name.into(), value }]
}

/// What the seed was given under each label of the captured table; `None` for what strict
/// documents cannot hold.
fn of_label(label: &str) -> Option<(Vec<Assertion>, Reply)> {
    let contains = |value: Value| vec![Assertion::Contains(value)];
    let body = match label {
        "404 with contains" => return Some((contains(json!("tok")), reply(404, &login()))),
        "uni contains" => return Some((contains(json!("ünï")), reply(200, "x ünï y"))),
        "jp notjson" => return Some((json_path("a", json!(1)), reply(200, "plain"))),
        "jp notjson null" => return Some((json_path("a", json!(null)), reply(200, "plain"))),
        "jp root array" => return Some((json_path("1", json!("b")), reply(200, r#"["a","b"]"#))),
        "jp scalar root" => return Some((json_path("", json!(5)), reply(200, "5"))),
        "no type" | "unknown type" => return None,
        _ => login(),
    };
    let assertions = match label {
        "SC upper" | "sc str" => vec![Assertion::StatusCode(json!(200))],
        "contains case" => contains(json!("TOK")),
        "contains int" => contains(json!(7)),
        "contains none" => contains(json!(null)),
        "contains" => contains(json!("tok")),
        "notcontains" => vec![Assertion::NotContains(json!("zzz"))],
        "notcontains fail" => vec![Assertion::NotContains(json!("tok"))],
        "first fails stops" => {
            vec![Assertion::Contains(json!("zzz")), Assertion::StatusCode(json!(500))]
        }
        "hdr" => header("X-Request-Id", json!("req-login")),
        "hdr lower" => header("x-request-id", json!("req-login")),
        "hdr wrong" => header("X-Request-Id", json!("z")),
        "hdr missing==None" => header("X-Nope", json!(null)),
        "jp $." => json_path("$.data.token", json!("tok-bob")),
        "jp bool" => json_path("data.active", json!(true)),
        "jp bool==1" => json_path("data.active", json!(1)),
        "jp brackets" => json_path("data.tags[0]", json!("a")),
        "jp dict" => json_path("data.d", Value::Null),
        "jp dotted key" => json_path("a.b", json!("dotted")),
        "jp double dots" => json_path("data..token", json!("tok-bob")),
        "jp empty path=whole" => json_path("", json!({"x": 1})),
        "jp float" => json_path("data.ratio", json!(1.5)),
        "jp idx oob" => json_path("data.tags.9", json!(null)),
        "jp int" => json_path("data.id", json!(7)),
        "jp int-as-str" => json_path("data.id", json!("7")),
        "jp int==float" => json_path("data.id", json!(7.0)),
        "jp into scalar" => json_path("data.id.x", json!(null)),
        "jp list idx" => json_path("data.tags.0", json!("a")),
        "jp missing==null" => json_path("data.nope", json!(null)),
        "jp neg idx" => json_path("data.tags.-1", json!("b")),
        "jp nested" => json_path("data.role", json!("admin")),
        "jp null" => json_path("data.none", json!(null)),
        "jp token" => json_path("data.token", json!("tok-bob")),
        "jp trailing dot" => json_path("data.token.", json!("tok-bob")),
        "jp whole list" => json_path("data.tags", json!(["a", "b"])),
        "jp zero key on dict" => json_path("data.0", json!("zk")),
        "jp zero" => json_path("data.zero", json!(0)),
        other => panic!("no assertions for {other}"),
    };
    Some((assertions, reply(200, &body)))
}

/// Every line of the seed's captured table, with its own rule about the status.
#[test]
fn the_golden_table_of_the_seed() {
    let mut checked = 0;
    for line in include_str!("../golden/assertions-0.0.79.txt").lines() {
        let Some((_, row)) = line.split_once(" ('") else { continue };
        let Some((head, reason)) = row.split_once("0', ").or_else(|| row.split_once("4', ")) else { continue };
        let mut fields = head.split("', '");
        let (_, Some(label), Some(outcome)) = (fields.next(), fields.next(), fields.next()) else { continue };
        let Some((assertions, reply)) = of_label(label) else { continue };
        let many = assertions.iter().cycle().take(assertions.len() * (FEW_PATHS + 1)).cloned().collect();
        let result = run(assertions, &reply, StatusCheck::Assertions);
        assert_eq!(run(many, &reply, StatusCheck::Assertions), result, "{label}: body parsed as a whole");
        checked += 1;
        if outcome == "success" {
            assert_eq!(result, Ok(()), "{label}");
            continue;
        }
        let seen = result.expect_err(label);
        if label == "jp empty path=whole" {
            assert!(seen.starts_with("json_path  expected {'x': 1}, got {'data': {'token': 'tok-bob',"));
        } else {
            // a Python literal in either kind of quotes
            let literal = reason.strip_suffix(')').unwrap();
            let text = literal.get(1..literal.len() - 1).unwrap();
            assert_eq!(seen, text.replace("\\'", "'"), "{label}");
        }
    }
    assert_eq!(checked, 86);
}

#[test]
fn a_bad_status_fails_unless_somebody_accepts_it() {
    use StatusCheck::{Always, Assertions};
    let code = |n: u16| Assertion::StatusCode(json!(n));
    let contains = || Assertion::Contains(json!("x"));
    let table = [
        (vec![], 200, Always, Ok(())),
        (vec![], 404, Always, Err("HTTP 404")),
        (vec![], 500, Assertions, Err("HTTP 500")),
        (vec![contains()], 500, Always, Err("HTTP 500")),
        (vec![contains()], 500, Assertions, Ok(())),
        (vec![code(404)], 404, Always, Ok(())),
        (vec![code(200)], 404, Always, Err("status_code expected 200, got 404")),
        (vec![contains(), code(500)], 500, Always, Ok(())),
        (vec![contains()], 399, Always, Ok(())),
    ];
    for (assertions, status, rule, expected) in table {
        let shown = format!("{assertions:?} {status} {rule:?}");
        assert_eq!(run(assertions, &reply(status, "x"), rule), expected.map_err(str::to_owned), "{shown}");
    }
}

#[test]
fn long_values_are_cut() {
    let long = json!(["ü".repeat(500)]).to_string();
    let reason = run(json_path("", json!(1)), &reply(200, &long), StatusCheck::Always).unwrap_err();
    assert_eq!(reason, format!("json_path  expected 1, got ['{}…", "ü".repeat(198)));
}

#[test]
fn extractors_run_only_if_all_passed() {
    let extract = |var: &str, from| Extractor { var: var.into(), from };
    let extractors = vec![
        extract("token", ExtractFrom::JsonPath("data.token".into())),
        extract("tags", ExtractFrom::JsonPath("data.${which}".into())),
        extract("nul", ExtractFrom::JsonPath("data.none".into())),
        extract("rid", ExtractFrom::Header("x-request-id".into())),
        extract("code", ExtractFrom::StatusCode),
    ];
    let bindings = bindings_with(
        json!({"which": "tags", "nul": "as before"}),
        &[],
        vec![],
        &["token", "tags", "nul", "rid", "code"],
    );
    let text = Template::compile("${token} ${tags} ${nul} ${rid} ${code}", &bindings);
    let mut scope = Scope::new(&bindings);
    let checks = Checks::compile(&task(vec![Assertion::StatusCode(json!(404))], extractors.clone()), &bindings);
    checks.run(&reply(200, &login()), &bindings, &mut scope, StatusCheck::Always).unwrap_err();
    let seen = text.render_text(&bindings, &mut scope).unwrap();
    assert_eq!(seen, "${token} ${tags} as before ${rid} ${code}");
    let checks = Checks::compile(&task(vec![], extractors), &bindings);
    assert!(checks.needs_body() && checks.needs_headers() && !checks.needs_failed_body(StatusCheck::Always));
    checks.run(&reply(200, &login()), &bindings, &mut scope, StatusCheck::Always).unwrap();
    let seen = text.render_text(&bindings, &mut scope).unwrap();
    assert_eq!(seen, "tok-bob ['a', 'b'] as before req-login 200");
}
