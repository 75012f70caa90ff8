//! Python's view of JSON values: how they are written, when two are equal, which are true.
//!
//! The seed is a Python program, so a variable `true` becomes `True` in a request and a failure
//! says `expected 'a', got None`. Source: Python 3 `str`, `repr`, `==` and `bool` of what its
//! `json` module reads.

use serde_json::{Number, Value};
use std::fmt::{self, Display, Formatter, Write};

/// Shows a value as Python's `str` does: texts bare, everything else as [`Repr`].
#[derive(Clone, Copy, Debug)]
pub struct Str<'a>(pub &'a Value);

/// Shows a value as Python's `repr` does: `None`, `True`, `'a'`, `[1, 'a']`, `{'k': 1.0}`.
#[derive(Clone, Copy, Debug)]
pub struct Repr<'a>(pub &'a Value);

/// Shows bytes as Python's `repr` does: `b'h\xc3\xa9llo\n'`.
#[derive(Clone, Copy, Debug)]
pub struct Bytes<'a>(pub &'a [u8]);

impl Display for Bytes<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let quote = if self.0.contains(&b'\'') && !self.0.contains(&b'"') { b'"' } else { b'\'' };
        let plain = |byte: u8| matches!(byte, b' '..=b'~') && byte != b'\\' && byte != quote;
        f.write_char('b')?;
        f.write_char(char::from(quote))?;
        let mut rest = self.0;
        loop {
            // plain stretches at once: bodies are long
            let (stretch, after) = rest.split_at(rest.iter().position(|b| !plain(*b)).unwrap_or(rest.len()));
            f.write_str(std::str::from_utf8(stretch).map_err(|_| fmt::Error)?)?;
            let Some((&byte, after)) = after.split_first() else { break };
            match byte {
                b'\\' => f.write_str("\\\\")?,
                b'\n' => f.write_str("\\n")?,
                b'\r' => f.write_str("\\r")?,
                b'\t' => f.write_str("\\t")?,
                byte if byte == quote => f.write_str(if quote == b'"' { "\\\"" } else { "\\'" })?,
                byte => {
                    let digit = |n: u8| char::from_digit(u32::from(n), 16).unwrap_or('0');
                    f.write_str("\\x")?;
                    f.write_char(digit(byte >> 4))?;
                    f.write_char(digit(byte & 15))?;
                }
            }
            rest = after;
        }
        f.write_char(char::from(quote))
    }
}

impl Display for Str<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            Value::String(text) => f.write_str(text),
            other => Repr(other).fmt(f),
        }
    }
}

impl Display for Repr<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            Value::Null => f.write_str("None"),
            Value::Bool(true) => f.write_str("True"),
            Value::Bool(false) => f.write_str("False"),
            Value::Number(number) => write_number(number, f),
            Value::String(text) => write_quoted(text, f),
            Value::Array(items) => {
                f.write_char('[')?;
                for (i, item) in items.iter().enumerate() {
                    f.write_str(if i > 0 { ", " } else { "" })?;
                    Self(item).fmt(f)?;
                }
                f.write_char(']')
            }
            Value::Object(map) => {
                f.write_char('{')?;
                for (i, (key, value)) in map.iter().enumerate() {
                    f.write_str(if i > 0 { ", " } else { "" })?;
                    write_quoted(key, f)?;
                    f.write_str(": ")?;
                    Self(value).fmt(f)?;
                }
                f.write_char('}')
            }
        }
    }
}

fn write_number(number: &Number, f: &mut Formatter<'_>) -> fmt::Result {
    let float = match number.as_f64() {
        Some(float) if number.is_f64() => float,
        _ => return write!(f, "{number}"),
    };
    // both languages print the shortest digits that read back as the same number; only the
    // choice between plain and exponent form differs
    if float == 0.0 || (1e-4..1e16).contains(&float.abs()) {
        return write!(f, "{float:?}");
    }
    let text = format!("{float:e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, exponent) = match exponent.strip_prefix('-') {
        Some(exponent) => ('-', exponent),
        None => ('+', exponent),
    };
    write!(f, "{digits}e{sign}{exponent:0>2}")
}

fn write_quoted(text: &str, f: &mut Formatter<'_>) -> fmt::Result {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    f.write_char(quote)?;
    for c in text.chars() {
        match c {
            '\\' => f.write_str("\\\\")?,
            '\n' => f.write_str("\\n")?,
            '\r' => f.write_str("\\r")?,
            '\t' => f.write_str("\\t")?,
            c if c == quote => write!(f, "\\{c}")?,
            c if is_printable(c) => f.write_char(c)?,
            c if u32::from(c) < 0x100 => write!(f, "\\x{:02x}", u32::from(c))?,
            c if u32::from(c) < 0x1_0000 => write!(f, "\\u{:04x}", u32::from(c))?,
            c => write!(f, "\\U{:08x}", u32::from(c))?,
        }
    }
    f.write_char(quote)
}

/// The characters that matter of Python's `str.isprintable`: controls, separators other than the
/// space, formatting characters and private use are shown as escapes.
fn is_printable(c: char) -> bool {
    !(c.is_control()
        || (c.is_whitespace() && c != ' ')
        || matches!(
            c,
            '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
                | '\u{feff}' | '\u{e000}'..='\u{f8ff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{10ffff}'
        ))
}

/// Whether two values are equal as Python compares them: `7 == 7.0`, `True == 1`, `7 != '7'`;
/// lists and objects deep, objects in any order of keys.
pub fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Null, Value::Null) => true,
        (Value::String(a), Value::String(b)) => a == b,
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| equal(a, b)))
        }
        _ => match (whole(a), whole(b)) {
            (Some(a), Some(b)) => a == b,
            _ => match (float(a), float(b)) {
                (Some(x), Some(y)) => x.total_cmp(&y).is_eq() || (x == 0.0 && y == 0.0),
                _ => false,
            },
        },
    }
}

/// The value as a whole number, if it is one: integers, booleans, and floats without fraction.
fn whole(value: &Value) -> Option<i128> {
    match value {
        Value::Bool(b) => Some(i128::from(*b)),
        Value::Number(n) => match (n.as_i64(), n.as_u64()) {
            (Some(n), _) => Some(i128::from(n)),
            (None, Some(n)) => Some(i128::from(n)),
            // exact: such floats lie within ±2^100
            (None, None) => n.as_f64().filter(|f| f.fract() == 0.0 && f.abs() < 1e30).map(|f| f as i128),
        },
        _ => None,
    }
}

fn float(value: &Value) -> Option<f64> {
    match value {
        Value::Bool(b) => Some(f64::from(u8::from(*b))),
        Value::Number(n) => n.as_f64(),
        _ => None,
    }
}

/// Whether Python takes the value for true: `None`, `False`, 0 and what is empty are false.
pub fn truthy(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(b) => *b,
        Value::Number(n) => n.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(map) => !map.is_empty(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_are_written_as_python_writes_them() {
        let table = [
            (json!(null), "None"),
            (json!(true), "True"),
            (json!(5), "5"),
            (json!(-7), "-7"),
            (json!(1.5), "1.5"),
            (json!(2.0), "2.0"),
            (json!(1e16), "1e+16"),
            (json!(1.25e-7), "1.25e-07"),
            (json!(1e-4), "0.0001"),
            (json!(1e300), "1e+300"),
            (json!("it's"), "\"it's\""),
            (json!("both ' and \""), "'both \\' and \"'"),
            (json!("a\\b\n\u{7f}\u{a0}\u{2028}ü"), "'a\\\\b\\n\\x7f\\xa0\\u2028ü'"),
            (json!([1, "a"]), "[1, 'a']"),
            (json!({"k": 1, "l": [true, null]}), "{'k': 1, 'l': [True, None]}"),
            (json!([]), "[]"),
            (json!({}), "{}"),
        ];
        for (value, text) in table {
            assert_eq!(Repr(&value).to_string(), text);
        }
        assert_eq!(Str(&json!("it's")).to_string(), "it's");
        assert_eq!(Str(&json!(["it's"])).to_string(), "[\"it's\"]");
    }

    #[test]
    fn bytes_are_written_as_python_writes_them() {
        let table: [(&[u8], &str); 6] = [
            (b"", "b''"),
            (b"{\"ok\": true}", "b'{\"ok\": true}'"),
            (b"it's", "b\"it's\""),
            (b"both ' and \"", "b'both \\' and \"'"),
            ("h\u{e9}llo".as_bytes(), "b'h\\xc3\\xa9llo'"),
            (b"\x00\x01\t\r\n\\\x7f\xff~ ", "b'\\x00\\x01\\t\\r\\n\\\\\\x7f\\xff~ '"),
        ];
        for (bytes, text) in table {
            assert_eq!(Bytes(bytes).to_string(), text);
        }
    }

    #[test]
    fn values_are_compared_as_python_compares_them() {
        let table = [
            (json!(7), json!(7.0), true),
            (json!(true), json!(1), true),
            (json!(false), json!(0.0), true),
            (json!(7), json!("7"), false),
            (json!(null), json!(0), false),
            (json!(u64::MAX), json!(-1), false),
            (json!(9_007_199_254_740_993_i64), json!(9_007_199_254_740_992.0), false),
            (json!({"a": [1, 2.0], "b": null}), json!({"b": null, "a": [1.0, 2]}), true),
            (json!({"a": 1}), json!({"a": 1, "b": 2}), false),
            (json!([1, 2]), json!([2, 1]), false),
            (json!(0.1), json!(0.1), true),
        ];
        for (a, b, same) in table {
            assert_eq!(equal(&a, &b), same, "{a} {b}");
            assert_eq!(equal(&b, &a), same, "{b} {a}");
        }
    }
}
