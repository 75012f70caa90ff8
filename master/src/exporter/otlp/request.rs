//! Exports: everything since the first start, under the seed's names.
//!
//! Source: <https://opentelemetry.io/docs/specs/otel/metrics/data-model/>.

use crate::exporter::counts::{at_most, ms};
use crate::exporter::names::{LONGEST, Labels, by_label, cut};
use crate::exporter::{Reading, Tally};
use chrono::{DateTime, Utc};
use ld_shared::latency::Latency;
use ld_shared::sample::Phase;
use ld_shared::snapshot::Series;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint, ResourceMetrics,
    ScopeMetrics, Sum,
};
use opentelemetry_proto::tonic::resource::v1 as resource;
use std::borrow::Cow;
use std::collections::BTreeMap;
use uuid::Uuid;

/// Bounds of the seed's buckets, ms.
const BOUNDS: [u64; 15] = [0, 5, 10, 25, 50, 75, 100, 250, 500, 750, 1_000, 2_500, 5_000, 7_500, 10_000];
const CUMULATIVE: i32 = AggregationTemporality::Cumulative as i32;

/// Who measured.
pub(super) struct Resource(resource::Resource);

/// Since when, and when.
#[derive(Clone, Copy)]
struct Span {
    start: u64,
    now: u64,
}

impl Resource {
    /// With these attributes, and those that say what sends.
    pub(super) fn new(attributes: &[(String, String)]) -> Self {
        let own = [
            ("telemetry.sdk.language", "rust".to_owned()),
            ("telemetry.sdk.name", "loaddensity".to_owned()),
            ("telemetry.sdk.version", env!("CARGO_PKG_VERSION").to_owned()),
            ("service.instance.id", Uuid::new_v4().to_string()),
        ];
        let is_given = |key: &str| attributes.iter().any(|(given, _)| given == key);
        let own = own.iter().filter(|(key, _)| !is_given(key)).map(|(key, value)| pair(key, value));
        let attributes = own.chain(attributes.iter().map(|(key, value)| pair(key, value))).collect();
        Self(resource::Resource { attributes, ..resource::Resource::default() })
    }

    /// All that was measured; `None` before anything was.
    pub(super) fn request(&self, reading: &Reading) -> Option<ExportMetricsServiceRequest> {
        let feed = &reading.feed;
        let start = nanos(feed.since?);
        let span = Span { start, now: nanos(reading.at).max(start) };
        let main = feed.totals.phase(Phase::Main);
        let all = by_label(main, |text| cut(text, LONGEST).into_owned());
        let mut metrics = span.requests(&all);
        let progress = feed.progress.as_deref();
        metrics.extend([
            span.gauge("loaddensity.users", "{user}", "Virtual users now", progress.map_or(0.0, |p| p.users as f64)),
            span.gauge("loaddensity.request.rate", "{request}/s", "Requests started in the last complete second", {
                progress.map_or(0.0, |p| p.rate)
            }),
            span.gauge("loaddensity.workers", "{worker}", "Workers that are there", feed.workers.len() as f64),
            Span::histogram("loaddensity.lag", "ms", "From when requests were due to when they were started", {
                vec![span.latency(&main.lag, Vec::new())]
            }),
            span.dropped(&reading.tallies),
        ]);
        let scope = InstrumentationScope {
            name: "loaddensity".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            ..InstrumentationScope::default()
        };
        let scope_metrics = vec![ScopeMetrics { scope: Some(scope), metrics, ..ScopeMetrics::default() }];
        let resource_metrics =
            vec![ResourceMetrics { resource: Some(self.0.clone()), scope_metrics, ..ResourceMetrics::default() }];
        Some(ExportMetricsServiceRequest { resource_metrics })
    }
}

impl Span {
    fn requests(self, all: &BTreeMap<Labels, Cow<'_, Series>>) -> Vec<Metric> {
        let (mut counts, mut latencies, mut sizes) = (Vec::new(), Vec::new(), Vec::new());
        for ([kind, name], series) in all {
            let labels = vec![pair("request_type", kind), pair("name", name)];
            for (outcome, latency) in [("success", &series.succeeded), ("failure", &series.failed)] {
                if latency.count() == 0 {
                    continue;
                }
                let mut labels = labels.clone();
                labels.push(pair("outcome", outcome));
                counts.push(self.number(Number::AsInt(latency.count().cast_signed()), labels.clone()));
                latencies.push(self.latency(latency, labels));
            }
            let count = series.succeeded.count() + series.failed.count();
            if count > 0 {
                // sizes are known as a sum: one bucket without bounds holds all
                let sum = Some(series.bytes_received as f64);
                sizes.push(HistogramDataPoint { count, sum, bucket_counts: vec![count], ..self.point(labels) });
            }
        }
        vec![
            Self::sum("loaddensity.requests", "1", "Requests that ended", counts),
            Self::histogram("loaddensity.request.latency", "ms", "Response time", latencies),
            Self::histogram("loaddensity.response.size", "By", "Bytes read per request", sizes),
        ]
    }

    fn dropped(self, tallies: &[std::sync::Arc<Tally>]) -> Metric {
        let mut by_name: BTreeMap<&str, u64> = BTreeMap::new();
        for tally in tallies {
            *by_name.entry(&tally.name).or_default() += tally.dropped();
        }
        let point =
            |(name, count): (&str, u64)| self.number(Number::AsInt(count.cast_signed()), vec![pair("exporter", name)]);
        let points = by_name.into_iter().map(point).collect();
        Self::sum("loaddensity.exporter.dropped", "1", "What exporters could not deliver", points)
    }

    fn sum(name: &str, unit: &str, about: &str, data_points: Vec<NumberDataPoint>) -> Metric {
        let sum = Sum { data_points, aggregation_temporality: CUMULATIVE, is_monotonic: true };
        metric(name, unit, about, Data::Sum(sum))
    }

    fn histogram(name: &str, unit: &str, about: &str, data_points: Vec<HistogramDataPoint>) -> Metric {
        let histogram = Histogram { data_points, aggregation_temporality: CUMULATIVE };
        metric(name, unit, about, Data::Histogram(histogram))
    }

    fn gauge(self, name: &str, unit: &str, about: &str, value: f64) -> Metric {
        let point = NumberDataPoint { start_time_unix_nano: 0, ..self.number(Number::AsDouble(value), Vec::new()) };
        metric(name, unit, about, Data::Gauge(Gauge { data_points: vec![point] }))
    }

    fn number(self, value: Number, attributes: Vec<KeyValue>) -> NumberDataPoint {
        NumberDataPoint {
            attributes,
            start_time_unix_nano: self.start,
            time_unix_nano: self.now,
            value: Some(value),
            ..NumberDataPoint::default()
        }
    }

    fn point(self, attributes: Vec<KeyValue>) -> HistogramDataPoint {
        HistogramDataPoint {
            attributes,
            start_time_unix_nano: self.start,
            time_unix_nano: self.now,
            ..HistogramDataPoint::default()
        }
    }

    fn latency(self, latency: &Latency, attributes: Vec<KeyValue>) -> HistogramDataPoint {
        let mut before = 0;
        let upper = at_most(latency, &BOUNDS).into_iter().chain([latency.count()]);
        let has_any = latency.count() > 0;
        HistogramDataPoint {
            count: latency.count(),
            sum: Some(ms(latency.sum())),
            bucket_counts: upper.map(|count| count - std::mem::replace(&mut before, count)).collect(),
            explicit_bounds: BOUNDS.map(|ms| ms as f64).to_vec(),
            min: has_any.then(|| ms(latency.min())),
            max: has_any.then(|| ms(latency.max())),
            ..self.point(attributes)
        }
    }
}

fn metric(name: &str, unit: &str, about: &str, data: Data) -> Metric {
    Metric { name: name.into(), description: about.into(), unit: unit.into(), data: Some(data), ..Metric::default() }
}

fn pair(key: &str, value: &str) -> KeyValue {
    let value = AnyValue { value: Some(any_value::Value::StringValue(value.to_owned())) };
    KeyValue { key: key.to_owned(), value: Some(value), ..KeyValue::default() }
}

fn nanos(at: DateTime<Utc>) -> u64 {
    at.timestamp_nanos_opt().unwrap_or_default().max(0).cast_unsigned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exporter::names::tests::hostile;
    use crate::remote::Feed;
    use chrono::TimeDelta;
    use ld_shared::sample::SeriesKey;
    use proptest::prelude::*;
    use prost::Message as _;

    fn export(feed: Feed) -> Option<ExportMetricsServiceRequest> {
        let at = DateTime::UNIX_EPOCH + TimeDelta::seconds(20);
        Resource::new(&[("service.name".into(), "svc-x".into())]).request(&Reading { at, feed, tallies: Vec::new() })
    }

    fn feed(kind: &str, name: &str) -> Feed {
        let mut feed = Feed { since: Some(DateTime::UNIX_EPOCH + TimeDelta::seconds(10)), ..Feed::default() };
        let key = SeriesKey { name: name.into(), request_type: kind.into(), scenario: "s".into() };
        let series = feed.totals.phase_mut(Phase::Main).series_mut(&key);
        series.succeeded.record_n(7_000, 3);
        series.failed.record(20_000_000);
        series.bytes_received = 96;
        feed
    }

    fn metrics(request: &ExportMetricsServiceRequest) -> &[Metric] {
        &request.resource_metrics[0].scope_metrics[0].metrics
    }

    #[test]
    fn nothing_is_exported_before_anything_was_measured() {
        assert!(export(Feed::default()).is_none());
    }

    #[test]
    fn sums_are_cumulative_since_the_first_start() {
        let request = export(feed("GET", "a")).unwrap();
        let attributes = &request.resource_metrics[0].resource.as_ref().unwrap().attributes;
        assert!(attributes.contains(&pair("service.name", "svc-x")));
        let Some(Data::Sum(sum)) = &metrics(&request)[0].data else { panic!("{request:?}") };
        assert!(sum.is_monotonic && sum.aggregation_temporality == CUMULATIVE);
        let values: Vec<_> = sum.data_points.iter().map(|p| (p.attributes[2].clone(), p.value.unwrap())).collect();
        let outcome = |text| pair("outcome", text);
        assert_eq!(values, [(outcome("success"), Number::AsInt(3)), (outcome("failure"), Number::AsInt(1))]);
        for point in &sum.data_points {
            assert_eq!((point.start_time_unix_nano, point.time_unix_nano), (10_000_000_000, 20_000_000_000));
        }
        let Some(Data::Histogram(latency)) = &metrics(&request)[1].data else { panic!("{request:?}") };
        let [ok, failed] = &latency.data_points[..] else { panic!("{latency:?}") };
        assert_eq!((ok.count, ok.sum, ok.min, ok.max), (3, Some(21.0), Some(7.0), Some(7.0)));
        assert_eq!((ok.bucket_counts.len(), ok.explicit_bounds.len()), (16, 15));
        assert_eq!((ok.bucket_counts[2], failed.bucket_counts[15]), (3, 1), "≤ 10 ms and beyond 10 s");
        let Some(Data::Histogram(size)) = &metrics(&request)[2].data else { panic!("{request:?}") };
        let point = &size.data_points[0];
        assert_eq!((point.count, point.sum, &point.bucket_counts[..]), (4, Some(96.0), &[4][..]));
        assert!(point.explicit_bounds.is_empty());
    }

    proptest! {
        #[test]
        fn names_hold_anything(kind in hostile(), name in hostile()) {
            let bytes = export(feed(&kind, &name)).unwrap().encode_to_vec();
            let request = ExportMetricsServiceRequest::decode(bytes.as_slice()).unwrap();
            let Some(Data::Sum(sum)) = &metrics(&request)[0].data else { panic!("{request:?}") };
            prop_assert_eq!(&sum.data_points[0].attributes[1], &pair("name", &cut(&name, LONGEST)));
            prop_assert_eq!(&sum.data_points[0].attributes[0], &pair("request_type", &cut(&kind, LONGEST)));
        }
    }
}
