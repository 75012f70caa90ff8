//! Making values safe for their place.

/// How rendered text is made safe for its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Escape {
    /// As it is.
    None,
    /// Inside a JSON string, ASCII only: byte for byte what Python's `json.dumps` writes, so that a
    /// target counts the same bytes as from the seed.
    Json,
    /// `application/x-www-form-urlencoded`, also for queries: space is `+`.
    Form,
}

/// Appends placeholders' values to the output, with one or two escapes on the way.
pub(super) struct Writer<'a> {
    /// Whether the value stands in a string of a JSON text.
    pub(super) json: bool,
    /// What the place of the whole text needs.
    pub(super) escape: Escape,
    pub(super) out: &'a mut Vec<u8>,
}

impl Writer<'_> {
    pub(super) fn put(&mut self, text: &str) {
        if !self.json {
            put(text, self.escape, self.out);
        } else if self.escape == Escape::None {
            put(text, Escape::Json, self.out);
        } else {
            // a JSON text inside a form or another JSON string: rare enough to take a detour
            let mut inner = Vec::with_capacity(text.len());
            put(text, Escape::Json, &mut inner);
            put(&to_text(inner), self.escape, self.out);
        }
    }
}

impl std::fmt::Write for Writer<'_> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.put(text);
        Ok(())
    }
}

/// What templates rendered, as a text.
pub(super) fn to_text(rendered: Vec<u8>) -> String {
    String::from_utf8(rendered).expect("templates are texts and escaping keeps them texts")
}

/// Appends a text, escaped.
pub(super) fn put(text: &str, escape: Escape, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    const LOWER_HEX: &[u8; 16] = b"0123456789abcdef";
    let hex = |nibble: u8| HEX[usize::from(nibble & 15)];
    match escape {
        Escape::None => out.extend_from_slice(text.as_bytes()),
        Escape::Json => {
            let hex = |unit: u16, shift: u16| LOWER_HEX[usize::from(unit >> shift & 15)];
            for c in text.chars() {
                match c {
                    '"' => out.extend_from_slice(b"\\\""),
                    '\\' => out.extend_from_slice(b"\\\\"),
                    '\n' => out.extend_from_slice(b"\\n"),
                    '\r' => out.extend_from_slice(b"\\r"),
                    '\t' => out.extend_from_slice(b"\\t"),
                    '\x08' => out.extend_from_slice(b"\\b"),
                    '\x0c' => out.extend_from_slice(b"\\f"),
                    ' '..='~' => out.push(c as u8),
                    _ => {
                        for unit in c.encode_utf16(&mut [0; 2]) {
                            out.extend_from_slice(&[
                                b'\\',
                                b'u',
                                hex(*unit, 12),
                                hex(*unit, 8),
                                hex(*unit, 4),
                                hex(*unit, 0),
                            ]);
                        }
                    }
                }
            }
        }
        Escape::Form => {
            for byte in text.bytes() {
                match byte {
                    b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'.' | b'-' | b'~' => out.push(byte),
                    b' ' => out.push(b'+'),
                    _ => out.extend_from_slice(&[b'%', hex(byte >> 4), hex(byte)]),
                }
            }
        }
    }
}
