//! Charts as SVG: lines and areas over time, and the percentile spectrum. Colours are classes, so
//! that the page's style decides them for light, dark and paper.

use crate::format;
use std::fmt::Write as _;

const WIDTH: f64 = 960.0;
const LEFT: f64 = 62.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 26.0;

/// How a line of a chart looks; its colour is the class `name`.
pub(super) struct Line {
    /// CSS class.
    pub class: &'static str,
    /// Filled down to the axis.
    pub area: bool,
    /// One value a point of the chart; `None` leaves a gap.
    pub values: Vec<Option<f64>>,
}

/// A chart over time.
pub(super) struct Chart {
    /// What it shows, for screen readers.
    pub label: &'static str,
    /// Height in units of a 960 wide picture.
    pub height: f64,
    /// Start of each point, s; and the end of the last.
    pub edges: Vec<f64>,
    /// Lines, from back to front.
    pub lines: Vec<Line>,
    /// Points in which the generator was the limit.
    pub marked: Vec<bool>,
    /// Where the warm-up ends, s.
    pub warmup: f64,
    /// Tooltip of each point.
    pub tips: Vec<String>,
    /// How values read on the axis.
    pub unit: fn(f64) -> String,
}

impl Chart {
    /// The picture.
    pub(super) fn svg(&self) -> String {
        let end = self.edges.last().copied().unwrap_or(1.0).max(1.0);
        let peak = self.lines.iter().flat_map(|l| l.values.iter().flatten()).copied().fold(0.0, f64::max);
        let ticks = ticks(peak);
        let top = ticks.last().copied().unwrap_or(1.0);
        let x = |t: f64| LEFT + t / end * (WIDTH - LEFT - RIGHT);
        let y = |v: f64| self.height - BOTTOM - v / top * (self.height - TOP - BOTTOM);
        let mut svg = Svg::new(self.label, self.height);
        for (i, marked) in self.marked.iter().enumerate() {
            if *marked {
                svg.rect(
                    "mark",
                    x(self.edges[i]),
                    TOP,
                    x(self.edges[i + 1]) - x(self.edges[i]),
                    self.height - TOP - BOTTOM,
                );
            }
        }
        if self.warmup > 0.0 {
            svg.rect("warm", x(0.0), TOP, x(self.warmup.min(end)) - x(0.0), self.height - TOP - BOTTOM);
        }
        for tick in &ticks {
            svg.line("grid", LEFT, y(*tick), WIDTH - RIGHT, y(*tick));
            svg.text("axis", "end", LEFT - 8.0, y(*tick) + 4.0, &round_text(&(self.unit)(*tick)));
        }
        for t in time_ticks(end) {
            svg.text("axis", "middle", x(t), self.height - 8.0, &clock(t));
        }
        for line in &self.lines {
            // a point stands for its span: it is drawn in the span's middle
            let points = line
                .values
                .iter()
                .enumerate()
                .map(|(i, v)| v.map(|v| (x(f64::midpoint(self.edges[i], self.edges[i + 1])), y(v))));
            svg.path(line, points, y(0.0));
        }
        for (i, tip) in self.tips.iter().enumerate() {
            svg.tip(x(self.edges[i]), x(self.edges[i + 1]), TOP, self.height - BOTTOM, tip);
        }
        svg.finish()
    }
}

/// One curve of a [`spectrum`].
pub(super) struct Curve {
    /// CSS class.
    pub class: &'static str,
    /// Points: percentile in 0..100, latency in ms.
    pub points: Vec<(f64, f64)>,
}

/// Latency by percentile: x is 1 / (1 − p) on a logarithmic axis, so that each nine has the same
/// room; y is logarithmic too.
pub(super) fn spectrum(curves: &[Curve], count: u64, height: f64) -> String {
    let all = || curves.iter().flat_map(|c| &c.points).map(|(_, ms)| ms.max(0.001));
    let (low, high) = (all().fold(f64::MAX, f64::min), all().fold(0.001, f64::max));
    let (low, high) = (low.min(high).log10().floor(), high.log10().ceil());
    let high = if high > low { high } else { low + 1.0 };
    let nines = (count.max(10) as f64).log10().clamp(1.0, 7.0);
    let x = |p: f64| {
        let place = -(1.0 - p / 100.0).max(1e-9).log10();
        LEFT + (place / nines).min(1.0) * (WIDTH - LEFT - RIGHT)
    };
    let y = |ms: f64| height - BOTTOM - (ms.max(0.001).log10() - low) / (high - low) * (height - TOP - BOTTOM);
    let mut svg = Svg::new("latency by percentile", height);
    for decade in low as i32..=high as i32 {
        let ms = 10_f64.powi(decade);
        svg.line("grid", LEFT, y(ms), WIDTH - RIGHT, y(ms));
        svg.text("axis", "end", LEFT - 8.0, y(ms) + 4.0, &round(ms));
        for part in [2.0, 5.0] {
            if decade < high as i32 {
                svg.line("grid minor", LEFT, y(ms * part), WIDTH - RIGHT, y(ms * part));
            }
        }
    }
    for p in [0.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.9, 99.99, 99.999, 99.9999, 99.99999] {
        if -(1.0_f64 - p / 100.0).log10() <= nines + 0.02 {
            svg.line("grid minor", x(p), TOP, x(p), height - BOTTOM);
            svg.text("axis", "middle", x(p), height - 8.0, &format!("{p} %"));
        }
    }
    for curve in curves {
        let line = Line { class: curve.class, area: false, values: Vec::new() };
        svg.path(&line, curve.points.iter().map(|(p, ms)| Some((x(*p), y(*ms)))), 0.0);
    }
    for curve in curves.iter().take(1) {
        for pair in curve.points.windows(2) {
            let tip = format!("{} % of all within {}", trim(pair[0].0), format::latency(pair[0].1));
            svg.tip(x(pair[0].0), x(pair[1].0), TOP, height - BOTTOM, &tip);
        }
    }
    svg.finish()
}

/// A round value without needless decimals: `50.0` is `50`, `1.50 s` is `1.5 s`.
fn round_text(text: &str) -> String {
    let (number, unit) = text.split_once(' ').map_or((text, ""), |(number, unit)| (number, unit));
    let number = if number.contains('.') { number.trim_end_matches('0').trim_end_matches('.') } else { number };
    format!("{number} {unit}").trim_end().to_owned()
}

/// A percentile without needless digits.
fn trim(p: f64) -> String {
    let text = format!("{p:.5}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A power of ten in milliseconds: `10 ms`, `100 µs`, `1 s`.
fn round(ms: f64) -> String {
    match ms {
        ms if ms < 0.9 => format!("{:.0} µs", ms * 1e3),
        ms if ms < 900.0 => format!("{ms:.0} ms"),
        ms => format!("{:.0} s", ms / 1e3),
    }
}

/// About five round values from 0 to at least `peak`.
fn ticks(peak: f64) -> Vec<f64> {
    let peak = if peak > 0.0 { peak } else { 1.0 };
    let rough = peak / 4.0;
    let power = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 2.5, 5.0, 10.0].map(|m| m * power).into_iter().find(|s| *s >= rough).unwrap_or(power * 10.0);
    let steps = (peak / step).ceil().max(1.0) as u32;
    (0..=steps).map(|i| f64::from(i) * step).collect()
}

/// At most a dozen round instants from 0 to `end` seconds.
fn time_ticks(end: f64) -> Vec<f64> {
    const STEPS: [f64; 15] =
        [1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1_800.0, 3_600.0, 7_200.0, 21_600.0, 86_400.0];
    let step = STEPS.into_iter().find(|s| end / s <= 12.0).unwrap_or(86_400.0 * (end / 1e6).ceil());
    (0..=(end / step) as u32).map(|i| f64::from(i) * step).collect()
}

/// `0:45`, `2:30`, `1:05:00`.
pub(super) fn clock(seconds: f64) -> String {
    let s = seconds as u64;
    match s {
        0..3_600 => format!("{}:{:02}", s / 60, s % 60),
        _ => format!("{}:{:02}:{:02}", s / 3_600, s % 3_600 / 60, s % 60),
    }
}

/// A picture in the making.
struct Svg {
    text: String,
}

impl Svg {
    fn new(label: &str, height: f64) -> Self {
        let text = format!(r#"<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{}">"#, escape(label));
        Self { text }
    }

    fn push(&mut self, args: std::fmt::Arguments<'_>) {
        self.text.write_fmt(args).expect("writing to a String cannot fail");
    }

    fn rect(&mut self, class: &str, x: f64, y: f64, width: f64, height: f64) {
        let width = width.max(0.5);
        self.push(format_args!(
            r#"<rect class="{class}" x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{height:.1}"/>"#
        ));
    }

    fn line(&mut self, class: &str, x1: f64, y1: f64, x2: f64, y2: f64) {
        self.push(format_args!(r#"<line class="{class}" x1="{x1:.1}" y1="{y1:.1}" x2="{x2:.1}" y2="{y2:.1}"/>"#));
    }

    fn text(&mut self, class: &str, anchor: &str, x: f64, y: f64, text: &str) {
        let text = escape(text);
        self.push(format_args!(r#"<text class="{class}" text-anchor="{anchor}" x="{x:.1}" y="{y:.1}">{text}</text>"#));
    }

    /// A line, broken where points are missing; an area is closed along `floor`.
    fn path(&mut self, line: &Line, points: impl Iterator<Item = Option<(f64, f64)>>, floor: f64) {
        let (mut stroke, mut fill) = (String::new(), String::new());
        let mut last: Option<(f64, f64)> = None;
        for point in points.chain([None]) {
            match (last, point) {
                (None, Some((x, y))) => {
                    write!(stroke, "M{x:.1} {y:.1}").expect("writing to a String cannot fail");
                    write!(fill, "M{x:.1} {floor:.1}L{x:.1} {y:.1}").expect("writing to a String cannot fail");
                    // a round cap makes a lone point visible
                    stroke.push_str("h0");
                }
                (Some(_), Some((x, y))) => {
                    write!(stroke, "L{x:.1} {y:.1}").expect("writing to a String cannot fail");
                    write!(fill, "L{x:.1} {y:.1}").expect("writing to a String cannot fail");
                }
                (Some((x, _)), None) => write!(fill, "L{x:.1} {floor:.1}Z").expect("writing to a String cannot fail"),
                (None, None) => {}
            }
            last = point;
        }
        if line.area && !fill.is_empty() {
            self.push(format_args!(r#"<path class="fill {}" d="{fill}"/>"#, line.class));
        }
        if !stroke.is_empty() {
            self.push(format_args!(r#"<path class="line {}" d="{stroke}"/>"#, line.class));
        }
    }

    /// A column that shows `tip` under the pointer.
    fn tip(&mut self, from: f64, to: f64, top: f64, bottom: f64, tip: &str) {
        let (width, height) = ((to - from).max(0.1), bottom - top);
        let tip = escape(tip);
        self.push(format_args!(
            r#"<rect class="tip" x="{from:.1}" y="{top:.0}" width="{width:.1}" height="{height:.0}"><title>{tip}</title></rect>"#
        ));
    }

    fn finish(mut self) -> String {
        self.text.push_str("</svg>");
        self.text
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_have_round_ticks_that_hold_the_peak() {
        for peak in [0.0, 0.3, 1.0, 7.0, 99.0, 101.0, 12_345.0] {
            let ticks = ticks(peak);
            assert!((3..=6).contains(&ticks.len()), "{peak}: {ticks:?}");
            assert!(ticks.last().is_some_and(|top| *top >= peak));
        }
        assert_eq!(time_ticks(10.0).len(), 11);
        assert!(time_ticks(1e7).len() <= 13);
    }

    #[test]
    fn an_empty_chart_is_a_picture() {
        let chart = Chart {
            label: "x",
            height: 200.0,
            edges: vec![],
            lines: vec![],
            marked: vec![],
            warmup: 0.0,
            tips: vec![],
            unit: format::rate,
        };
        assert!(chart.svg().ends_with("</svg>"));
        assert!(spectrum(&[], 0, 200.0).ends_with("</svg>"));
    }
}
