//! Functions of texts, and how values are written.

use super::number::index;
use super::{Answer, Given, overflow, type_error, value_error};
use crate::app::App;
use crate::script::type_name;
use ld_shared::pytext::{Repr, Str};
use serde_json::Value;
use std::fmt::Write as _;

pub(super) fn repr(given: &Given) -> Answer {
    Ok(Repr(given.first()?).to_string().into())
}

pub(super) fn ascii(given: &Given) -> Answer {
    let mut ascii = String::new();
    for c in Repr(given.first()?).to_string().chars() {
        let code = u32::from(c);
        let written = match code {
            0..0x80 => write!(ascii, "{c}"),
            0x80..0x100 => write!(ascii, "\\x{code:02x}"),
            0x100..0x1_0000 => write!(ascii, "\\u{code:04x}"),
            _ => write!(ascii, "\\U{code:08x}"),
        };
        written.expect("writing to a String cannot fail");
    }
    Ok(ascii.into())
}

pub(super) fn callable(given: &Given) -> Answer {
    given.first()?;
    Ok(false.into())
}

pub(super) fn chr(given: &Given) -> Answer {
    let code = index(given.first()?)?;
    if i32::try_from(code).is_err() {
        return Err(overflow("Python int too large to convert to C int"));
    }
    let Some(code) = u32::try_from(code).ok().filter(|code| *code < 0x11_0000) else {
        return Err(value_error("chr() arg not in range(0x110000)"));
    };
    let half = || value_error(format!("chr({code}) is half of a character, which JSON texts cannot hold"));
    char::from_u32(code).map(|c| c.to_string().into()).ok_or_else(half)
}

pub(super) fn ord(given: &Given) -> Answer {
    let value = given.first()?;
    let Value::String(text) = value else {
        return Err(type_error(format!("ord() expected string of length 1, but {} found", type_name(value))));
    };
    let mut chars = text.chars();
    if let (Some(c), None) = (chars.next(), chars.next()) {
        Ok(u32::from(c).into())
    } else {
        let length = text.chars().count();
        Err(type_error(format!("ord() expected a character, but string of length {length} found")))
    }
}

/// Prints at once, between whatever else stands on stdout.
pub(super) fn print(given: &Given, app: &App) -> Answer {
    let piece = |name: &str, default: &str| match given.named.get(name) {
        None | Some(Value::Null) => Ok(default.to_owned()),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(other) => Err(type_error(format!("{name} must be None or a string, not {}", type_name(other)))),
    };
    let (separator, end) = (piece("sep", " ")?, piece("end", "\n")?);
    let values: Vec<String> = given.values.iter().map(|value| Str(value).to_string()).collect();
    app.console.print(&format!("{}{end}", values.join(&separator)));
    Ok(Value::Null)
}
