use super::*;
use serde_json::json;

/// Calls and what Python 3.11 makes of them.
const PYTHON: &str = include_str!("golden/python-3.11.json");

fn call(name: &str, values: Vec<Value>, named: Value) -> Answer {
    let builtin = find(name).unwrap();
    let Value::Object(named) = named else { panic!() };
    let given = Given { name: builtin.function.name, values, named };
    match builtin.work {
        Work::Pure(work) => work(&given),
        Work::Print => panic!("prints"),
    }
}

#[test]
fn results_and_errors_are_pythons() {
    let cases: Vec<Value> = serde_json::from_str(PYTHON).unwrap();
    assert!(cases.len() > 190);
    for case in cases {
        let name = case["call"][0].as_str().unwrap();
        let seen = match call(name, case["call"][1].as_array().unwrap().clone(), json!({})) {
            Ok(value) => json!({"call": case["call"], "value": value}),
            Err(error) => json!({"call": case["call"], "error": [error.kind, error.message]}),
        };
        assert_eq!(seen, case);
    }
}

#[test]
fn arguments_by_name() {
    let table = [
        ("sorted", json!({"iterable": [1, 3, 2], "reverse": true}), json!([3, 2, 1])),
        ("sum", json!({"iterable": [1, 2], "start": 10}), json!(13)),
        ("max", json!({"iterable": [], "default": 7}), json!(7)),
        ("round", json!({"number": 2.567, "ndigits": 1}), json!(2.6)),
        ("pow", json!({"base": 2, "exp": 10, "mod": 1000}), json!(24)),
    ];
    for (name, named, value) in table {
        assert_eq!(call(name, vec![], named).unwrap(), value, "{name}");
    }
    assert_eq!(call("round", vec![], json!({"ndigits": 1})).unwrap_err().kind, "TypeError");
}

#[test]
fn the_table_is_that_of_the_seeds_newest_release_and_range() {
    let names: Vec<&str> = BUILTINS.iter().map(|builtin| builtin.function.name).collect();
    let seed = "abs all any ascii bin callable chr divmod format hash hex len max min oct ord pow print \
                repr round sorted sum";
    assert_eq!(names.iter().copied().filter(|name| *name != "range").collect::<Vec<_>>().join(" "), seed);
    // the old release's list, so that none of it is missing
    let old = "__build_class__ abs aiter all anext any ascii bin callable chr delattr dir divmod format getattr \
               globals hasattr hash hex id isinstance issubclass iter len locals max min next oct ord pow print repr \
               round setattr sorted sum vars";
    for name in old.split_whitespace() {
        assert!(names.contains(&name) != refusal(name).is_some(), "{name}");
    }
}

#[test]
fn nothing_grows_without_bound() {
    assert_eq!(call("range", vec![json!(1_000_000_000)], json!({})).unwrap_err().kind, "OverflowError");
    assert_eq!(call("pow", vec![json!(10), json!(1_000_000)], json!({})).unwrap_err().kind, "OverflowError");
    assert!(call("format", vec![json!(1), json!("9999999999")], json!({})).is_err());
}
