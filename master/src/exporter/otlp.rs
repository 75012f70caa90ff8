//! OTLP: what OpenTelemetry's collectors take, over gRPC or HTTP.

mod request;
mod settings;

use super::net::{self, Post, shown};
use super::push::{self, Batch, Deliver, Encoder, Rules, Undelivered};
use super::{Exporter, ExporterError, Opened, Reading, Site, place};
use crate::redact;
use crate::script::{CommandSpec, Kind, Parameter};
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::Uri;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_client::MetricsServiceClient;
use prost::Message as _;
use request::Resource;
use rustls::ClientConfig;
use serde::Deserialize;
use serde_json::Value;
use settings::{Protocol, Settings};
use std::io::{self, Write as _};
use std::sync::Arc;
use std::time::Duration;
use tonic::codec::CompressionEncoding;
use tonic::metadata::MetadataMap;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

/// The seed's name of the service.
const SERVICE: &str = "loaddensity";
/// Each export holds all before: of those that wait only the newest are of use.
const QUEUE: usize = 2;

/// Exports metrics to a collector.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Otlp {
    endpoint: Option<String>,
    service_name: Option<String>,
    export_interval_ms: Option<u64>,
    protocol: Option<String>,
}

impl Exporter for Otlp {
    const NAME: &'static str = "otlp";
    const START: CommandSpec = CommandSpec {
        name: "LD_start_opentelemetry_exporter",
        parameters: &[
            Parameter::new("endpoint", Kind::OrNull(&Kind::Text))
                .about("the collector, else OTEL_EXPORTER_OTLP_ENDPOINT, else port 4317 of this machine"),
            Parameter::new("service_name", Kind::Text).about("service.name, else OTEL_SERVICE_NAME, else loaddensity"),
            Parameter::new("export_interval_ms", Kind::Integer)
                .about("else OTEL_METRIC_EXPORT_INTERVAL, else 5000; once more at the end"),
            Parameter::new("protocol", Kind::OrNull(&Kind::Text))
                .about("grpc or http/protobuf, else OTEL_EXPORTER_OTLP_PROTOCOL, else by the port")
                .keyword(),
        ],
        check: None,
    };
    const STOP: CommandSpec = CommandSpec { name: "LD_stop_opentelemetry_exporter", parameters: &[], check: None };
    const ABOUT: &'static str = "Exports metrics to an OpenTelemetry collector until it is stopped, over all tests";

    fn from_flag(text: &str) -> Result<Self, String> {
        if !text.is_empty() {
            place::url(text, &["http", "https"])?;
        }
        Ok(Self { endpoint: (!text.is_empty()).then(|| text.to_owned()), ..Self::default() })
    }

    async fn open(self, site: &Site) -> Result<Opened, ExporterError> {
        let refuse = ExporterError::Refused;
        let given = settings::Given {
            endpoint: self.endpoint,
            service_name: self.service_name,
            interval_ms: self.export_interval_ms,
            protocol: self.protocol,
        };
        let settings = Settings::of(given, site.environment).map_err(refuse)?;
        let Settings { uri, protocol, headers, timeout, gzip, authority, interval, attributes, notes } = settings;
        let secure = uri.scheme_str() == Some("https");
        let alpn: &[&str] = if protocol == Protocol::Grpc { &["h2"] } else { &[] };
        let tls = secure.then(|| net::tls(authority.as_deref(), alpn)).transpose().map_err(refuse)?;
        let place = format!("{} {}", protocol.name(), redact::urls(&uri.to_string()));
        let rules = Rules { queue: QUEUE, patience: interval, every: interval };
        let exports = Exports { resource: Resource::new(&attributes), gzip: gzip && protocol == Protocol::Http };
        let work: Box<dyn FnOnce(super::Life) -> super::Working + Send> = match protocol {
            Protocol::Grpc => {
                let collector = Grpc::new(uri, tls, headers, timeout, gzip).map_err(refuse)?;
                Box::new(move |life| Box::pin(push::run(life, exports, collector, rules)))
            }
            Protocol::Http => {
                let post = Post::new(uri, tls, http_headers(headers, gzip), timeout);
                Box::new(move |life| Box::pin(push::run(life, exports, post, rules)))
            }
        };
        Ok(Opened { place, result: Value::Bool(true), unit: "exports", notes, work })
    }
}

fn http_headers(mut headers: HeaderMap, gzip: bool) -> HeaderMap {
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
    if gzip {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    headers
}

/// Makes an export of a reading: all that was measured, not what came.
struct Exports {
    resource: Resource,
    /// The body is packed.
    gzip: bool,
}

impl Encoder for Exports {
    fn encode(&mut self, reading: &Arc<Reading>) -> Vec<Batch> {
        // before the first test there is nothing to tell, not even since when
        let Some(request) = self.resource.request(reading) else { return Vec::new() };
        let body = request.encode_to_vec();
        let body = if self.gzip { packed(&body) } else { body };
        vec![Batch { body: Bytes::from(body), units: 1 }]
    }
}

fn packed(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(body).and_then(|()| encoder.finish()).expect("writing into memory cannot fail")
}

/// A collector behind gRPC.
struct Grpc {
    client: MetricsServiceClient<Channel>,
    metadata: MetadataMap,
    timeout: Duration,
}

impl Grpc {
    fn new(
        uri: Uri,
        tls: Option<Arc<ClientConfig>>,
        headers: HeaderMap,
        timeout: Duration,
        gzip: bool,
    ) -> Result<Self, String> {
        // TLS is the connector's matter: to the transport every peer is plain
        let authority = uri.authority().map(ToString::to_string).unwrap_or_default();
        let plain = Endpoint::from_shared(format!("http://{authority}")).map_err(|e| shown(&e))?;
        let origin = format!("{}://{authority}", if tls.is_some() { "https" } else { "http" });
        let origin: Uri = origin.parse().map_err(|e: http::uri::InvalidUri| e.to_string())?;
        let connector = tower::service_fn(move |_: Uri| {
            let (uri, tls) = (uri.clone(), tls.clone());
            async move { Ok::<_, io::Error>(TokioIo::new(net::connect(&uri, tls.as_ref()).await?)) }
        });
        let channel = plain.origin(origin).connect_timeout(timeout).connect_with_connector_lazy(connector);
        let mut client = MetricsServiceClient::new(channel);
        if gzip {
            client = client.send_compressed(CompressionEncoding::Gzip);
        }
        Ok(Self { client, metadata: MetadataMap::from_headers(headers), timeout })
    }

    async fn export(&mut self, request: ExportMetricsServiceRequest) -> Result<(), Status> {
        let mut request = tonic::Request::new(request);
        *request.metadata_mut() = self.metadata.clone();
        request.set_timeout(self.timeout);
        self.client.export(request).await.map(drop)
    }
}

impl Deliver for Grpc {
    async fn deliver(&mut self, batch: &Batch) -> Result<(), Undelivered> {
        let request =
            ExportMetricsServiceRequest::decode(batch.body.clone()).map_err(|e| Undelivered::for_good(shown(&e)))?;
        match tokio::time::timeout(self.timeout, self.export(request)).await {
            Err(_) => Err(Undelivered::again(format!("no answer within {} s", self.timeout.as_secs_f64()))),
            Ok(Ok(())) => Ok(()),
            Ok(Err(status)) => Err(Undelivered { why: told(&status), again: is_passing(status.code()) }),
        }
    }
}

/// Codes after which OTLP says to try again.
fn is_passing(code: Code) -> bool {
    use Code::{Aborted, Cancelled, DataLoss, DeadlineExceeded, OutOfRange, ResourceExhausted, Unavailable, Unknown};
    matches!(
        code,
        Aborted | Cancelled | DataLoss | DeadlineExceeded | OutOfRange | ResourceExhausted | Unavailable | Unknown
    )
}

fn told(status: &Status) -> String {
    use std::error::Error as _;
    let why = status.source().map_or_else(|| status.message().to_owned(), shown);
    format!("{}: {why}", status.code().description())
}
