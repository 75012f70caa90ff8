//! Which of two values Python puts first.

use super::number::Number;
use super::{CommandError, type_error};
use crate::script::type_name;
use ld_shared::pytext::equal;
use serde_json::Value;
use std::cmp::Ordering;

/// The order of two values, for the operator that asks (`<`, `>`): it stands in the error about
/// values that have none.
pub(super) fn order(a: &Value, b: &Value, operator: &str) -> Result<Ordering, CommandError> {
    match (a, b) {
        (Value::String(a), Value::String(b)) => return Ok(a.cmp(b)),
        (Value::Array(a), Value::Array(b)) => {
            let differing = a.iter().zip(b).find(|(a, b)| !equal(a, b));
            return differing.map_or(Ok(a.len().cmp(&b.len())), |(a, b)| order(a, b, operator));
        }
        _ => {}
    }
    match (Number::of(a), Number::of(b)) {
        (Some(Number::Int(a)), Some(Number::Int(b))) => Ok(a.cmp(&b)),
        (Some(a), Some(b)) => Ok(a.float().total_cmp(&b.float())),
        _ => Err(type_error(format!(
            "'{operator}' not supported between instances of '{}' and '{}'",
            type_name(a),
            type_name(b)
        ))),
    }
}
