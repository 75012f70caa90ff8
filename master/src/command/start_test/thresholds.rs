//! `thresholds`: rules as texts, or as objects that say more.

use crate::script::Fault;
use crate::script::reader::Reader;
use ld_shared::fault::{did_you_mean, step};
use ld_shared::plan::ScenarioPlan;
use ld_shared::threshold::{Selector, Threshold};
use ld_shared::time::{RunTime, SECOND};
use serde_json::Value;
use std::sync::Arc;

/// The length of a test and of its warm-up.
#[derive(Clone, Copy, Debug)]
pub(super) struct Length {
    pub(super) test_time: Option<RunTime>,
    pub(super) warmup: RunTime,
}

/// Reads the rules of a test.
pub(super) fn read(reader: &mut Reader<'_>, length: Length, warnings: &mut Vec<String>) -> Vec<Threshold> {
    let base = reader.at("thresholds");
    let items = reader.list("thresholds").unwrap_or_default();
    let mut rules = Vec::new();
    for (i, item) in items.iter().enumerate() {
        let pointer = format!("{base}{}", step(&i.to_string()));
        let rule = match item {
            Value::String(rule) => Threshold::parse(rule).map_err(|fault| vec![fault.under(&pointer)]),
            Value::Object(map) => {
                let mut faults = Vec::new();
                let rule = object(Reader::new(map, &*pointer, &mut faults), length, warnings);
                rule.filter(|_| faults.is_empty()).ok_or(faults)
            }
            other => {
                let message = format!("a rule is a text or an object, found {}", crate::script::spec::shown(other));
                let help = "for example \"p95 < 200ms\" or {\"rule\": \"p95 < 200ms over 10s\", \"abort\": true}";
                Err(vec![Fault::new(&*pointer, message).help(help)])
            }
        };
        let rule = rule.and_then(|rule| fits(rule, length).map_err(|fault| vec![fault.under(&pointer)]));
        match rule {
            Ok(rule) => rules.push(rule),
            Err(faults) => reader.faults().extend(faults),
        }
    }
    rules
}

/// `{"rule", "abort", "after"}`.
fn object(mut reader: Reader<'_>, length: Length, warnings: &mut Vec<String>) -> Option<Threshold> {
    reader.only(&["rule", "abort", "after"], &[]);
    let abort = reader.boolean("abort").unwrap_or(false);
    let after = reader.duration("after", true, "").map(RunTime::from_secs);
    let pointer = reader.at("rule");
    let Some(rule) = reader.text("rule") else {
        if reader.value("rule").is_none() {
            let fault = Fault::new(reader.pointer(), "`rule` is missing");
            reader.fault(fault.help("for example {\"rule\": \"p95 < 200ms over 10s\", \"abort\": true}"));
        }
        return None;
    };
    let mut rule = Threshold::parse(rule).map_err(|fault| reader.fault(fault.under(&pointer))).ok()?;
    if let Some(after) = after {
        if length.test_time.is_some_and(|end| after >= end) {
            let fault = Fault::new(reader.at("after"), "`after` leaves nothing of the test to judge");
            reader.fault(fault.help("it is a time of the test's own, counted from its start: make it shorter"));
        }
        if !abort && rule.over().is_none() {
            let rule = rule.rule();
            warnings.push(format!("`after` has no effect on `{rule}`: it is judged once, at the end, on the whole"));
        }
        rule = rule.after(after);
    }
    if abort {
        rule = rule.aborting().map_err(|fault| reader.fault(fault.under(&pointer))).ok()?;
    }
    Some(rule)
}

/// A window must fit into the test.
fn fits(rule: Threshold, length: Length) -> Result<Threshold, Fault> {
    let (Some(end), Some(over)) = (length.test_time, rule.over()) else { return Ok(rule) };
    // windows have whole seconds of run time
    let seconds = (end.0 / SECOND).saturating_sub(length.warmup.0.div_ceil(SECOND));
    if u64::from(over) <= seconds {
        return Ok(rule);
    }
    let message = format!("a window of {over} s does not fit into the {seconds} s of the test that are measured");
    Err(Fault::new("", message).help("make the window shorter or the test longer"))
}

/// Faults of rules for scenarios that the test does not have.
pub(super) fn unknown_scenarios(rules: &[Threshold], scenarios: &[ScenarioPlan], pointer: &str) -> Vec<Fault> {
    let names: Vec<&str> = scenarios.iter().map(|scenario| &*scenario.name).collect();
    let unknown = rules.iter().enumerate().filter_map(|(i, rule)| match rule.selector()? {
        Selector::Scenario(name) if !names.contains(&&**name) => Some((i, name)),
        Selector::Scenario(_) | Selector::Name(_) | Selector::Type(_) => None,
    });
    let fault = |(i, name): (usize, &Arc<str>)| {
        let fault = Fault::new(format!("{pointer}/thresholds/{i}"), format!("the test has no scenario `{name}`"));
        fault.help(did_you_mean(name, names.iter().copied()))
    };
    unknown.map(fault).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn rules(thresholds: &Value) -> (Vec<Threshold>, Vec<String>, Vec<String>) {
        let arguments = json!({"thresholds": thresholds});
        let (mut faults, mut warnings) = (Vec::new(), Vec::new());
        let length = Length { test_time: Some(RunTime::from_secs(20.5)), warmup: RunTime::from_secs(1.5) };
        let map = arguments.as_object().unwrap();
        let rules = read(&mut Reader::new(map, "/t", &mut faults), length, &mut warnings);
        (rules, faults.iter().map(ToString::to_string).collect(), warnings)
    }

    #[test]
    fn rules_are_texts_or_objects() {
        let (rules, faults, warnings) = rules(&json!([
            "p95 < 5ms",
            {"rule": "rate > 5/s", "abort": true, "after": "2.5s"},
            {"rule": "p95 < 5 over 18s", "abort": false},
            {"rule": "count > 5", "after": 3},
        ]));
        assert_eq!(faults, Vec::<String>::new());
        assert_eq!(rules.iter().map(Threshold::aborts).collect::<Vec<_>>(), [false, true, false, false]);
        assert_eq!(rules[1].judged_from(), RunTime::from_secs(2.5));
        assert_eq!(warnings, ["`after` has no effect on `count > 5`: it is judged once, at the end, on the whole"]);
    }

    #[test]
    fn every_fault_has_its_place() {
        let (rules, faults, _) = rules(&json!([
            "p95 < 5%",
            {"rul": "p95 < 5ms", "abort": "yes"},
            {"rule": "p95 < 5 over 1ms", "after": 21},
            {"rule": "p95 < 5", "after": 21, "abrt": true},
            {"rule": "count > 5", "abort": true},
            "p95 < 5 over 19s",
            7,
        ]));
        assert!(rules.is_empty());
        insta::assert_snapshot!(faults.join("\n"));
    }

    #[test]
    fn scenarios_must_be_there() {
        let (rules, ..) = rules(&json!(["p95 < 5", "p95 < 5 for scenario:shpo", "p95 < 5 for scenario:shop"]));
        let faults = unknown_scenarios(&rules, &crate::run::fixture::plan().scenarios, "/0/1");
        let texts: Vec<String> = faults.iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            ["error: the test has no scenario `shpo` at /0/1/thresholds/1\n help: did you mean `shop`? accepted: shop"]
        );
    }
}
