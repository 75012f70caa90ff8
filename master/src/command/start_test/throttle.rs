//! `throttle`: limits on the rate of requests, of a test, a scenario or tasks.

use crate::script::Fault;
use crate::script::reader::Reader;
use ld_shared::plan::{Covers, ThrottlePlan};
use serde_json::Value;

/// Reads `throttle`: requests per second, or `{"rps", "key", "burst"}`. Limits with one key are one
/// limit; without a key it is `default_key`. Burst, as in the seed: the whole part of the rate, at
/// least 1.
pub(super) fn read(reader: &mut Reader<'_>, default_key: &str, covers: Covers) -> Option<ThrottlePlan> {
    const HELP: &str = "requests per second over the whole cluster";
    let limit = |rate: f64, burst: Option<u64>, key: &str| ThrottlePlan {
        key: key.into(),
        rate,
        burst: burst.unwrap_or(rate as u64).max(1),
        covers,
    };
    match reader.value("throttle")? {
        Value::Object(_) => {
            let mut own = reader.object("throttle")?;
            own.only(&["rps", "key", "burst"], &[]);
            let rate = own.positive("rps", HELP);
            if own.value("rps").is_none() {
                let fault = Fault::new(own.pointer(), "a throttle without `rps`");
                own.fault(fault.help(r#"write {"rps": 10}: requests per second over the whole cluster"#));
            }
            let burst = own.whole("burst", 1, "requests that may go at once after a pause");
            let key = own.text("key").unwrap_or(default_key);
            Some(limit(rate?, burst, key))
        }
        Value::Number(_) => Some(limit(reader.positive("throttle", HELP)?, None, default_key)),
        _ => {
            let wanted = r#"requests per second, or {"rps", "key", "burst"}"#;
            reader.refuse("throttle", wanted, r#"for example 10, or {"rps": 10, "burst": 1}"#);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of(throttle: &Value) -> Result<Option<(String, f64, u64)>, Vec<String>> {
        let arguments = json!({"throttle": throttle});
        let mut faults = Vec::new();
        let limit = read(&mut Reader::new(arguments.as_object().unwrap(), "", &mut faults), "own", Covers::Tasks);
        if faults.is_empty() {
            Ok(limit.map(|limit| (limit.key.to_string(), limit.rate, limit.burst)))
        } else {
            Err(faults.iter().map(ToString::to_string).collect())
        }
    }

    #[test]
    fn both_forms_and_their_defaults() {
        assert_eq!(of(&json!(10)), Ok(Some(("own".into(), 10.0, 10))));
        assert_eq!(of(&json!(0.5)), Ok(Some(("own".into(), 0.5, 1))));
        assert_eq!(of(&json!({"rps": 2.5, "key": "api", "burst": 7})), Ok(Some(("api".into(), 2.5, 7))));
        assert_eq!(of(&json!({"rps": 2.5, "key": null})), Ok(Some(("own".into(), 2.5, 2))));
        assert_eq!(of(&Value::Null), Ok(None));
    }

    #[test]
    fn what_is_no_limit_is_refused() {
        for (throttle, expected) in [
            (json!(0), "error: `throttle` takes a number above 0, found 0 at /throttle"),
            (json!("10"), "error: `throttle` takes requests per second, or"),
            (json!({"burst": 1}), "error: a throttle without `rps` at /throttle"),
            (json!({"rps": 1, "burst": 0}), "error: `burst` takes a whole number, 1 or more, found 0"),
            (json!({"rps": 1, "rate": 0}), "error: unknown key `rate`"),
        ] {
            let faults = of(&throttle).unwrap_err();
            assert!(faults.len() == 1 && faults[0].starts_with(expected), "{faults:?}");
        }
    }
}
