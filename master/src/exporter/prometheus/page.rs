//! The page: Prometheus's text format, version 0.0.4.
//!
//! Source: <https://prometheus.io/docs/instrumenting/exposition_formats/>.

use crate::exporter::counts::{at_most, ms};
use crate::exporter::names::{LONGEST, Labels, by_label, cut};
use crate::exporter::{Reading, Tally};
use crate::remote::Feed;
use crate::run::Run;
use crate::run::conservation::sent;
use crate::run::verdict::Outcome;
use ld_shared::frame::PhaseOdometer;
use ld_shared::latency::Latency;
use ld_shared::sample::{FailureKind, Phase};
use ld_shared::snapshot::{DropReason, PhaseSnapshot, Series};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::{Display, Write as _};

/// Upper bounds of the seed's latency buckets, ms.
const BOUNDS: [u64; 11] = [5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000];

/// The page of all that was measured, without what exporters delivered.
pub fn render(feed: &Feed) -> String {
    let mut page = Page::default();
    page.requests(feed.totals.phase(Phase::Main));
    page.conservation(feed);
    page.cluster(feed);
    page.judged(feed);
    page.0
}

/// The page of a reading.
pub(super) fn of(reading: &Reading) -> String {
    let mut page = Page(render(&reading.feed));
    page.exporters(&reading.tallies);
    page.0
}

#[derive(Default)]
struct Page(String);

impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        self.line(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}"));
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        self.0.write_fmt(line).and_then(|()| self.0.write_char('\n')).expect("writing to a String cannot fail");
    }

    /// A family of one sample.
    fn one(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.family(name, kind, help);
        self.line(format_args!("{name} {value}"));
    }

    fn requests(&mut self, main: &PhaseSnapshot) {
        let all = by_label(main, |text| escaped(&cut(text, LONGEST)));
        self.family("loaddensity_requests_total", "counter", "Requests that ended, of the main phase.");
        for ([kind, name], series) in &all {
            for (outcome, latency) in [("success", &series.succeeded), ("failure", &series.failed)] {
                let count = latency.count();
                self.line(format_args!(
                    "loaddensity_requests_total{{name=\"{name}\",outcome=\"{outcome}\",request_type=\"{kind}\"}} {count}"
                ));
            }
        }
        self.latencies(&all);
        self.family(
            "loaddensity_response_bytes",
            "histogram",
            "Bytes read per request, as far as a sum and a count tell of them.",
        );
        for ([kind, name], series) in &all {
            let count = series.succeeded.count() + series.failed.count();
            let labels = format!("name=\"{name}\",request_type=\"{kind}\"");
            self.line(format_args!("loaddensity_response_bytes_bucket{{le=\"+Inf\",{labels}}} {count}"));
            self.line(format_args!("loaddensity_response_bytes_count{{{labels}}} {count}"));
            self.line(format_args!("loaddensity_response_bytes_sum{{{labels}}} {}", series.bytes_received));
        }
        self.family("loaddensity_sent_bytes_total", "counter", "Bytes written for requests.");
        for ([kind, name], series) in &all {
            self.line(format_args!(
                "loaddensity_sent_bytes_total{{name=\"{name}\",request_type=\"{kind}\"}} {}",
                series.bytes_sent
            ));
        }
        self.failures(main);
    }

    fn latencies(&mut self, all: &BTreeMap<Labels, Cow<'_, Series>>) {
        let family = "loaddensity_request_latency_ms";
        self.family(family, "histogram", "Response time in milliseconds.");
        for ([kind, name], series) in all {
            let latency = series.all();
            let labels = format!("name=\"{name}\",request_type=\"{kind}\"");
            for (bound, count) in BOUNDS.iter().zip(at_most(&latency, &BOUNDS)) {
                // written as the seed's library does: the text of a bound is part of a series' name
                self.line(format_args!("{family}_bucket{{le=\"{bound}.0\",{labels}}} {count}"));
            }
            self.line(format_args!("{family}_bucket{{le=\"+Inf\",{labels}}} {}", latency.count()));
            self.line(format_args!("{family}_count{{{labels}}} {}", latency.count()));
            self.line(format_args!("{family}_sum{{{labels}}} {}", ms(latency.sum())));
        }
    }

    /// By class: texts of reasons are too many for labels.
    fn failures(&mut self, main: &PhaseSnapshot) {
        let mut by_kind: BTreeMap<FailureKind, u64> = BTreeMap::new();
        for failure in main.failures.values() {
            *by_kind.entry(failure.kind).or_default() += failure.count;
        }
        self.family("loaddensity_failures_total", "counter", "Failed requests by class.");
        for (kind, count) in by_kind {
            self.line(format_args!("loaddensity_failures_total{{class=\"{}\"}} {count}", kind.name()));
        }
    }

    /// Both ledgers.
    fn conservation(&mut self, feed: &Feed) {
        let counted = feed.odometers.phase(Phase::Main);
        let PhaseOdometer { due, iterations, dropped, requests_in_flight, .. } = *counted;
        let main = feed.totals.phase(Phase::Main);
        let started = sent(counted);
        self.one("loaddensity_requests_started_total", "counter", "Requests that were started.", started);
        let ended = main.succeeded() + main.failed() + requests_in_flight + feed.lost;
        let open = started.saturating_sub(ended);
        self.one("loaddensity_requests_in_flight", "gauge", "Requests that were started and have not ended.", open);
        self.one(
            "loaddensity_requests_cut_off_total",
            "counter",
            "Requests that were in flight when their run ended.",
            requests_in_flight,
        );
        self.one(
            "loaddensity_requests_lost_total",
            "counter",
            "Most requests whose end a lost worker took with it.",
            feed.lost,
        );
        self.one("loaddensity_iterations_due_total", "counter", "Iterations that were due.", due);
        self.one("loaddensity_iterations_started_total", "counter", "Iterations that were started.", iterations);
        self.family("loaddensity_iterations_dropped_total", "counter", "Iterations that were due and not started.");
        for reason in DropReason::ALL {
            let count = dropped[reason.index()];
            self.line(format_args!("loaddensity_iterations_dropped_total{{reason=\"{}\"}} {count}", reason.name()));
        }
    }

    fn cluster(&mut self, feed: &Feed) {
        self.family("loaddensity_build_info", "gauge", "What is running.");
        self.line(format_args!("loaddensity_build_info{{version=\"{}\"}} 1", env!("CARGO_PKG_VERSION")));
        let progress = feed.progress.as_deref();
        self.one("loaddensity_running", "gauge", "Whether a test goes on.", u8::from(progress.is_some()));
        self.one("loaddensity_runs_total", "counter", "Tests that are over.", feed.finished);
        self.one(
            "loaddensity_users",
            "gauge",
            "Virtual users now (open model: open iterations).",
            progress.map_or(0, |p| p.users),
        );
        self.one(
            "loaddensity_requests_per_second",
            "gauge",
            "Requests started in the last complete second.",
            finite(progress.map_or(0.0, |p| p.rate)),
        );
        self.one("loaddensity_workers", "gauge", "Workers that are there.", feed.workers.len());
        let late = feed.workers.iter().filter(|worker| worker.late).count();
        self.one("loaddensity_workers_late", "gauge", "Workers of whom nothing was heard for a second or more.", late);
        self.summary(
            "loaddensity_lag_seconds",
            "From when requests were due to when they were started.",
            &feed.totals.phase(Phase::Main).lag,
        );
        let workers: BTreeMap<String, _> = feed.workers.iter().map(|w| (escaped(&cut(&w.name, LONGEST)), w)).collect();
        self.family("loaddensity_worker_cpu_ratio", "gauge", "Greatest share of a core of the worker in this test.");
        for (name, worker) in &workers {
            self.line(format_args!("loaddensity_worker_cpu_ratio{{worker=\"{name}\"}} {}", finite(worker.cpu_max)));
        }
        self.family(
            "loaddensity_worker_scheduler_lag_seconds",
            "gauge",
            "How long cores of the worker waited to be polled in this test, 99th percentile.",
        );
        for (name, worker) in &workers {
            let seconds = finite(worker.lag_p99_ms / 1e3);
            self.line(format_args!("loaddensity_worker_scheduler_lag_seconds{{worker=\"{name}\"}} {seconds}"));
        }
    }

    fn summary(&mut self, name: &str, help: &str, latency: &Latency) {
        self.family(name, "summary", help);
        for p in [50.0, 95.0, 99.0] {
            let value = latency.percentile(p) as f64 / 1e6;
            self.line(format_args!("{name}{{quantile=\"{}\"}} {value}", p / 100.0));
        }
        self.line(format_args!("{name}_sum {}", latency.sum() as f64 / 1e6));
        self.line(format_args!("{name}_count {}", latency.count()));
    }

    /// How the last test was judged that is over.
    fn judged(&mut self, feed: &Feed) {
        let Some(Run { verdict, .. }) = feed.last.as_deref() else { return };
        self.family("loaddensity_verdict", "gauge", "1 under the outcome of the last test that is over.");
        for outcome in [Outcome::Passed, Outcome::Inconclusive, Outcome::Failed, Outcome::Error, Outcome::Aborted] {
            let is = u8::from(outcome == verdict.outcome);
            self.line(format_args!("loaddensity_verdict{{outcome=\"{}\"}} {is}", outcome.name()));
        }
        // one rule twice is judged the same twice
        let rules: BTreeMap<String, _> =
            verdict.thresholds.iter().map(|rule| (escaped(&cut(&rule.rule, LONGEST)), rule)).collect();
        self.family("loaddensity_threshold_ok", "gauge", "Whether the rule held in the last test that is over.");
        for (text, rule) in &rules {
            self.line(format_args!("loaddensity_threshold_ok{{rule=\"{text}\"}} {}", u8::from(rule.ok)));
        }
        self.family("loaddensity_threshold_observed", "gauge", "What the rule saw, in its own unit.");
        for (text, rule) in &rules {
            if let Some(observed) = rule.observed {
                self.line(format_args!("loaddensity_threshold_observed{{rule=\"{text}\"}} {}", finite(observed)));
            }
        }
    }

    fn exporters(&mut self, tallies: &[std::sync::Arc<Tally>]) {
        for (name, help, count) in [
            ("loaddensity_exporter_sent_total", "What exporters delivered.", Tally::sent as fn(&Tally) -> u64),
            ("loaddensity_exporter_dropped_total", "What exporters could not deliver.", Tally::dropped),
        ] {
            let mut by_name: BTreeMap<&str, u64> = BTreeMap::new();
            for tally in tallies {
                *by_name.entry(&tally.name).or_default() += count(tally);
            }
            self.family(name, "counter", help);
            for (exporter, count) in by_name {
                self.line(format_args!("{name}{{exporter=\"{exporter}\"}} {count}"));
            }
        }
    }
}

/// A number that the format can hold: what is not one is told as it wants.
fn finite(value: f64) -> String {
    if value.is_nan() {
        return "NaN".into();
    }
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.into();
    }
    value.to_string()
}

/// A label's value between its quotes.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exporter::names::tests::hostile;
    use crate::run::fixture;
    use crate::run::verdict::Verdict;
    use ld_shared::sample::SeriesKey;
    use proptest::prelude::*;
    use std::sync::Arc;

    fn feed() -> Feed {
        let measured = fixture::measured();
        let verdict = Verdict::of(&measured, Vec::new());
        Feed {
            totals: measured.total.clone(),
            odometers: measured.odometers,
            finished: 1,
            last: Some(Arc::new(Run { measured, verdict, label: None })),
            ..Feed::default()
        }
    }

    #[test]
    fn the_page() {
        let page = render(&feed()).replace(env!("CARGO_PKG_VERSION"), "VERSION");
        insta::assert_snapshot!("prometheus", page);
    }

    proptest! {
        /// A line is a line, and its labels read back as they were.
        #[test]
        fn labels_hold_anything(name in hostile(), kind in hostile()) {
            let mut feed = Feed::default();
            let key = SeriesKey { name: name.as_str().into(), request_type: kind.as_str().into(), scenario: "s".into() };
            feed.totals.phase_mut(Phase::Main).series_mut(&key).succeeded.record(7);
            let page = render(&feed);
            let line = page.split('\n').find(|line| line.starts_with("loaddensity_requests_total{")).unwrap();
            let rest = line.strip_prefix("loaddensity_requests_total{name=\"").unwrap();
            let (read, rest) = unescaped(rest);
            prop_assert_eq!(read, cut(&name, LONGEST));
            let (read, rest) = unescaped(rest.strip_prefix(",outcome=\"success\",request_type=\"").unwrap());
            prop_assert_eq!(read, cut(&kind, LONGEST));
            prop_assert_eq!(rest, "} 1");
        }
    }

    /// Up to the quote that ends it, as Prometheus reads it; the rest.
    fn unescaped(text: &str) -> (String, &str) {
        let mut out = String::new();
        let mut chars = text.char_indices();
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => return (out, text.get(at + 1..).expect("one byte behind a quote")),
                '\\' => out.push(match chars.next().unwrap().1 {
                    'n' => '\n',
                    c => c,
                }),
                c => out.push(c),
            }
        }
        panic!("no end in {text:?}");
    }
}
