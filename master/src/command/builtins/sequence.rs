//! Functions of lists, texts (their characters) and objects (their keys).

use super::number::{Number, index};
use super::{Answer, CommandError, Given, compare, operands, overflow, type_error, value_error};
use crate::script::type_name;
use ld_shared::pytext::truthy;
use serde_json::Value;
use std::cmp::Ordering;

/// Longest list that `range` makes.
const MOST: i128 = 1_000_000;

fn elements(value: &Value) -> Result<Vec<Value>, CommandError> {
    match value {
        Value::Array(items) => Ok(items.clone()),
        Value::String(text) => Ok(text.chars().map(|c| c.to_string().into()).collect()),
        Value::Object(map) => Ok(map.keys().map(|key| key.as_str().into()).collect()),
        other => Err(type_error(format!("'{}' object is not iterable", type_name(other)))),
    }
}

pub(super) fn all(given: &Given) -> Answer {
    Ok(elements(given.first()?)?.iter().all(truthy).into())
}

pub(super) fn any(given: &Given) -> Answer {
    Ok(elements(given.first()?)?.iter().any(truthy).into())
}

pub(super) fn len(given: &Given) -> Answer {
    let value = given.first()?;
    match value {
        Value::Array(items) => Ok(items.len().into()),
        Value::String(text) => Ok(text.chars().count().into()),
        Value::Object(map) => Ok(map.len().into()),
        other => Err(type_error(format!("object of type '{}' has no len()", type_name(other)))),
    }
}

pub(super) fn max(given: &Given) -> Answer {
    extreme(given, Ordering::Greater, ">")
}

pub(super) fn min(given: &Given) -> Answer {
    extreme(given, Ordering::Less, "<")
}

fn extreme(given: &Given, wanted: Ordering, operator: &str) -> Answer {
    let items = if given.values.len() > 1 { given.values.clone() } else { elements(given.first()?)? };
    let mut items = items.into_iter();
    let Some(mut best) = items.next() else {
        return match given.named.get("default") {
            Some(default) => Ok(default.clone()),
            None => Err(value_error(format!("{}() arg is an empty sequence", given.name))),
        };
    };
    for item in items {
        if compare::order(&item, &best, operator)? == wanted {
            best = item;
        }
    }
    Ok(best)
}

pub(super) fn sorted(given: &Given) -> Answer {
    let mut items = elements(given.first()?)?;
    let reverse = given.named.get("reverse").is_some_and(truthy);
    // whatever cannot be compared is found here, in the order in which Python asks
    for pair in items.windows(2) {
        compare::order(&pair[1], &pair[0], "<")?;
    }
    let mut failed = None;
    items.sort_by(|a, b| {
        let order = compare::order(a, b, "<").unwrap_or_else(|error| {
            failed = Some(error);
            Ordering::Equal
        });
        if reverse { order.reverse() } else { order }
    });
    failed.map_or(Ok(Value::Array(items)), Err)
}

pub(super) fn sum(given: &Given) -> Answer {
    let mut total = given.get(1, "start").cloned().unwrap_or_else(|| 0.into());
    if total.is_string() {
        return Err(type_error("sum() can't sum strings [use ''.join(seq) instead]"));
    }
    for item in elements(given.first()?)? {
        total = plus(total, item)?;
    }
    Ok(total)
}

fn plus(a: Value, b: Value) -> Answer {
    match (a, b) {
        (Value::Array(mut a), Value::Array(b)) => {
            a.extend(b);
            Ok(Value::Array(a))
        }
        (Value::Array(_), b) => {
            Err(type_error(format!("can only concatenate list (not \"{}\") to list", type_name(&b))))
        }
        (a, b) => match (Number::of(&a), Number::of(&b)) {
            (Some(a), Some(b)) => a.plus(b)?.value(),
            _ => Err(operands("+", &a, &b)),
        },
    }
}

pub(super) fn range(given: &Given) -> Answer {
    let numbers = given.values.iter().map(index).collect::<Result<Vec<_>, _>>()?;
    let (start, stop, step) = match numbers.as_slice() {
        [stop] => (0, *stop, 1),
        [start, stop] => (*start, *stop, 1),
        [start, stop, step, ..] => (*start, *stop, *step),
        [] => return Err(type_error("range expected at least 1 argument, got 0")),
    };
    if step == 0 {
        return Err(value_error("range() arg 3 must not be zero"));
    }
    let (distance, stride) = if step > 0 { (stop - start, step) } else { (start - stop, -step) };
    let count = if distance <= 0 { 0 } else { (distance - 1) / stride + 1 };
    if count > MOST {
        return Err(overflow(format!("a range of {count} numbers is too long: at most {MOST} here")));
    }
    (0..count).map(|i| Number::Int(start + i * step).value()).collect()
}
