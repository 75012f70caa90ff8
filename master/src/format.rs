//! Numbers as people read them: the live line, the end table and the HTML report share these.

/// `1,234,567`.
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Milliseconds with three digits that matter and the unit that fits: `870 µs`, `12.3 ms`, `1.20 s`.
pub fn latency(ms: f64) -> String {
    match ms {
        0.0 => "0".into(),
        ms if ms < 1.0 => format!("{:.0} µs", ms * 1e3),
        ms if ms < 10.0 => format!("{ms:.2} ms"),
        ms if ms < 100.0 => format!("{ms:.1} ms"),
        ms if ms < 1_000.0 => format!("{ms:.0} ms"),
        ms if ms < 60_000.0 => format!("{:.2} s", ms / 1e3),
        ms => duration(ms / 1e3),
    }
}

/// [`latency`] without the blank, for columns: `12.3ms`.
pub fn latency_short(ms: f64) -> String {
    latency(ms).replace(' ', "")
}

/// A rate: `0.52`, `12.3`, `1,234`.
pub fn rate(per_second: f64) -> String {
    match per_second {
        0.0 => "0".into(),
        r if r < 10.0 => format!("{r:.2}"),
        r if r < 100.0 => format!("{r:.1}"),
        r => count(r.round() as u64),
    }
}

/// A share as a percentage; one that is neither 0 nor 1 never reads `0 %` or `100 %`.
pub fn percent(share: f64) -> String {
    match share * 100.0 {
        0.0 => "0 %".into(),
        p if p < 0.01 => "< 0.01 %".into(),
        p if p < 10.0 => format!("{p:.2} %"),
        p if p < 99.0 => format!("{p:.1} %"),
        100.0 => "100 %".into(),
        p => format!("{:.2} %", p.min(99.99)),
    }
}

/// Seconds: `0.5 s`, `45 s`, `2 min 30 s`, `1 h 5 min`.
pub fn duration(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    let two = |a: u64, unit: &str, b: u64, small: &str| {
        if b == 0 { format!("{a} {unit}") } else { format!("{a} {unit} {b} {small}") }
    };
    match whole {
        _ if seconds < 60.0 && (seconds - seconds.round()).abs() >= 0.05 => format!("{seconds:.1} s"),
        0..60 => format!("{whole} s"),
        60..3_600 => two(whole / 60, "min", whole % 60, "s"),
        _ => two(whole / 3_600, "h", whole % 3_600 / 60, "min"),
    }
}

/// Bytes: `512 B`, `1.2 kB`, `3.4 GB`.
pub fn bytes(n: u64) -> String {
    let mut value = n as f64;
    for unit in ["B", "kB", "MB", "GB", "TB"] {
        if value < 1_000.0 || unit == "TB" {
            return if unit == "B" { format!("{n} B") } else { format!("{value:.1} {unit}") };
        }
        value /= 1_000.0;
    }
    unreachable!("the last unit returns")
}

/// At most `width` characters, with a `…` where some were cut: in front of URLs, which tell
/// themselves apart by their ends, behind everything else.
pub fn cut(text: &str, width: usize) -> String {
    // a name must not move the cursor or break a line
    let text = text.replace(char::is_control, "·");
    let length = text.chars().count();
    if length <= width {
        return text;
    }
    if text.contains("://") {
        return std::iter::once('…').chain(text.chars().skip(length + 1 - width.max(1))).collect();
    }
    text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        let counts = [0, 12, 999, 1_000, 1_234_567].map(count);
        assert_eq!(counts, ["0", "12", "999", "1,000", "1,234,567"]);
        let latencies = [0.0, 0.87, 9.876, 12.34, 123.4, 1_204.0, 61_000.0].map(latency);
        assert_eq!(latencies, ["0", "870 µs", "9.88 ms", "12.3 ms", "123 ms", "1.20 s", "1 min 1 s"]);
        let shares = [0.0, 0.000_01, 0.012_3, 0.5, 0.999_999, 1.0].map(percent);
        assert_eq!(shares, ["0 %", "< 0.01 %", "1.23 %", "50.0 %", "99.99 %", "100 %"]);
        let durations = [0.0, 0.5, 10.0, 59.97, 150.0, 3_900.0].map(duration);
        assert_eq!(durations, ["0 s", "0.5 s", "10 s", "1 min", "2 min 30 s", "1 h 5 min"]);
        assert_eq!([0, 999, 1_200, 3_400_000_000].map(bytes), ["0 B", "999 B", "1.2 kB", "3.4 GB"]);
        assert_eq!(cut("kürzer", 6), "kürzer");
        assert_eq!(cut("zu langer Name", 6), "zu la…");
        assert_eq!(cut("http://host/path/a", 8), "…/path/a");
    }
}
