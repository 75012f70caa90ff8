//! `format`: a value by Python's format specification.
//!
//! `[[fill]align][sign][#][0][width][grouping][.precision][type]`. Source: Python's manual, "Format
//! Specification Mini-Language".

use super::number::Number;
use super::{Answer, CommandError, Given, type_error, value_error};
use crate::script::type_name;
use ld_shared::pytext::{Repr, Str};
use serde_json::Value;
use std::iter::Peekable;
use std::str::Chars;

/// Widest and most precise: a document's slip must not fill the memory.
const MOST: usize = 10_000;

#[derive(Clone, Debug, Default)]
struct Spec {
    fill: Option<char>,
    align: Option<char>,
    sign: Option<char>,
    alternate: bool,
    width: usize,
    grouping: Option<char>,
    precision: Option<usize>,
    kind: Option<char>,
}

pub(super) fn format(given: &Given) -> Answer {
    let value = given.first()?;
    let spec = match given.values.get(1) {
        None => "",
        Some(Value::String(spec)) => spec,
        Some(other) => {
            return Err(type_error(format!("format() argument 2 must be str, not {}", type_name(other))));
        }
    };
    if spec.is_empty() {
        return Ok(Str(value).to_string().into());
    }
    let text = match (value, Number::of(value)) {
        (Value::String(text), _) => string(text, &Spec::parse(spec, "str")?)?,
        (_, Some(Number::Int(int))) => {
            let spec = Spec::parse(spec, type_name(value))?;
            match spec.kind {
                Some('e' | 'E' | 'f' | 'F' | 'g' | 'G' | '%') => float(int as f64, &spec),
                _ => whole(int, &spec, type_name(value)),
            }?
        }
        (_, Some(Number::Float(number))) => float(number, &Spec::parse(spec, "float")?)?,
        _ => return Err(type_error(format!("unsupported format string passed to {}.__format__", type_name(value)))),
    };
    Ok(text.into())
}

impl Spec {
    fn parse(text: &str, of: &str) -> Result<Self, CommandError> {
        let invalid = || value_error(format!("Invalid format specifier '{text}' for object of type '{of}'"));
        let mut spec = Self::default();
        let mut chars = text.chars().peekable();
        let is_align = |c: char| matches!(c, '<' | '>' | '=' | '^');
        let mut ahead = text.chars();
        let (first, second) = (ahead.next(), ahead.next());
        if let (Some(fill), Some(align)) = (first, second.filter(|c| is_align(*c))) {
            (spec.fill, spec.align) = (Some(fill), Some(align));
            chars.nth(1);
        } else if let Some(align) = chars.next_if(|c| is_align(*c)) {
            spec.align = Some(align);
        }
        spec.sign = chars.next_if(|c| matches!(c, '+' | '-' | ' '));
        spec.alternate = chars.next_if_eq(&'#').is_some();
        if chars.next_if_eq(&'0').is_some() && spec.align.is_none() {
            (spec.fill, spec.align) = (Some('0'), Some(if of == "str" { '<' } else { '=' }));
        }
        spec.width = digits(&mut chars)?.unwrap_or(0);
        spec.grouping = chars.next_if(|c| matches!(c, ',' | '_'));
        if chars.next_if_eq(&'.').is_some() {
            spec.precision =
                Some(digits(&mut chars)?.ok_or_else(|| value_error("Format specifier missing precision"))?);
        }
        spec.kind = chars.next();
        if chars.next().is_some() { Err(invalid()) } else { Ok(spec) }
    }

    fn unknown(&self, of: &str) -> CommandError {
        let kind = self.kind.unwrap_or_default();
        value_error(format!("Unknown format code '{kind}' for object of type '{of}'"))
    }

    /// Sign and digits, filled up to the width.
    fn number(&self, negative: bool, prefix: &str, digits: &str) -> String {
        let sign = match (negative, self.sign) {
            (true, _) => "-",
            (false, Some('+')) => "+",
            (false, Some(' ')) => " ",
            _ => "",
        };
        let every = if prefix.is_empty() && !matches!(self.kind, Some('b' | 'o' | 'x' | 'X')) { 3 } else { 4 };
        let mut digits = self.grouping.map_or_else(|| digits.to_owned(), |mark| grouped(digits, mark, every));
        let head = format!("{sign}{prefix}");
        if self.align == Some('=') {
            // zeros are grouped as well
            if let (Some('0'), Some(mark)) = (self.fill, self.grouping) {
                let room = self.width.saturating_sub(head.len());
                while digits.chars().count() < room {
                    let bare: String = digits.chars().filter(|c| *c != mark).collect();
                    digits = grouped(&format!("0{bare}"), mark, every);
                }
            }
            let missing = self.width.saturating_sub(head.chars().count() + digits.chars().count());
            let fill: String = std::iter::repeat_n(self.fill.unwrap_or(' '), missing).collect();
            return format!("{head}{fill}{digits}");
        }
        self.padded(&format!("{head}{digits}"), '>')
    }

    fn padded(&self, text: &str, default: char) -> String {
        let missing = self.width.saturating_sub(text.chars().count());
        let before = match self.align.unwrap_or(default) {
            '<' => 0,
            '^' => missing / 2,
            _ => missing,
        };
        let fill = |n| std::iter::repeat_n(self.fill.unwrap_or(' '), n).collect::<String>();
        format!("{}{text}{}", fill(before), fill(missing - before))
    }
}

fn digits(chars: &mut Peekable<Chars<'_>>) -> Result<Option<usize>, CommandError> {
    let mut text = String::new();
    while let Some(digit) = chars.next_if(char::is_ascii_digit) {
        text.push(digit);
    }
    if text.is_empty() {
        return Ok(None);
    }
    let number = text.parse().ok().filter(|number| *number <= MOST);
    number.map(Some).ok_or_else(|| value_error("Too many decimal digits in format string"))
}

/// Marks between groups of the whole part.
fn grouped(digits: &str, mark: char, every: usize) -> String {
    let end = digits.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(digits.len());
    let (whole, rest) = digits.split_at(end);
    let mut text = String::new();
    for (i, digit) in whole.chars().enumerate() {
        if i > 0 && (whole.len() - i).is_multiple_of(every) {
            text.push(mark);
        }
        text.push(digit);
    }
    text + rest
}

fn string(text: &str, spec: &Spec) -> Result<String, CommandError> {
    if !matches!(spec.kind, None | Some('s')) {
        return Err(spec.unknown("str"));
    }
    if spec.sign.is_some() {
        return Err(value_error("Sign not allowed in string format specifier"));
    }
    if spec.align == Some('=') {
        return Err(value_error("'=' alignment not allowed in string format specifier"));
    }
    let cut: String = text.chars().take(spec.precision.unwrap_or(usize::MAX)).collect();
    Ok(spec.padded(&cut, '<'))
}

fn whole(int: i128, spec: &Spec, of: &str) -> Result<String, CommandError> {
    if spec.precision.is_some() {
        return Err(value_error("Precision not allowed in integer format specifier"));
    }
    let size = int.unsigned_abs();
    let alternate = |prefix: &'static str| if spec.alternate { prefix } else { "" };
    let (prefix, digits) = match spec.kind {
        None | Some('d' | 'n') => ("", size.to_string()),
        Some('b') => (alternate("0b"), format!("{size:b}")),
        Some('o') => (alternate("0o"), format!("{size:o}")),
        Some('x') => (alternate("0x"), format!("{size:x}")),
        Some('X') => (alternate("0X"), format!("{size:X}")),
        Some('c') => {
            let c = u32::try_from(int).ok().and_then(char::from_u32);
            let c = c.ok_or_else(|| CommandError::failed("OverflowError", "%c arg not in range(0x110000)"))?;
            return Ok(spec.padded(&c.to_string(), '<'));
        }
        Some(_) => return Err(spec.unknown(of)),
    };
    Ok(spec.number(int < 0, prefix, &digits))
}

fn float(number: f64, spec: &Spec) -> Result<String, CommandError> {
    let size = number.abs();
    let precision = spec.precision.unwrap_or(6);
    let digits = match spec.kind {
        Some('f' | 'F') => format!("{size:.precision$}"),
        Some('%') => format!("{:.precision$}%", size * 100.0),
        Some('e') => scientific(size, precision),
        Some('E') => scientific(size, precision).to_uppercase(),
        Some('g' | 'n') => general(size, precision, spec.alternate),
        Some('G') => general(size, precision, spec.alternate).to_uppercase(),
        None if spec.precision.is_none() => Repr(&size.into()).to_string(),
        None => {
            let text = general(size, precision, spec.alternate);
            // a float stays one: there is a digit behind the point
            if text.contains(['.', 'e']) { text } else { format!("{text}.0") }
        }
        Some(_) => return Err(spec.unknown("float")),
    };
    Ok(spec.number(number.is_sign_negative(), "", &digits))
}

/// `1.50e+03`.
fn scientific(size: f64, precision: usize) -> String {
    let text = format!("{size:.precision$e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |exponent| ('-', exponent));
    format!("{digits}e{sign}{exponent:0>2}")
}

/// The shorter of both forms for so many digits.
fn general(size: f64, precision: usize, zeros: bool) -> String {
    let precision = precision.max(1);
    let text = format!("{size:.0$e}", precision - 1);
    let exponent: i64 = text.split_once('e').and_then(|(_, exponent)| exponent.parse().ok()).unwrap_or(0);
    let trim = |text: &str| {
        if zeros || !text.contains('.') {
            return text.to_owned();
        }
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    let digits = i64::try_from(precision).unwrap_or(i64::MAX);
    if exponent < -4 || exponent >= digits {
        let text = scientific(size, precision - 1);
        let (digits, exponent) = text.split_once('e').unwrap_or((&text, "+00"));
        return format!("{}e{exponent}", trim(digits));
    }
    let decimals = usize::try_from(digits - 1 - exponent).unwrap_or(0);
    trim(&format!("{size:.decimals$}"))
}
