//! `run_if` and `skip_if`: whether a task runs in an iteration.
//!
//! | form | holds if |
//! |---|---|
//! | true, false, a whole number | itself; not 0 |
//! | text | after expansion not empty, `false`, `0`, `no`, `none`, `null` in any case, nor an unexpanded placeholder |
//! | `{"equals": [a, b]}`, `{"not_equals": [a, b]}` | equal by value and type (7 = 7.0, `"5"` ≠ 5) |
//! | `{"in": [needle, haystack]}` | element of a list, part of a text, key of an object |
//! | `{"truthy": value}` | a text as above, anything else by Python's truth |

use crate::fault::{Fault, did_you_mean, step};
use crate::operand::Operand;
use crate::pytext;
use crate::sample::Failure;
use crate::scope::{Bindings, Scope};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A condition, as the plan holds it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Predicate {
    /// Always or never.
    Constant(bool),
    /// Both are equal.
    Equals(Value, Value),
    /// They are not.
    NotEquals(Value, Value),
    /// The first is in the second.
    In(Value, Value),
    /// The value counts as true.
    Truthy(Value),
}

const OPERATORS: [&str; 4] = ["equals", "not_equals", "in", "truthy"];

impl Predicate {
    /// From a document. Forms that the seed takes for false whatever they say (a list, a fraction,
    /// an unknown operator, a pair of other than two) are faults.
    ///
    /// # Errors
    ///
    /// A [`Fault`] whose pointer starts at `value`.
    pub fn parse(value: &Value) -> Result<Self, Fault> {
        match Self::read(value) {
            (predicate, None) => Ok(predicate),
            (_, Some(fault)) => Err(fault),
        }
    }

    /// What the seed makes of any value, and what is wrong with it.
    pub fn read(value: &Value) -> (Self, Option<Fault>) {
        let never = |fault: Fault| (Self::Constant(false), Some(fault));
        match value {
            Value::Bool(b) => (Self::Constant(*b), None),
            Value::Number(n) if !n.is_f64() => (Self::Constant(pytext::truthy(value)), None),
            Value::String(_) => (Self::Truthy(value.clone()), None),
            Value::Object(map) => {
                let known = |key: &str| OPERATORS.into_iter().find(|known| key.eq_ignore_ascii_case(known));
                let unknown = map.keys().find(|key| known(key).is_none());
                let unknown = unknown.map(|key| {
                    Fault::new(step(key), format!("unknown operator `{key}` in a condition"))
                        .help(did_you_mean(key, OPERATORS))
                });
                let mut operators = map.iter().filter_map(|(key, value)| Some((key, known(key)?, value)));
                let Some((key, operator, operand)) = operators.next() else {
                    return never(unknown.unwrap_or_else(|| {
                        Fault::new("", "a condition without an operator never holds")
                            .help(format!("accepted: {}", OPERATORS.join(", ")))
                    }));
                };
                let (predicate, fault) = Self::operator(operator, operand);
                let second = operators.next().map(|(key, ..)| {
                    Fault::new(step(key), format!("a condition has one operator, found `{key}` besides"))
                        .help("split it into `run_if` and `skip_if`, or into two tasks")
                });
                (predicate, fault.map(|fault| fault.under(&step(key))).or(unknown).or(second))
            }
            Value::Null | Value::Number(_) | Value::Array(_) => never(
                Fault::new("", format!("condition {} never holds", pytext::Repr(value)))
                    .help("accepted: true, false, a whole number, a text, an object with one operator"),
            ),
        }
    }

    fn operator(operator: &str, operand: &Value) -> (Self, Option<Fault>) {
        if operator == "truthy" {
            return (Self::Truthy(operand.clone()), None);
        }
        let Some([a, b]) = operand.as_array().map(Vec::as_slice) else {
            let fault = Fault::new("", format!("`{operator}` takes a list of exactly two"))
                .help(format!("write {{\"{operator}\": [a, b]}}"));
            return (Self::Constant(false), Some(fault));
        };
        let (a, b) = (a.clone(), b.clone());
        match operator {
            "equals" => (Self::Equals(a, b), None),
            "not_equals" => (Self::NotEquals(a, b), None),
            _ => {
                let fault = matches!(b, Value::Bool(_) | Value::Number(_)).then(|| {
                    Fault::new("/1", format!("nothing is in {}", pytext::Repr(&b)))
                        .help("accepted as the second: a list, a text, an object")
                });
                (Self::In(a, b), fault)
            }
        }
    }

    /// The values in it, for whoever looks for placeholders.
    pub fn values(&self) -> Vec<&Value> {
        match self {
            Self::Constant(_) => Vec::new(),
            Self::Equals(a, b) | Self::NotEquals(a, b) | Self::In(a, b) => vec![a, b],
            Self::Truthy(value) => vec![value],
        }
    }

    /// Compiles it for one core.
    pub fn compile(&self, bindings: &Bindings) -> Condition {
        let operand = |value: &Value| Operand::compile(value, bindings);
        Condition(match self {
            Self::Constant(b) => Compiled::Constant(*b),
            Self::Equals(a, b) => Compiled::Equals { a: operand(a), b: operand(b), negated: false },
            Self::NotEquals(a, b) => Compiled::Equals { a: operand(a), b: operand(b), negated: true },
            Self::In(a, b) => Compiled::In(operand(a), operand(b)),
            Self::Truthy(value) => Compiled::Truthy(operand(value)),
        })
    }
}

/// A condition, compiled.
#[derive(Clone, Debug)]
pub struct Condition(Compiled);

#[derive(Clone, Debug)]
enum Compiled {
    Constant(bool),
    Equals { a: Operand, b: Operand, negated: bool },
    In(Operand, Operand),
    Truthy(Operand),
}

impl Condition {
    /// Whether it holds for this user now. A placeholder that can never be filled in
    /// ([`crate::template::Template::fault`], refused in documents) makes it false.
    pub fn holds(&self, bindings: &Bindings, scope: &mut Scope) -> bool {
        self.evaluate(bindings, scope).unwrap_or(false)
    }

    fn evaluate(&self, bindings: &Bindings, scope: &mut Scope) -> Result<bool, Failure> {
        Ok(match &self.0 {
            Compiled::Constant(b) => *b,
            Compiled::Equals { a, b, negated } => {
                let a = a.value(bindings, scope)?;
                pytext::equal(&a, &*b.value(bindings, scope)?) != *negated
            }
            Compiled::In(needle, haystack) => {
                let needle = needle.value(bindings, scope)?;
                match (&*haystack.value(bindings, scope)?, &*needle) {
                    (Value::Array(items), needle) => items.iter().any(|item| pytext::equal(item, needle)),
                    (Value::String(text), Value::String(part)) => text.contains(&**part),
                    (Value::Object(map), Value::String(key)) => map.contains_key(key),
                    _ => false,
                }
            }
            Compiled::Truthy(operand) => match &*operand.value(bindings, scope)? {
                Value::String(text) => counts_as_true(text),
                other => pytext::truthy(other),
            },
        })
    }

    /// Indices of the data sources that it names.
    pub fn sources(&self) -> impl Iterator<Item = u32> + '_ {
        let found = match &self.0 {
            Compiled::Constant(_) => Vec::new(),
            Compiled::Equals { a, b, .. } | Compiled::In(a, b) => [a.sources(), b.sources()].concat(),
            Compiled::Truthy(operand) => operand.sources(),
        };
        found.into_iter()
    }
}

fn counts_as_true(text: &str) -> bool {
    let text = text.trim();
    let unexpanded = text.starts_with("${") && text.ends_with('}');
    let said_no = ["", "false", "0", "no", "none", "null"].iter().any(|no| text.eq_ignore_ascii_case(no));
    !unexpanded && !said_no
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Dealing;
    use crate::testing::{bindings_with, source};
    use serde_json::json;

    /// What the seed was given under each label of the captured table.
    fn of_label(label: &str) -> Value {
        match label {
            "bool T" => json!(true),
            "bool F" => json!(false),
            "int0" => json!(0),
            "int2" => json!(2),
            "float 0.0" => json!(0.0),
            "float1.5" => json!(1.5),
            "str lit" => json!("yes"),
            "str empty" => json!(""),
            "str false" => json!("false"),
            "str False" => json!("False"),
            "str 0" => json!("0"),
            "str no" => json!("no"),
            "var s" => json!("${var.s}"),
            "var zero" => json!("${var.zero}"),
            "var f" => json!("${var.f}"),
            "var t" => json!("${var.t}"),
            "var emp" => json!("${var.emp}"),
            "var missing" => json!("${var.missing}"),
            "var none" => json!("${var.none}"),
            "list" => json!([1]),
            "empty list" => json!([]),
            "eq" => json!({"equals": ["${var.s}", "str"]}),
            "eq int/str" => json!({"equals": ["${var.zero}", 0]}),
            "eq strstr" => json!({"equals": ["${var.zero}", "0"]}),
            "eq one arg" => json!({"equals": [1]}),
            "eq 3" => json!({"equals": [1, 1, 1]}),
            "eq str" => json!({"equals": "aa"}),
            "neq" => json!({"not_equals": ["${var.s}", "x"]}),
            "neq bad" => json!({"not_equals": [1]}),
            "neq missing" => json!({"not_equals": ["${var.missing}", "x"]}),
            "in list" => json!({"in": ["${var.s}", ["a", "str"]]}),
            "in str" => json!({"in": ["t", "${var.s}"]}),
            "in null" => json!({"in": ["a", null]}),
            "in dict" => json!({"in": ["k", {"k": 1}]}),
            "truthy var" => json!({"truthy": "${var.s}"}),
            "truthy f" => json!({"truthy": "${var.f}"}),
            "truthy 0" => json!({"truthy": 0}),
            "truthy list" => json!({"truthy": []}),
            "truthy missing" => json!({"truthy": "${var.missing}"}),
            "EQ upper" => json!({"EQUALS": [1, 1]}),
            "unknown op" => json!({"gt": [2, 1]}),
            "empty dict" => json!({}),
            "two ops" => json!({"equals": [1, 2], "truthy": 1}),
            "unk then eq" => json!({"gt": [2, 1], "equals": [1, 1]}),
            other => panic!("no value for {other}"),
        }
    }

    /// Every line of the seed's captured table, newest release.
    #[test]
    fn the_golden_table_of_the_seed() {
        let variables = json!({"s": "str", "zero": 0, "f": false, "t": true, "emp": "", "none": null});
        let bindings = bindings_with(variables, &[], vec![], &[]);
        let mut checked = 0;
        for line in include_str!("predicate/golden/predicates.txt").lines() {
            let Some((head, runs)) = line.split_once("79=") else { continue };
            let head = head.split_once("71=").unwrap().0.trim();
            let Some((form, label)) = head.split_once(' ') else { continue };
            // null is absent: the reader of tasks sees to it
            if label == "null" {
                continue;
            }
            let (predicate, _) = Predicate::read(&of_label(label));
            let holds = predicate.compile(&bindings).holds(&bindings, &mut Scope::new(&bindings));
            let wanted = runs == "RUN";
            assert_eq!(holds == (form == "run_if"), wanted, "{form} {label}");
            checked += 1;
        }
        assert_eq!(checked, 88);
    }

    #[test]
    fn what_the_seed_takes_for_false_in_silence_is_refused() {
        let table = [
            (json!(1.5), "", "condition 1.5 never holds"),
            (json!([1]), "", "condition [1] never holds"),
            (json!({}), "", "a condition without an operator never holds"),
            (json!({"gt": [2, 1]}), "/gt", "unknown operator `gt` in a condition"),
            (json!({"equals": [1]}), "/equals", "`equals` takes a list of exactly two"),
            (json!({"equals": [1, 1], "truthy": 1}), "/truthy", "a condition has one operator, found `truthy` besides"),
            (json!({"in": ["a", 5]}), "/in/1", "nothing is in 5"),
        ];
        for (value, pointer, message) in table {
            let fault = Predicate::parse(&value).unwrap_err();
            assert_eq!((&*fault.pointer, &*fault.message), (pointer, message), "{value}");
            assert!(fault.help.is_some());
        }
    }

    #[test]
    fn sources_are_found_and_the_plan_form_reads_back() {
        let users = source("u", &["name"], &[&["bob"]], Dealing::Cycle);
        let bindings = bindings_with(json!({}), &[], vec![users], &[]);
        let predicate = Predicate::parse(&json!({"in": ["${csv.u.name}", ["bob", "${csv.u.name}"]]})).unwrap();
        let condition = predicate.compile(&bindings);
        assert_eq!(condition.sources().collect::<Vec<_>>(), [0, 0]);
        assert!(condition.holds(&bindings, &mut Scope::new(&bindings)));
        let json = serde_json::to_string(&predicate).unwrap();
        assert_eq!(serde_json::from_str::<Predicate>(&json).unwrap(), predicate);
    }
}
