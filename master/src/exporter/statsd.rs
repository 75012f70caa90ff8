//! StatsD, with the tags of DogStatsD, by UDP.

use super::counts::series_since;
use super::influx::batches;
use super::names::{Labels, by_label, cut};
use super::net::Datagrams;
use super::push::{self, Batch, Encoder, Rules};
use super::{Exporter, ExporterError, Life, Opened, Reading, Site, place};
use crate::script::{CommandSpec, Kind, Parameter};
use ld_shared::latency::Latency;
use ld_shared::sample::Phase;
use serde::Deserialize;
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;

const PORT: u16 = 8_125;
const PREFIX: &str = "loaddensity";
/// Bytes of one datagram.
const DATAGRAM: usize = 1_400;
const DATAGRAMS: usize = 4_096;
/// The longest tag: one line fits into a datagram.
const TAG: usize = 200;
/// Samples of a name and second that are sent one by one; of more, so many stand for all.
const SAMPLES: u64 = 50;
/// Sending a counter again that has arrived would count it twice; only what was refused is sent again.
const PATIENCE: Duration = Duration::from_secs(10);
const EVERY: Duration = Duration::from_millis(900);

/// Sends counters and timings to a StatsD server.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub(super) struct StatsD {
    host: String,
    port: u16,
    prefix: String,
}

impl Default for StatsD {
    fn default() -> Self {
        Self { host: "127.0.0.1".into(), port: PORT, prefix: PREFIX.into() }
    }
}

impl Exporter for StatsD {
    const NAME: &'static str = "statsd";
    const START: CommandSpec = CommandSpec {
        name: "LD_start_statsd_sink",
        parameters: &[
            Parameter::new("host", Kind::Text).about("where datagrams go"),
            Parameter::new("port", Kind::Integer).about("where datagrams go"),
            Parameter::new("prefix", Kind::Text).about("what names begin with"),
        ],
        check: None,
    };
    const STOP: CommandSpec = CommandSpec { name: "LD_stop_statsd_sink", parameters: &[], check: None };
    const ABOUT: &'static str = "Sends counters and timings to a StatsD server until it is stopped, over all tests";

    fn from_flag(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        let (address, prefix) = text.split_once('/').unwrap_or((text, PREFIX));
        let uri = place::url(&format!("udp://{address}"), &["udp"])
            .map_err(|_| format!("HOST[:{PORT}][/PREFIX] is accepted"))?;
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        Ok(Self { host, port: uri.port_u16().unwrap_or(PORT), prefix: prefix.to_owned() })
    }

    async fn open(self, _site: &Site) -> Result<Opened, ExporterError> {
        let address = place::joined(&self.host, self.port);
        Ok(Opened {
            place: format!("udp://{address}"),
            result: Value::Null,
            unit: "lines",
            notes: Vec::new(),
            work: Box::new(move |life: Life| {
                let base = Arc::clone(&life.readings.borrow());
                let lines = Lines { prefix: written(&self.prefix), base };
                let socket = Datagrams::new(address, Arc::clone(&life.tally));
                let rules = Rules { queue: DATAGRAMS, patience: PATIENCE, every: EVERY };
                Box::pin(push::run(life, lines, socket, rules))
            }),
        })
    }
}

/// What readings add, as lines.
struct Lines {
    prefix: String,
    base: Arc<Reading>,
}

impl Encoder for Lines {
    fn encode(&mut self, reading: &Arc<Reading>) -> Vec<Batch> {
        let base = std::mem::replace(&mut self.base, Arc::clone(reading));
        let [before, now] = [&base, reading].map(|r| by_label(r.feed.totals.phase(Phase::Main), written));
        let mut lines = Vec::new();
        for (labels, series) in &now {
            let more = series_since(series, before.get(labels).map(AsRef::as_ref));
            let count = more.succeeded.count() + more.failed.count();
            for (outcome, latency) in [("success", &more.succeeded), ("failure", &more.failed)] {
                self.outcome(&mut lines, labels, outcome, latency);
            }
            if count > 0 && more.bytes_received > 0 {
                // sizes are known as a sum: their mean stands for each of them
                let (mean, rate) = (more.bytes_received as f64 / count as f64, rate(1, count));
                lines.push(format!("{}.response.size:{mean}|h{rate}|#{}", self.prefix, tags(labels)));
            }
        }
        if let Some(progress) = &reading.feed.progress {
            lines.push(format!("{}.users:{}|g", self.prefix, progress.users));
            lines.push(format!("{}.workers:{}|g", self.prefix, reading.feed.workers.len()));
        }
        batches(lines, usize::MAX, DATAGRAM)
    }
}

impl Lines {
    fn outcome(&self, lines: &mut Vec<String>, labels: &Labels, outcome: &str, latency: &Latency) {
        if latency.count() == 0 {
            return;
        }
        let tags = format!("{},outcome:{outcome}", tags(labels));
        lines.push(format!("{}.requests:{}|c|#{tags}", self.prefix, latency.count()));
        let samples = latency.count().min(SAMPLES);
        let rate = rate(samples, latency.count());
        for n in 0..samples {
            // the middle of each part: the sample of samples has the shape of all
            let p = (n as f64 + 0.5) / samples as f64 * 100.0;
            let ms = latency.percentile(p) / 1_000;
            lines.push(format!("{}.request.latency:{ms}|ms{rate}|#{tags}", self.prefix));
        }
    }
}

/// What part of all is sent, if not every one.
fn rate(sent: u64, all: u64) -> String {
    if sent == all { String::new() } else { format!("|@{}", sent as f64 / all as f64) }
}

fn tags([kind, name]: &Labels) -> String {
    format!("method:{kind},name:{name}")
}

/// A text as a tag's value: what would end it is an underscore, as in the seed.
fn written(text: &str) -> String {
    let text = text.replace(|c: char| "|,:#".contains(c) || c.is_control(), "_");
    cut(&text, TAG).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exporter::names::tests::hostile;
    use crate::remote::Feed;
    use chrono::DateTime;
    use ld_shared::sample::SeriesKey;
    use ld_shared::snapshot::Snapshot;
    use proptest::prelude::*;

    fn reading(totals: Snapshot) -> Arc<Reading> {
        Arc::new(Reading { at: DateTime::UNIX_EPOCH, feed: Feed { totals, ..Feed::default() }, tallies: Vec::new() })
    }

    fn sent(kind: &str, name: &str, fill: impl FnOnce(&mut ld_shared::snapshot::Series)) -> Vec<String> {
        let mut lines = Lines { prefix: "loaddensity".into(), base: reading(Snapshot::default()) };
        let mut totals = Snapshot::default();
        let key = SeriesKey { name: name.into(), request_type: kind.into(), scenario: "s".into() };
        fill(totals.phase_mut(Phase::Main).series_mut(&key));
        let batches = lines.encode(&reading(totals));
        let text = |batch: &Batch| String::from_utf8(batch.body.to_vec()).unwrap();
        batches.iter().flat_map(|batch| text(batch).split('\n').map(str::to_owned).collect::<Vec<_>>()).collect()
    }

    #[test]
    fn lines_are_the_seed_s() {
        let lines = sent("GET", "ep|a,b:c#d", |series| {
            series.succeeded.record(7_900);
            series.bytes_received = 24;
        });
        assert_eq!(
            lines,
            [
                "loaddensity.requests:1|c|#method:GET,name:ep_a_b_c_d,outcome:success",
                "loaddensity.request.latency:7|ms|#method:GET,name:ep_a_b_c_d,outcome:success",
                "loaddensity.response.size:24|h|#method:GET,name:ep_a_b_c_d",
            ]
        );
    }

    #[test]
    fn many_samples_are_sampled() {
        let lines = sent("GET", "a", |series| (0..200).for_each(|n| series.failed.record(n * 1_000)));
        assert_eq!(lines[0], "loaddensity.requests:200|c|#method:GET,name:a,outcome:failure");
        assert_eq!(lines.len(), 51);
        assert!(lines[1..].iter().all(|line| line.contains("|ms|@0.25|#")), "{lines:?}");
        let of = |line: &str| line.split([':', '|']).nth(1).unwrap().parse::<u64>().unwrap();
        let mean = lines[1..].iter().map(|line| of(line)).sum::<u64>() / 50;
        assert!((98..=101).contains(&mean), "{mean}");
    }

    proptest! {
        #[test]
        fn names_hold_anything(kind in hostile(), name in hostile()) {
            let lines = sent(&kind, &name, |series| series.succeeded.record(1));
            prop_assert_eq!(lines.len(), 2);
            for line in lines {
                prop_assert!(line.len() <= DATAGRAM && !line.contains(char::is_control));
                let (_, tags) = line.split_once("|#").unwrap();
                prop_assert_eq!(tags.matches([':', ',']).count(), 5);
                prop_assert!(tags.ends_with(",outcome:success"));
            }
        }
    }
}
