//! SLA rules of the seed: what `LD_evaluate_sla` and `LD_assert_sla` hold a summary against.
//!
//! ```json
//! {"type": "latency_p95", "value": 250, "op": "lte", "name": "checkout"}
//! ```
//!
//! | type | looks at | of one `name` |
//! |---|---|---|
//! | `latency_p50` `_p90` `_p95` `_p99` `_mean` | `latency_overall`, milliseconds | its successes, as the seed has it |
//! | `failure_rate` | `totals`, 0 to 1 | its `failure_rate` |
//! | `requests` | `totals` | its `count` |
//!
//! A summary is ours or one of the seed's: what it lacks fails its rule, "metric not available in
//! summary".

use crate::script::Fault;
use crate::script::reader::Reader;
use crate::script::spec::shown;
use serde::Serialize;
use serde_json::Value;

/// Types of rules.
pub const TYPES: [&str; 7] =
    ["latency_p50", "latency_p90", "latency_p95", "latency_p99", "latency_mean", "failure_rate", "requests"];
/// Comparisons.
pub const OPERATORS: [&str; 4] = ["lt", "lte", "gt", "gte"];
/// Keys of a rule; the last two are for people.
const KEYS: [&str; 6] = ["type", "value", "op", "name", "note", "description"];

/// What came of a rule.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Finding {
    /// Whether it holds.
    pub passed: bool,
    /// As it was given.
    pub rule: Value,
    /// What the summary says.
    pub actual: Option<f64>,
    /// Why it does not hold; empty if it does.
    pub reason: String,
}

/// Holds every rule against a summary.
pub fn evaluate(rules: &[Value], summary: &Value) -> Vec<Finding> {
    rules.iter().map(|rule| finding(rule, summary)).collect()
}

/// `SLA gates failed: …`, if any rule does not hold.
pub fn failure(findings: &[Finding]) -> Option<String> {
    let failed: Vec<String> = findings.iter().filter(|finding| !finding.passed).map(|f| f.reason.clone()).collect();
    (!failed.is_empty()).then(|| format!("SLA gates failed: {}", failed.join("; ")))
}

/// Notes every fault of the rules: they are found before a test has run for nothing.
pub fn check(rules: &[Value], pointer: &str, faults: &mut Vec<Fault>) {
    for (i, rule) in rules.iter().enumerate() {
        let pointer = format!("{pointer}/{i}");
        let Value::Object(map) = rule else {
            let fault = Fault::new(pointer, format!("a rule is an object, found {}", shown(rule)));
            faults.push(fault.help(r#"write {"type": "latency_p95", "value": 250}"#));
            continue;
        };
        let mut reader = Reader::new(map, pointer, faults);
        reader.only(&KEYS, &[]);
        if reader.value("type").is_none() {
            let fault = Fault::new(reader.pointer(), "a rule without `type`");
            reader.fault(fault.help(format!("accepted: {}", TYPES.join(", "))));
        } else {
            reader.choice("type", &TYPES);
        }
        reader.choice("op", &OPERATORS);
        reader.text("name");
        match reader.value("value") {
            None => {
                let fault = Fault::new(reader.pointer(), "a rule without `value`");
                reader.fault(fault.help("add `value`: milliseconds, a share from 0 to 1, or a number of requests"));
            }
            Some(value) if number(value).is_none() => reader.refuse("value", "a number", ""),
            Some(_) => {}
        }
    }
}

fn finding(rule: &Value, summary: &Value) -> Finding {
    let failed = |actual, reason: String| Finding { passed: false, rule: rule.clone(), actual, reason };
    let op = rule.get("op").and_then(Value::as_str).unwrap_or("lte").to_ascii_lowercase();
    if !OPERATORS.contains(&op.as_str()) {
        return failed(None, format!("unsupported op '{op}'"));
    }
    let Some(limit) = rule.get("value").filter(|value| !value.is_null()) else {
        return failed(None, "rule missing 'value'".to_owned());
    };
    let Some(limit) = number(limit) else {
        return failed(None, format!("rule value {} is no number", shown(limit)));
    };
    let Some(actual) = actual(rule, summary) else {
        return failed(None, "metric not available in summary".to_owned());
    };
    let passed = match op.as_str() {
        "lt" => actual < limit,
        "lte" => actual <= limit,
        "gt" => actual > limit,
        _ => actual >= limit,
    };
    if passed {
        return Finding { passed, rule: rule.clone(), actual: Some(actual), reason: String::new() };
    }
    let metric = rule.get("type").and_then(Value::as_str).unwrap_or_default();
    let place = rule.get("name").and_then(Value::as_str).map(|name| format!(" of '{name}'")).unwrap_or_default();
    failed(Some(actual), format!("{metric}{place} is {actual}, not {op} {limit}"))
}

/// What the summary says of a rule's metric.
fn actual(rule: &Value, summary: &Value) -> Option<f64> {
    let metric = rule.get("type")?.as_str()?.to_ascii_lowercase();
    let name = rule.get("name").and_then(Value::as_str);
    if let Some(statistic) = metric.strip_prefix("latency_").filter(|_| TYPES.contains(&metric.as_str())) {
        let latency = match name {
            None => summary.get("latency_overall")?,
            Some(name) => {
                let entry = summary.get("per_name")?.get(name)?;
                // ours has both; the seed's figures of a name are those of its successes
                entry.get("success_latency").unwrap_or(entry)
            }
        };
        if latency.get("count").and_then(Value::as_u64) == Some(0) && name.is_some() {
            return None;
        }
        return latency.get(format!("{statistic}_ms"))?.as_f64();
    }
    match (metric.as_str(), name) {
        ("failure_rate", None) => summary.get("totals")?.get("failure_rate")?.as_f64(),
        ("failure_rate", Some(name)) => summary.get("per_name")?.get(name)?.get("failure_rate")?.as_f64(),
        ("requests", None) => summary.get("totals")?.get("requests")?.as_f64(),
        ("requests", Some(name)) => summary.get("per_name")?.get(name)?.get("count")?.as_f64(),
        _ => None,
    }
}

/// A number, or a text that says one.
fn number(value: &Value) -> Option<f64> {
    value.as_f64().or_else(|| value.as_str()?.trim().parse().ok()).filter(|number: &f64| number.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// The seed's summary of its captured findings.
    fn seeds() -> Value {
        json!({
            "totals": {"requests": 10, "successes": 5, "failures": 5, "failure_rate": 0.5},
            "latency_overall": {"count": 10, "p50_ms": 0.95, "p90_ms": 1.27, "p95_ms": 1.495_224_499_967_661_8, "p99_ms": 1.67, "max_ms": 1.7},
            "per_name": {"ok": {"count": 5, "min_ms": 0.3, "max_ms": 0.9, "mean_ms": 0.576_599_999_931_204_4, "p95_ms": 0.8}},
        })
    }

    #[test]
    fn findings_are_the_seeds() {
        let golden: Value = serde_json::from_str(include_str!("sla/golden.json")).unwrap();
        let rules: Vec<Value> = golden.as_array().unwrap().iter().map(|finding| finding["rule"].clone()).collect();
        let findings = evaluate(&rules, &seeds());
        assert_eq!(serde_json::to_string_pretty(&findings).unwrap(), serde_json::to_string_pretty(&golden).unwrap());
        let text = failure(&findings).unwrap();
        assert!(text.starts_with("SLA gates failed: metric not available in summary; "), "{text}");
        assert_eq!(failure(&findings[..2]), None);
    }

    #[test]
    fn our_summary_has_what_the_seeds_lacks() {
        let summary = json!({
            "totals": {"requests": 4, "failure_rate": 0.5}, "latency_overall": {"count": 4, "mean_ms": 3.0},
            "per_name": {
                "mixed": {"count": 3, "failure_rate": 0.25, "p95_ms": 900.0, "success_latency": {"count": 2, "p95_ms": 5.0}},
                "failing": {"count": 1, "failure_rate": 1.0, "p95_ms": 9.0, "success_latency": {"count": 0, "p95_ms": 0.0}},
            },
        });
        let table = [
            (json!({"type": "latency_mean", "value": 3}), Some(3.0), ""),
            (json!({"type": "latency_p95", "name": "mixed", "value": "10"}), Some(5.0), ""),
            (json!({"type": "latency_p95", "name": "failing", "value": 10}), None, "metric not available in summary"),
            (
                json!({"type": "failure_rate", "name": "mixed", "value": 0.1}),
                Some(0.25),
                "failure_rate of 'mixed' is 0.25, not lte 0.1",
            ),
            (json!({"type": "requests", "name": "failing", "op": "GTE", "value": 1}), Some(1.0), ""),
            (json!({"type": "requests", "op": "lt", "value": 4}), Some(4.0), "requests is 4, not lt 4"),
            (json!({"type": "requests", "name": "none", "value": 4}), None, "metric not available in summary"),
            (json!({"type": "requests", "value": "many"}), None, "rule value 'many' is no number"),
        ];
        for (rule, actual, reason) in table {
            let expected = Finding { passed: reason.is_empty(), rule: rule.clone(), actual, reason: reason.into() };
            assert_eq!(evaluate(&[rule], &summary), [expected]);
        }
    }

    #[test]
    fn slips_are_found_before_anything_runs() {
        let mut faults = Vec::new();
        let rules = json!([{"type": "latency_p95", "value": 1, "note": "x"}, 5, {}, {"type": "latency_p59", "op": "eq", "valeu": 1},
            {"type": "requests", "value": []}]);
        check(rules.as_array().unwrap(), "/rules", &mut faults);
        let seen: Vec<_> = faults.iter().map(|fault| format!("{} {}", fault.pointer, fault.message)).collect();
        assert_eq!(
            seen,
            [
                "/rules/1 a rule is an object, found 5",
                "/rules/2 a rule without `type`",
                "/rules/2 a rule without `value`",
                "/rules/3/valeu unknown key `valeu`",
                "/rules/3/type unknown `type` `latency_p59`",
                "/rules/3/op unknown `op` `eq`",
                "/rules/3 a rule without `value`",
                "/rules/4/value `value` takes a number, found []",
            ]
        );
    }
}
