//! Where in a broken JSON text a place is.

use ld_shared::fault::step;

/// JSON pointer of the innermost value that has been begun at a line and column, both from 1, the column
/// in bytes, as `serde_json` counts them.
pub(super) fn pointer(text: &[u8], line: usize, column: usize) -> String {
    let start: usize = text.split_inclusive(|byte| *byte == b'\n').take(line.saturating_sub(1)).map(<[u8]>::len).sum();
    let end = (start + column.saturating_sub(1)).min(text.len());
    let mut open: Vec<Open> = Vec::new();
    let mut at = 0;
    while at < end {
        match text[at] {
            b'{' => open.push(Open::Object { key: None, value: false }),
            b'[' => open.push(Open::List(0)),
            b'}' | b']' => drop(open.pop()),
            b',' => match open.last_mut() {
                Some(Open::List(index)) => *index += 1,
                Some(Open::Object { key, value }) => (*key, *value) = (None, false),
                None => {}
            },
            b':' => {
                if let Some(Open::Object { value, .. }) = open.last_mut() {
                    *value = true;
                }
            }
            b'"' => {
                let close = string_end(text, at, end);
                if let Some(Open::Object { key, value: false }) = open.last_mut() {
                    let text = text.get(at..close).unwrap_or_default();
                    *key = serde_json::from_slice(text).ok();
                }
                at = close;
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    open.iter().filter_map(Open::step).collect()
}

/// What has been begun and not ended.
enum Open {
    /// A list, at this index.
    List(usize),
    /// An object, at this key, before or behind its colon.
    Object { key: Option<String>, value: bool },
}

impl Open {
    fn step(&self) -> Option<String> {
        match self {
            Self::List(index) => Some(step(&index.to_string())),
            Self::Object { key: Some(key), value: true } => Some(step(key)),
            Self::Object { .. } => None,
        }
    }
}

/// Behind the closing quote of the string that begins at `at`.
fn string_end(text: &[u8], at: usize, end: usize) -> usize {
    let mut next = at + 1;
    while next < end {
        match text[next] {
            b'\\' => next += 2,
            b'"' => return next + 1,
            _ => next += 1,
        }
    }
    end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_value() {
        for (text, expected) in [
            ("", ""),
            ("x", ""),
            ("[1, x]", "/1"),
            ("{\"a\": [1,\n {\"b/c\": x}]}", "/a/1/b~1c"),
            ("{\"a\": 1, x}", ""),
            ("{\"a\": \"q\\\"[{\", \"b\": [[], {}, x", "/b/2"),
            ("[{\"a\": 1}, {\"b\" x}]", "/1"),
            ("{\"a\": {\"b\": \"unclosed", "/a/b"),
        ] {
            let error = serde_json::from_str::<serde_json::Value>(text).unwrap_err();
            assert_eq!(pointer(text.as_bytes(), error.line(), error.column()), expected, "{text}");
        }
    }
}
