//! A comparison for people, in 80 columns.

use super::{Comparison, Metric, Moved, Options};
use crate::format;
use std::fmt::Write as _;

/// Columns of everything but the name.
const NUMBERS: usize = 10 + 9 + 9 + 9 + 20;

/// What moved, and how much was compared.
pub fn render(comparison: &Comparison, options: Options, width: usize) -> String {
    let name_width = width.clamp(80, 140) - NUMBERS;
    let mut out = String::new();
    let mut say = |text: &str| {
        out.push_str(text.trim_end());
        out.push('\n');
    };
    for (title, worse) in [("worse", true), ("better", false)] {
        let moved: Vec<&Moved> = comparison.moved.iter().filter(|moved| moved.worse == worse).collect();
        if !moved.is_empty() {
            say(&row(name_width, [title, "metric", "A", "B", "change", "between"].map(str::to_owned)));
            for moved in moved {
                say(&row(name_width, cells(moved)));
            }
            say("");
        }
    }
    for (which, names) in [("A", &comparison.only_in_a), ("B", &comparison.only_in_b)] {
        if !names.is_empty() {
            say(&format!("only in {which}: {}", names.join(", ")));
        }
    }
    if comparison.moved.iter().any(|moved| moved.expected.is_some()) {
        say("changes of rates are against those that the response times explain");
    }
    if comparison.without_rate > 0 {
        let s = if comparison.without_rate == 1 { "" } else { "s" };
        say(&format!("rate of {} name{s} not compared: who paced them is not known", comparison.without_rate));
    }
    if comparison.too_few > 0 {
        let s = if comparison.too_few == 1 { "" } else { "s" };
        say(&format!("{} comparison{s} undecided: too few samples, or too much scatter", comparison.too_few));
    }
    say(&verdict(comparison, options));
    out
}

fn verdict(comparison: &Comparison, options: Options) -> String {
    let (names, compared) = (comparison.names, comparison.compared);
    let s = if names == 1 { "" } else { "s" };
    let moved = match comparison.moved.len() {
        0 => "nothing moved".to_owned(),
        1 => "1 moved".to_owned(),
        n => format!("{n} moved"),
    };
    let percent = |share: f64| (share * 1e4).round() / 1e2;
    let (threshold, confidence) = (percent(options.threshold), percent(options.confidence));
    format!(
        "{moved} by more than {threshold} % beyond noise, of {compared} comparisons of {names} name{s} \
         (confidence {confidence} %)"
    )
}

fn row(name_width: usize, [name, metric, a, b, change, between]: [String; 6]) -> String {
    let name = format::cut(&name, name_width);
    let mut line = format!("{name:<name_width$} {metric:<8}");
    write!(line, " {a:>8} {b:>8} {change:>8} {between:>19}").expect("writing to a String cannot fail");
    line
}

fn cells(moved: &Moved) -> [String; 6] {
    let value = |value: f64| match moved.metric {
        Metric::P50 | Metric::P95 | Metric::P99 => format::latency_short(value),
        Metric::Rate => format!("{}/s", format::rate(value)),
        Metric::Failures => format::percent(value).replace(' ', ""),
    };
    let unit = if moved.metric == Metric::Failures { " pt" } else { " %" };
    let between = match moved.high {
        Some(high) => format!("{} … {}{unit}", signed(moved.low), signed(high)),
        None => format!("over {}{unit}", signed(moved.low)),
    };
    let a = value(moved.a);
    let change = format!("{}{unit}", signed(moved.change));
    [moved.name.clone(), moved.metric.name().to_owned(), a, value(moved.b), change, between]
}

/// `+19.8`, in hundredths of one.
fn signed(share: f64) -> String {
    let hundredths = share * 100.0;
    match hundredths.abs() {
        n if n >= 100.0 => format!("{hundredths:+.0}"),
        n if n >= 1.0 => format!("{hundredths:+.1}"),
        _ => format!("{hundredths:+.2}"),
    }
}
