//! Where to and how: what was given, else what OpenTelemetry's variables say, else its defaults.
//!
//! Source: <https://opentelemetry.io/docs/specs/otel/protocol/exporter/> and
//! <https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/>.

use super::SERVICE;
use crate::exporter::place;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Uri, uri};
use std::path::PathBuf;
use std::time::Duration;

/// The seed's interval.
const INTERVAL_MS: u64 = 5_000;
const TIMEOUT_MS: u64 = 10_000;
/// The port by which collectors take HTTP.
const HTTP_PORT: u16 = 4_318;
const METRICS: &str = "v1/metrics";

/// What a command or a flag says.
#[derive(Clone, Debug, Default)]
pub(super) struct Given {
    pub endpoint: Option<String>,
    pub service_name: Option<String>,
    pub interval_ms: Option<u64>,
    pub protocol: Option<String>,
}

/// What it comes to.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub uri: Uri,
    pub protocol: Protocol,
    pub headers: HeaderMap,
    pub timeout: Duration,
    pub gzip: bool,
    /// A file with the certificate of who is trusted instead of this machine's authorities.
    pub authority: Option<PathBuf>,
    pub interval: Duration,
    /// Of the resource.
    pub attributes: Vec<(String, String)>,
    /// Variables that are set and not followed.
    pub notes: Vec<String>,
}

/// How exports travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    /// gRPC.
    Grpc,
    /// HTTP with binary protobuf.
    Http,
}

impl Protocol {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Grpc => "grpc",
            Self::Http => "http/protobuf",
        }
    }

    fn of(text: &str) -> Result<Self, String> {
        match text {
            "grpc" => Ok(Self::Grpc),
            "http/protobuf" | "http" => Ok(Self::Http),
            other => Err(format!("unknown protocol `{other}`; accepted: grpc, http/protobuf")),
        }
    }
}

impl Settings {
    pub(super) fn of(given: Given, environment: fn(&str) -> Option<String>) -> Result<Self, String> {
        // an empty variable is as if it was not set
        let plain = |name: &str| environment(name).filter(|value| !value.trim().is_empty());
        // the variable for metrics alone comes first
        let either = |tail: &str| {
            plain(&format!("OTEL_EXPORTER_OTLP_METRICS_{tail}"))
                .or_else(|| plain(&format!("OTEL_EXPORTER_OTLP_{tail}")))
        };
        let protocol = given.protocol.or_else(|| either("PROTOCOL")).map(|text| Protocol::of(&text)).transpose()?;
        let own = given.endpoint.is_none().then(|| plain("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT")).flatten();
        // where HTTP's path is said to the end, and where it is not
        let is_whole = own.is_some();
        let base = own.or(given.endpoint).or_else(|| plain("OTEL_EXPORTER_OTLP_ENDPOINT"));
        let base = base.map(|text| read_url(&text, plain("OTEL_EXPORTER_OTLP_INSECURE").as_deref())).transpose()?;
        let by_port = |uri: &Uri| {
            let is_http = uri.port_u16() == Some(HTTP_PORT) || uri.path().ends_with(METRICS);
            if is_http { Protocol::Http } else { Protocol::Grpc }
        };
        let protocol = protocol.or_else(|| base.as_ref().map(by_port)).unwrap_or(Protocol::Grpc);
        let base = base.unwrap_or_else(|| match protocol {
            Protocol::Grpc => Uri::from_static("http://localhost:4317"),
            Protocol::Http => Uri::from_static("http://localhost:4318"),
        });
        let uri = if protocol == Protocol::Http && !is_whole { with_path(base)? } else { base };
        let millis = |text: String| text.trim().parse::<u64>().map_err(|_| format!("`{text}` is no number of ms"));
        let timeout = either("TIMEOUT").map(millis).transpose()?.unwrap_or(TIMEOUT_MS);
        let interval = given.interval_ms.map(Ok).or_else(|| plain("OTEL_METRIC_EXPORT_INTERVAL").map(millis));
        let interval = interval.transpose()?.unwrap_or(INTERVAL_MS);
        if interval == 0 || timeout == 0 {
            return Err("an interval and a time-out are at least 1 ms".into());
        }
        let gzip = match either("COMPRESSION").as_deref() {
            None | Some("none") => false,
            Some("gzip") => true,
            Some(other) => {
                return Err(format!("unknown OTEL_EXPORTER_OTLP_COMPRESSION `{other}`; accepted: gzip, none"));
            }
        };
        let mut attributes = pairs(&plain("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default());
        if let Some(name) = given.service_name.or_else(|| plain("OTEL_SERVICE_NAME")) {
            attributes.retain(|(key, _)| key != "service.name");
            attributes.push(("service.name".into(), name));
        } else if !attributes.iter().any(|(key, _)| key == "service.name") {
            attributes.push(("service.name".into(), SERVICE.into()));
        }
        let temporality = plain("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE");
        let is_other = temporality.as_ref().is_some_and(|text| !text.eq_ignore_ascii_case("cumulative"));
        let notes = is_other.then(|| {
            "warning: OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE is not followed: sums are cumulative".to_owned()
        });
        Ok(Self {
            uri,
            protocol,
            headers: headers(&either("HEADERS").unwrap_or_default())?,
            timeout: Duration::from_millis(timeout),
            gzip,
            authority: either("CERTIFICATE").map(PathBuf::from),
            interval: Duration::from_millis(interval),
            attributes,
            notes: notes.into_iter().collect(),
        })
    }
}

/// A collector's URL. gRPC's may come without a scheme.
fn read_url(text: &str, insecure: Option<&str>) -> Result<Uri, String> {
    let scheme = if insecure.is_some_and(|text| text.eq_ignore_ascii_case("true")) { "http" } else { "https" };
    let text = if text.contains("://") { text.to_owned() } else { format!("{scheme}://{text}") };
    place::url(&text, &["http", "https"])
}

/// A base URL with the path for metrics.
fn with_path(base: Uri) -> Result<Uri, String> {
    if base.path().ends_with(METRICS) {
        return Ok(base);
    }
    let path = format!("{}/{METRICS}", base.path().trim_end_matches('/'));
    let mut parts = base.into_parts();
    parts.path_and_query = Some(path.parse::<uri::PathAndQuery>().map_err(|e| e.to_string())?);
    Uri::from_parts(parts).map_err(|e| e.to_string())
}

/// `key=value,key=value`, percent-encoded.
fn pairs(text: &str) -> Vec<(String, String)> {
    text.split(',')
        .filter_map(|pair| pair.split_once('='))
        .map(|(key, value)| (key.trim().to_owned(), place::decoded(value.trim()).into_owned()))
        .filter(|(key, _)| !key.is_empty())
        .collect()
}

fn headers(text: &str) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    for (key, value) in pairs(text) {
        let refuse = || format!("OTEL_EXPORTER_OTLP_HEADERS: `{key}` cannot be a header");
        let name = HeaderName::try_from(key.to_ascii_lowercase()).map_err(|_| refuse())?;
        let mut value = HeaderValue::try_from(value).map_err(|_| refuse())?;
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(given: Given, environment: fn(&str) -> Option<String>) -> Settings {
        Settings::of(given, environment).unwrap()
    }

    fn at(endpoint: &str, protocol: Option<&str>) -> String {
        let given =
            Given { endpoint: Some(endpoint.into()), protocol: protocol.map(str::to_owned), ..Given::default() };
        let Settings { uri, protocol, .. } = of(given, |_| None);
        format!("{} {uri}", protocol.name())
    }

    #[test]
    fn what_is_given_comes_first() {
        assert_eq!(at("http://h:4317", None), "grpc http://h:4317/");
        assert_eq!(at("http://h:4318", None), "http/protobuf http://h:4318/v1/metrics");
        assert_eq!(at("http://h:4318/", Some("grpc")), "grpc http://h:4318/");
        assert_eq!(at("https://h/base/", Some("http/protobuf")), "http/protobuf https://h/base/v1/metrics");
        assert_eq!(at("http://h:1/v1/metrics", None), "http/protobuf http://h:1/v1/metrics");
        let settings = of(Given::default(), |_| None);
        assert_eq!((settings.uri.to_string(), settings.protocol), ("http://localhost:4317/".into(), Protocol::Grpc));
        assert_eq!(settings.attributes, [("service.name".to_owned(), "loaddensity".to_owned())]);
        assert_eq!((settings.interval.as_millis(), settings.timeout.as_millis()), (5_000, 10_000));
    }

    #[test]
    fn variables_are_followed() {
        let settings = of(Given::default(), |name| {
            let value = match name {
                "OTEL_EXPORTER_OTLP_ENDPOINT" => "http://all:4317",
                "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT" => "https://metrics:9/as/it/is",
                "OTEL_EXPORTER_OTLP_PROTOCOL" => "grpc",
                "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL" => "http/protobuf",
                "OTEL_EXPORTER_OTLP_HEADERS" => "api-key=a%20b, X-Other = 2",
                "OTEL_EXPORTER_OTLP_TIMEOUT" => "750",
                "OTEL_EXPORTER_OTLP_COMPRESSION" => "gzip",
                "OTEL_EXPORTER_OTLP_CERTIFICATE" => "/ca.pem",
                "OTEL_METRIC_EXPORT_INTERVAL" => "1000",
                "OTEL_RESOURCE_ATTRIBUTES" => "service.name=lower,team=load%2Ctest",
                "OTEL_SERVICE_NAME" => "svc-x",
                "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE" => "delta",
                _ => "",
            };
            Some(value.to_owned())
        });
        assert_eq!(settings.uri, "https://metrics:9/as/it/is");
        assert_eq!((settings.protocol, settings.gzip), (Protocol::Http, true));
        assert_eq!(
            (&settings.headers["api-key"], &settings.headers["x-other"]),
            (&"a b".parse().unwrap(), &"2".parse().unwrap())
        );
        assert_eq!((settings.interval.as_millis(), settings.timeout.as_millis()), (1_000, 750));
        assert_eq!(settings.authority, Some("/ca.pem".into()));
        let attributes: Vec<_> = settings.attributes.iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(attributes, ["team=load,test", "service.name=svc-x"]);
        assert_eq!(settings.notes.len(), 1);
    }

    #[test]
    fn nonsense_is_refused() {
        for (variable, value) in [
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "soon"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "ftp://h"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "a b=c"),
            ("OTEL_METRIC_EXPORT_INTERVAL", "0"),
        ] {
            // one function a variable would do; a thread-local tells which is meant
            thread_local! { static SET: std::cell::RefCell<(String, String)> = std::cell::RefCell::default(); }
            SET.with(|set| *set.borrow_mut() = (variable.to_owned(), value.to_owned()));
            let environment = |name: &str| SET.with(|set| (set.borrow().0 == name).then(|| set.borrow().1.clone()));
            assert!(Settings::of(Given::default(), environment).is_err(), "{variable}");
        }
    }
}
