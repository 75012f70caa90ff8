//! Numbers with units: `"500ms"`, `"1KiB"`.

pub use ld_shared::time::seconds;

/// Bytes of `"512"`, `"1KiB"`, `"64kB"`, `"1MiB"`; `None` for anything else.
pub fn bytes(text: &str) -> Option<u64> {
    let (number, unit) = split(text)?;
    let factor = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1.0,
        "kb" | "k" => 1e3,
        "mb" | "m" => 1e6,
        "kib" => 1024.0,
        "mib" => 1024.0 * 1024.0,
        _ => return None,
    };
    finite(number * factor).map(|bytes| bytes as u64)
}

fn finite(number: f64) -> Option<f64> {
    number.is_finite().then_some(number)
}

fn split(text: &str) -> Option<(f64, &str)> {
    let text = text.trim();
    let end = text.find(|c: char| !(c.is_ascii_digit() || c == '.' || c == '-')).unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    Some((digits.parse().ok()?, unit.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units() {
        let table = [
            ("500ms", Some(0.5)),
            ("10s", Some(10.0)),
            ("2m", Some(120.0)),
            ("1.5 h", Some(5400.0)),
            ("-1s", Some(-1.0)),
        ];
        for (text, expected) in table {
            assert_eq!(seconds(text), expected, "{text}");
        }
        assert_eq!((seconds("10 parsec"), seconds("s"), seconds("")), (None, None, None));
        assert_eq!(
            (bytes("1KiB"), bytes("64kB"), bytes("512"), bytes("x")),
            (Some(1024), Some(64_000), Some(512), None)
        );
    }
}
