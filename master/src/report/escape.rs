//! Texts in XML and HTML, whatever characters they have.
//!
//! XML 1.0 (section 2.2) has no way to write most control characters, U+FFFE and U+FFFF, not even
//! as a reference. They are shown as Python would show them, `\x01` and `\ufffe`, so that a file
//! stays well-formed and nothing goes missing; the exact bytes of a body stand beside its text.

use std::io::{self, Write};

/// Where a text stands, and so what is written for some characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// In an element, quotes as they are.
    Element,
    /// In an element, `"` escaped: the seed's indented form.
    Quoted,
    /// In an element, both quotes escaped: the seed's JUnit and HTML.
    Html,
    /// In an attribute: line breaks and tabs too, or a parser makes blanks of them.
    Attribute,
}

/// Writes `text`, so that a parser reads it back.
pub(super) fn write(out: &mut dyn Write, text: &str, place: Place) -> io::Result<()> {
    let mut rest = text.as_bytes();
    loop {
        // U+FFFE and U+FFFF are EF BF BE and EF BF BF
        let special = |byte: &u8| matches!(byte, 0..=b'"' | b'&' | b'\'' | b'<' | b'>' | 0xef) && *byte != b' ';
        let (plain, after) = rest.split_at(rest.iter().position(special).unwrap_or(rest.len()));
        out.write_all(plain)?;
        let Some(&byte) = after.first() else { return Ok(()) };
        let (written, length): (&[u8], usize) = match (byte, place) {
            (b'&', _) => (b"&amp;", 1),
            (b'<', _) => (b"&lt;", 1),
            (b'>', _) => (b"&gt;", 1),
            (b'"', Place::Quoted | Place::Html | Place::Attribute) => (b"&quot;", 1),
            (b'\'', Place::Html | Place::Attribute) => (b"&#x27;", 1),
            (b'\n', Place::Attribute) => (b"&#10;", 1),
            (b'\t', Place::Attribute) => (b"&#9;", 1),
            // a bare one would be read as a line feed
            (b'\r', _) => (b"&#13;", 1),
            (b'\n' | b'\t', _) => (after.get(..1).unwrap_or_default(), 1),
            (0..b' ', _) => {
                write!(out, "\\x{byte:02x}")?;
                (b"", 1)
            }
            (0xef, _) if after.starts_with(b"\xef\xbf\xbe") => (b"\\ufffe", 3),
            (0xef, _) if after.starts_with(b"\xef\xbf\xbf") => (b"\\uffff", 3),
            _ => (after.get(..1).unwrap_or_default(), 1),
        };
        out.write_all(written)?;
        rest = after.get(length..).unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &str, place: Place) -> String {
        let mut out = Vec::new();
        write(&mut out, text, place).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn specials_by_place() {
        let text = "a&b<c>]]>\"'\t\n\r end";
        assert_eq!(written(text, Place::Element), "a&amp;b&lt;c&gt;]]&gt;\"'\t\n&#13; end");
        assert_eq!(written(text, Place::Quoted), "a&amp;b&lt;c&gt;]]&gt;&quot;'\t\n&#13; end");
        assert_eq!(written(text, Place::Html), "a&amp;b&lt;c&gt;]]&gt;&quot;&#x27;\t\n&#13; end");
        assert_eq!(written(text, Place::Attribute), "a&amp;b&lt;c&gt;]]&gt;&quot;&#x27;&#9;&#10;&#13; end");
    }

    #[test]
    fn what_xml_cannot_say_stays_visible() {
        assert_eq!(written("\0\u{1}\u{b}\u{1f}", Place::Element), "\\x00\\x01\\x0b\\x1f");
        assert_eq!(written("\u{fffe}\u{ffff}\u{fffd}\u{feff}ﬀ", Place::Quoted), "\\ufffe\\uffff\u{fffd}\u{feff}ﬀ");
        assert_eq!(written("\u{7f}\u{85}\u{2028}😀ü", Place::Element), "\u{7f}\u{85}\u{2028}😀ü");
    }
}
