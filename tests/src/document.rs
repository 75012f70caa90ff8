//! Action documents of the suites.

use serde_json::{Value, json};

/// A document of one test: GET of `url` under the name `hit`, by `fast_http_user`s. `load` holds the
/// load keys, and may override any other.
pub fn test(url: &str, load: &Value) -> Value {
    let mut test = json!({
        "user_detail_dict": {"user": "fast_http_user"},
        "tasks": [{"method": "get", "request_url": url, "name": "hit"}],
    });
    merge(&mut test, load);
    json!({"load_density": [["LD_start_test", test]]})
}

/// Load keys of a closed test that has all its users at once.
pub fn closed(users: u64, seconds: f64) -> Value {
    json!({"user_count": users, "spawn_rate": 10_000, "test_time": seconds})
}

/// Load keys of an open test.
pub fn open(rate: f64, seconds: f64) -> Value {
    json!({"arrival_rate": rate, "test_time": seconds})
}

/// Adds the keys of `more` to an object.
pub fn merge(into: &mut Value, more: &Value) {
    for (key, value) in more.as_object().into_iter().flatten() {
        into[key] = value.clone();
    }
}

/// The union of two objects; the second wins.
#[must_use]
pub fn and(mut one: Value, other: &Value) -> Value {
    merge(&mut one, other);
    one
}
