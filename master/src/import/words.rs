//! Splits a command line into words as a POSIX shell does, with what browsers put into theirs:
//! `$'…'` (ANSI-C quoting) and lines that go on after a backslash.

/// The words, or what is wrong.
///
/// # Errors
///
/// A quote that is not closed.
pub(super) fn split(line: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next() {
                        Some('\'') => break,
                        Some(c) => word.push(c),
                        None => return Err("a quote ' is not closed".to_owned()),
                    }
                }
            }
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next() {
                        Some('"') => break,
                        Some('\\') => match chars.next() {
                            Some(c @ ('"' | '\\' | '$' | '`')) => word.push(c),
                            Some('\n') => {}
                            Some(c) => word.extend(['\\', c]),
                            None => return Err("a quote \" is not closed".to_owned()),
                        },
                        Some(c) => word.push(c),
                        None => return Err("a quote \" is not closed".to_owned()),
                    }
                }
            }
            '$' if chars.peek() == Some(&'\'') => {
                chars.next();
                ansi_c(&mut chars, word.get_or_insert_default())?;
            }
            '\\' => match chars.next() {
                Some('\n') => {}
                Some('\r') => {
                    chars.next_if_eq(&'\n');
                }
                Some(c) => word.get_or_insert_default().push(c),
                None => word.get_or_insert_default().push('\\'),
            },
            c if c.is_whitespace() => words.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    Ok(words)
}

/// The rest of `$'…'` after its opening quote.
fn ansi_c(chars: &mut std::iter::Peekable<std::str::Chars<'_>>, word: &mut String) -> Result<(), String> {
    let unclosed = || "a quote $' is not closed".to_owned();
    loop {
        match chars.next().ok_or_else(unclosed)? {
            '\'' => return Ok(()),
            '\\' => match chars.next().ok_or_else(unclosed)? {
                'n' => word.push('\n'),
                't' => word.push('\t'),
                'r' => word.push('\r'),
                '0' => word.push('\0'),
                'a' => word.push('\u{7}'),
                'b' => word.push('\u{8}'),
                'e' | 'E' => word.push('\u{1b}'),
                'x' => word.extend(code(chars, 2)),
                'u' => {
                    let high = hex(chars, 4);
                    word.extend(character(high, chars));
                }
                'U' => word.extend(code(chars, 8)),
                c @ ('\'' | '"' | '\\' | '?') => word.push(c),
                c => word.extend(['\\', c]),
            },
            c => word.push(c),
        }
    }
}

fn code(chars: &mut std::iter::Peekable<std::str::Chars<'_>>, most: usize) -> Option<char> {
    char::from_u32(hex(chars, most))
}

fn hex(chars: &mut std::iter::Peekable<std::str::Chars<'_>>, most: usize) -> u32 {
    let mut value = 0;
    for _ in 0..most {
        let Some(digit) = chars.peek().and_then(|c| c.to_digit(16)) else { break };
        value = value * 16 + digit;
        chars.next();
    }
    value
}

/// A character of UTF-16: browsers write those beyond the first plane as two `\u`.
fn character(high: u32, chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<char> {
    if !(0xD800..0xDC00).contains(&high) {
        return char::from_u32(high);
    }
    chars.next_if_eq(&'\\')?;
    chars.next_if_eq(&'u')?;
    let low = hex(chars, 4);
    char::from_u32(0x1_0000 + ((high - 0xD800) << 10) + low.checked_sub(0xDC00)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_a_shell() {
        let table: [(&str, &[&str]); 8] = [
            ("curl  'a b' \"c \\\" \\d\"  e\\ f", &["curl", "a b", "c \" \\d", "e f"]),
            ("a \\\n  b \\\r\n c", &["a", "b", "c"]),
            ("--data-raw $'{\"a\":\"it\\'s\\u0021\\n\"}'", &["--data-raw", "{\"a\":\"it's!\n\"}"]),
            ("$'\\ud83d\\ude00\\x41\\U0001F600'", &["😀A😀"]),
            ("'' \"\"", &["", ""]),
            ("x'y'\"z\"", &["xyz"]),
            ("a$b '$c'", &["a$b", "$c"]),
            ("", &[]),
        ];
        for (line, words) in table {
            assert_eq!(split(line).unwrap(), words, "{line}");
        }
        for line in ["'a", "\"a", "$'a", "\"a\\"] {
            assert!(split(line).unwrap_err().ends_with("is not closed"), "{line}");
        }
    }
}
