//! The seed's words for what is wrong with an action.

use super::{Action, Arguments, Fault};
use ld_shared::pytext::{Repr, Str};
use serde_json::Value;

/// The seed's class of errors that the executor raises itself.
pub(crate) const EXECUTE: &str = "LoadDensityTestExecuteException";

/// An action that cannot run, as the seed takes it: it fails when its turn comes.
pub(super) fn action(index: usize, pointer: String, value: &Value, fault: Fault) -> Action {
    let (class, text) = raised(value);
    let name = match value {
        Value::Array(elements) => elements.first().map_or_else(String::new, |name| Str(name).to_string()),
        other => Str(other).to_string(),
    };
    // a text is unpacked into its characters
    if let [Value::String(name), Value::String(payload)] = value.as_array().map_or(&[][..], Vec::as_slice) {
        let arguments = Arguments::Positional(payload.chars().map(|c| Value::String(c.into())).collect());
        return Action { index, pointer, source: value.clone(), name: name.clone(), arguments, malformed: None };
    }
    let malformed = Some(Box::new(fault.raised(class, text)));
    Action { index, pointer, source: value.clone(), name, arguments: Arguments::None, malformed }
}

/// What the seed raises for a command that there is not, or an action that is no pair.
pub(crate) fn invalid_data(action: &Value) -> String {
    format!("executor received invalid data {}", Str(action))
}

fn raised(value: &Value) -> (&'static str, String) {
    let elements = match value {
        Value::Array(elements) => elements,
        // its first character is no command either
        Value::String(text) if !text.is_empty() => return (EXECUTE, invalid_data(value)),
        Value::String(_) => return ("IndexError", "string index out of range".into()),
        Value::Object(_) => return ("KeyError", "0".into()),
        other => return ("TypeError", format!("'{}' object is not subscriptable", type_name(other))),
    };
    match elements.as_slice() {
        [] => ("IndexError", "list index out of range".into()),
        [name @ (Value::Array(_) | Value::Object(_)), ..] => {
            ("TypeError", format!("unhashable type: '{}'", type_name(name)))
        }
        [Value::String(name), payload] => {
            let function = function(name);
            ("TypeError", format!("{function}() argument after * must be an iterable, not {}", type_name(payload)))
        }
        _ => (EXECUTE, invalid_data(value)),
    }
}

/// The name of the seed's function behind a command.
pub(crate) fn function(command: &str) -> &str {
    command.strip_prefix("LD_").unwrap_or(command)
}

/// Python's name of a value's type.
pub(crate) fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "NoneType",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float",
        Value::Number(_) => "int",
        Value::String(_) => "str",
        Value::Array(_) => "list",
        Value::Object(_) => "dict",
    }
}

/// Python's text for parameters that were not given.
pub(crate) fn missing(command: &str, names: &[&str]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| Repr(&Value::from(*name)).to_string()).collect();
    let list = match quoted.as_slice() {
        [one] => one.clone(),
        [one, two] => format!("{one} and {two}"),
        [many @ .., last] => format!("{}, and {last}", many.join(", ")),
        [] => String::new(),
    };
    let s = if names.len() == 1 { "" } else { "s" };
    format!("{}() missing {} required positional argument{s}: {list}", function(command), names.len())
}

/// Python's text for more arguments by position than there are parameters.
pub(crate) fn too_many(command: &str, least: usize, most: usize, given: usize) -> String {
    let takes = if least == most { most.to_string() } else { format!("from {least} to {most}") };
    let s = if least == 1 && most == 1 { "" } else { "s" };
    let were = if given == 1 { "was" } else { "were" };
    format!("{}() takes {takes} positional argument{s} but {given} {were} given", function(command))
}

/// Python's text for the wrong number of arguments of a builtin function.
pub(crate) fn arity(name: &str, least: usize, most: usize, given: usize) -> String {
    let s = |n: usize| if n == 1 { "" } else { "s" };
    if (least, most) == (1, 1) {
        return format!("{name}() takes exactly one argument ({given} given)");
    }
    let (bound, n) = if given < least { ("at least ", least) } else { ("at most ", most) };
    let bound = if least == most { "" } else { bound };
    format!("{name} expected {bound}{n} argument{}, got {given}", s(n))
}

/// Python's text for an argument by name that a builtin function does not take.
pub(crate) fn no_keyword(name: &str, keywords: &[&str], key: &str) -> String {
    if keywords.is_empty() {
        return format!("{name}() takes no keyword arguments");
    }
    format!("'{key}' is an invalid keyword argument for {name}()")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn malformed_actions_fail_in_the_seeds_words() {
        let table = [
            (json!([]), "IndexError", "list index out of range"),
            (json!("LD_summary"), EXECUTE, "executor received invalid data LD_summary"),
            (json!({"a": 1}), "KeyError", "0"),
            (json!([["a"], []]), "TypeError", "unhashable type: 'list'"),
            (json!(["print", 5]), "TypeError", "print() argument after * must be an iterable, not int"),
            (json!(["print", null]), "TypeError", "print() argument after * must be an iterable, not NoneType"),
            (json!(["print", ["a"], ["b"]]), EXECUTE, "executor received invalid data ['print', ['a'], ['b']]"),
            (json!([5]), EXECUTE, "executor received invalid data [5]"),
            (json!(5), "TypeError", "'int' object is not subscriptable"),
        ];
        for (value, class, text) in table {
            assert_eq!(raised(&value), (class, text.to_owned()), "{value}");
        }
        assert_eq!(missing("LD_x", &["a"]), "x() missing 1 required positional argument: 'a'");
        assert_eq!(missing("LD_x", &["a", "b", "c"]), "x() missing 3 required positional arguments: 'a', 'b', and 'c'");
        assert_eq!(too_many("LD_x", 0, 1, 2), "x() takes from 0 to 1 positional arguments but 2 were given");
        assert_eq!(too_many("LD_x", 0, 0, 1), "x() takes 0 positional arguments but 1 was given");
    }

    #[test]
    fn a_text_is_unpacked_into_its_characters() {
        let action = action(0, "/0".into(), &json!(["print", "ab"]), Fault::new("", ""));
        assert_eq!(action.arguments, Arguments::Positional(vec![json!("a"), json!("b")]));
        assert_eq!(action.malformed, None);
    }
}
