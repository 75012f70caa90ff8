//! Rules: how they are read, and what they say of made-up spans.

use super::parse::EXAMPLE;
use super::*;
use crate::sample::SeriesKey;

fn phase(successes: &[u64], failures: &[u64]) -> PhaseSnapshot {
    let mut phase = PhaseSnapshot::default();
    let key = SeriesKey { name: "n".into(), request_type: "GET".into(), scenario: "s".into() };
    for ms in successes {
        phase.series_mut(&key).succeeded.record(ms * 1_000);
        phase.service.record(ms * 500);
        phase.lag.record(0);
    }
    for ms in failures {
        phase.series_mut(&key).failed.record(ms * 1_000);
        phase.service.record(ms * 500);
        phase.lag.record(0);
    }
    phase
}

fn observe(rule: &str, main: &PhaseSnapshot) -> (Option<f64>, bool) {
    let rule = Threshold::parse(rule).unwrap();
    let seen = rule.judge_run(&rule.tally(main, Work { started: 100, due: 200, dropped: 3 }), 10.0);
    (seen.value.map(|value| (value * 1e6).round() / 1e6), seen.ok)
}

#[test]
fn rules_hold_or_fail() {
    let main = phase(&[1, 1, 1, 1, 1, 1, 1, 1, 1], &[2]);
    let table = [
        ("p50 < 1.001", (1.0, true)),
        ("p50 < 1ms", (1.0, false)),
        ("p50<=1ms", (1.0, true)),
        ("P95 of response > 1999 us", (2.0, true)),
        ("p999 < 1s", (2.0, true)),
        ("p50 of service == 0.5ms", (0.5, true)),
        ("max of lag == 0", (0.0, true)),
        ("mean <= 1.1ms", (1.1, true)),
        ("rate >= 10/s", (10.0, true)),
        ("count != 10", (10.0, false)),
        ("failures < 1", (1.0, false)),
        ("failure_rate <= 10%", (0.1, true)),
        ("failure_rate < 0.1", (0.1, false)),
        ("failure_rate >= 10%", (0.1, true)),
        ("dropped == 3", (3.0, true)),
        ("dropped < 1.5%", (0.015, false)),
        ("dropped <= 1.5 %", (0.015, true)),
    ];
    for (rule, expected) in table {
        assert_eq!(observe(rule, &main), (Some(expected.0), expected.1), "{rule}");
    }
}

#[test]
fn without_samples_a_rule_fails() {
    let none = phase(&[], &[]);
    for rule in ["p95 < 200ms", "failure_rate < 1%", "failures == 0", "count < 5", "rate > 1/s"] {
        assert_eq!(observe(rule, &none), (None, false), "{rule}");
    }
    assert!(observe("dropped < 5", &none).1);
}

#[test]
fn percentiles_are_named_by_their_digits() {
    let percentile = parse::percentile;
    let table = [("p50", 50.0), ("p05", 5.0), ("p999", 99.9), ("p9999", 99.99), ("p99.9", 99.9), ("p100", 100.0)];
    for (name, p) in table {
        assert_eq!(percentile(name), Some(p), "{name}");
    }
    for name in ["p", "p5", "pp", "p-1", "p.5", "q50", "p101.0"] {
        assert_eq!(percentile(name), None, "{name}");
    }
}

#[test]
fn what_is_not_understood_is_said() {
    let table = [
        ("p95", "no operator in the rule `p95`", EXAMPLE),
        ("p95 <> 5", "unknown operator `<>` in the rule `p95 <> 5`", "accepted: <, <=, >, >=, ==, !="),
        ("p95 < fast", "`fast` is no number in the rule `p95 < fast`", EXAMPLE),
        ("p95 < ", "`` is no number in the rule `p95 < `", EXAMPLE),
        ("p95 < 5%", "`p95` is not measured in `%` in the rule `p95 < 5%`", "accepted: us, ms (if none is given), s"),
        ("count < 5ms", "`count` is not measured in `ms` in the rule `count < 5ms`", "it is a plain number"),
        ("p95 of wire < 5", "`of wire` is not response, service or lag in the rule `p95 of wire < 5`", EXAMPLE),
        (
            "rate of service > 1",
            "`rate` has no `of` in the rule `rate of service > 1`",
            "`of` goes with percentiles, mean and max",
        ),
        (
            "p95 < 5 over 1500ms",
            "`over 1500ms` is no window in the rule `p95 < 5 over 1500ms`",
            "a window has whole seconds, from 1s to 1h, like `over 10s`; a name that holds the word `over` stands in \
             quotes",
        ),
        (
            "p95 < 5 for GET /a",
            "`for GET /a` selects nothing in the rule `p95 < 5 for GET /a`",
            "write it like `for name:GET /a*`, `for scenario:shop` or `for type:GET`",
        ),
        (
            "p95 < 5 for names:a",
            "unknown selection `names` in the rule `p95 < 5 for names:a`",
            "did you mean `name`? accepted: name, scenario, type",
        ),
        (
            "p95 < 5 for name:\"a",
            "no end of the quoted text `\"a` in the rule `p95 < 5 for name:\"a`",
            "write it like `for name:GET /a*`, `for scenario:shop` or `for type:GET`",
        ),
        (
            "dropped < 5 for scenario:a",
            "`dropped` has no `for` in the rule `dropped < 5 for scenario:a`",
            "iterations are dropped before it is known what they would have requested; leave `for` out",
        ),
        (
            "p95 over 10s < 5",
            "`over` before the operator in the rule `p95 over 10s < 5`",
            "the operator and its number come first, like `p95 < 200ms for name:GET /a* over 10s`",
        ),
        (
            "p95 < 5 over 10s over 5s",
            "`over 10s over 5s` is no window in the rule `p95 < 5 over 10s over 5s`",
            "a window has whole seconds, from 1s to 1h, like `over 10s`; a name that holds the word `over` stands in \
             quotes",
        ),
        (
            "failurerate < 1%",
            "unknown metric `failurerate` in the rule `failurerate < 1%`",
            "did you mean `failure_rate`? accepted: p50, p90, p95, p99, p999, mean, max, rate, count, failures, \
             failure_rate, dropped",
        ),
    ];
    for (rule, message, help) in table {
        let fault = Threshold::parse(rule).unwrap_err();
        assert_eq!((fault.message.as_str(), fault.help.as_deref()), (message, Some(help)));
    }
}

#[test]
fn selections_and_windows() {
    let name = |glob: &str| Some(Selector::Name(glob.into()));
    let table = [
        ("p95 < 5", None, None),
        ("p95 < 5 OVER 10s", None, Some(10)),
        ("p95<5ms for name:GET /Api?x=<1>* over 2m", name("GET /Api?x=<1>*"), Some(120)),
        ("p95 < 5 for name:get over it", None, Some(0)),
        ("p95 < 5 for name:\"get over it\"", name("get over it"), None),
        ("p95 < 5 for name:'get over it' over 1h", name("get over it"), Some(3600)),
        ("p95 < 5 for name:wait for over 3 s over 3 s", name("wait for over 3 s"), Some(3)),
        ("rate > 5/s over 10 s for name: a  b ", name("a  b"), Some(10)),
        ("count > 5 for Scenario:shop", Some(Selector::Scenario("shop".into())), None),
        ("count > 5 for type:GET", Some(Selector::Type("GET".into())), None),
    ];
    for (rule, selector, over) in table {
        match Threshold::parse(rule) {
            Ok(rule) => assert_eq!((rule.selector(), rule.over()), (selector.as_ref(), over), "{rule}"),
            Err(fault) => assert_eq!(over, Some(0), "{fault}"),
        }
    }
}

#[test]
fn selected_series_alone_count() {
    let mut main = phase(&[10, 10], &[]);
    let other = SeriesKey { name: "other".into(), request_type: "POST".into(), scenario: "s".into() };
    let series = main.series_mut(&other);
    series.failed.record(70_000);
    series.service.record(60_000);
    series.lag.record(10_000);
    let table = [
        ("max < 1s", 70.0),
        ("max < 1s for name:n", 10.0),
        ("max < 1s for name:o*", 70.0),
        ("max of service < 1s for type:post", 60.0),
        ("max of lag < 1s for type:POST", 10.0),
        ("count < 9 for scenario:s", 3.0),
        ("failures < 9 for name:other", 1.0),
        ("failure_rate < 9 for name:n", 0.0),
        ("rate < 9 for name:n", 0.2),
    ];
    for (rule, expected) in table {
        assert_eq!(observe(rule, &main), (Some(expected), true), "{rule}");
    }
    assert_eq!(observe("p95 < 9s for name:nobody", &main), (None, false));
    assert_eq!(observe("count < 9 for name:nobody", &main), (None, false));
    let details = |rule: &str| Threshold::parse(rule).unwrap().detail().is_some();
    assert!(details("max of lag < 1 for name:a") && !details("max of lag < 1") && !details("max < 1 for name:a"));
}

#[test]
fn what_every_test_fails_at_its_start_may_not_abort() {
    let aborting = |rule: &str| Threshold::parse(rule).unwrap().aborting();
    for rule in ["p95 < 5", "failures == 0", "rate <= 5", "count > 5 over 10s", "dropped == 0"] {
        assert!(aborting(rule).is_ok_and(|rule| rule.aborts()), "{rule}");
    }
    for rule in ["rate > 5/s", "count >= 1", "failures != 3", "count == 5", "p50 > 1ms"] {
        assert!(aborting(rule).is_err(), "{rule}");
        let rule = Threshold::parse(rule).unwrap().after(RunTime::from_secs(5.0));
        assert!(rule.aborting().is_ok());
    }
    assert_eq!(
        aborting("rate > 5/s").unwrap_err().to_string(),
        "error: `rate > 5/s` would abort every test at its start\n help: say from when on it is judged, like \
         \"after\": \"10s\", or over which window, like `over 10s`"
    );
}

#[test]
fn the_worst_is_the_furthest_on_the_wrong_side() {
    let seen = |value: f64| Observed { value: Some(value), ok: true };
    let table = [("p95 < 5", 3.0, 2.0), ("rate > 5", 2.0, 3.0), ("count == 5", 2.0, 6.0), ("count != 5", 4.0, 1.0)];
    for (rule, worse, better) in table {
        let rule = Threshold::parse(rule).unwrap();
        assert!(rule.is_worse(seen(worse), seen(better)) && !rule.is_worse(seen(better), seen(worse)), "{rule}");
        let none = Observed { value: None, ok: false };
        assert!(rule.is_worse(none, seen(worse)) && !rule.is_worse(seen(worse), none) && !rule.is_worse(none, none));
    }
}
