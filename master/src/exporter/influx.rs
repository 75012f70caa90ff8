//! InfluxDB: points in line protocol, by UDP or HTTP (versions 1 and 2).

mod points;

use super::net::{self, Datagrams, Post};
use super::push::{self, Batch, Encoder, Rules};
use super::{Exporter, ExporterError, Life, Opened, Reading, Site, place};
use crate::redact;
use crate::script::{CommandSpec, Kind, Parameter};
use base64::Engine as _;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use http::{Uri, uri};
use points::Points;
use serde::Deserialize;
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;

/// The seed's measurement.
const MEASUREMENT: &str = "loaddensity_request";
/// The seed's port of UDP.
const PORT: u16 = 8_089;
/// Points of one post.
const POST: usize = 5_000;
/// Bytes of one datagram, so that it is not broken up on its way; a longer point goes alone.
const DATAGRAM: usize = 1_400;
/// Batches that may wait: half a minute of posts, of datagrams as many as one second may bring.
const POSTS: usize = 32;
const DATAGRAMS: usize = 4_096;
/// A batch is tried again for so long. Writing a point twice is as good as once.
const PATIENCE: Duration = Duration::from_secs(30);
const EVERY: Duration = Duration::from_millis(900);

/// Sends points to InfluxDB.
#[derive(Clone, Deserialize)]
#[serde(default)]
pub struct Influx {
    transport: String,
    host: String,
    port: u16,
    url: Option<String>,
    token: Option<String>,
    measurement: String,
    timeout: f64,
    database: Option<String>,
    org: Option<String>,
    bucket: Option<String>,
    per_request: bool,
}

impl Default for Influx {
    fn default() -> Self {
        Self {
            transport: "udp".into(),
            host: "127.0.0.1".into(),
            port: PORT,
            url: None,
            token: None,
            measurement: MEASUREMENT.into(),
            timeout: 2.0,
            database: None,
            org: None,
            bucket: None,
            per_request: false,
        }
    }
}

impl Exporter for Influx {
    const NAME: &'static str = "influx";
    const START: CommandSpec = CommandSpec {
        name: "LD_start_influxdb_sink",
        parameters: &[
            Parameter::new("transport", Kind::Text).about("udp or http"),
            Parameter::new("host", Kind::Text).about("where datagrams go"),
            Parameter::new("port", Kind::Integer).about("where datagrams go"),
            Parameter::new("url", Kind::OrNull(&Kind::Text)).about("where posts go"),
            Parameter::new("token", Kind::OrNull(&Kind::Text)).about("of posts; else LD_INFLUX_TOKEN, INFLUX_TOKEN"),
            Parameter::new("measurement", Kind::Text).about("name of the points"),
            Parameter::new("timeout", Kind::Number).about("of a post, s"),
            Parameter::new("database", Kind::OrNull(&Kind::Text)).about("of InfluxDB 1, if url has no path").keyword(),
            Parameter::new("org", Kind::OrNull(&Kind::Text)).about("of InfluxDB 2, if url has no path").keyword(),
            Parameter::new("bucket", Kind::OrNull(&Kind::Text)).about("of InfluxDB 2, if url has no path").keyword(),
            Parameter::new("per_request", Kind::Boolean)
                .about("at the end of a test also a point for each kept request, at most 10,000")
                .keyword(),
        ],
        check: None,
    };
    const STOP: CommandSpec = CommandSpec { name: "LD_stop_influxdb_sink", parameters: &[], check: None };
    const ABOUT: &'static str = "Sends a point a second and name to InfluxDB until it is stopped, over all tests";

    fn from_flag(text: &str) -> Result<Self, String> {
        let uri = place::url(text, &["udp", "http", "https"])?;
        if uri.scheme_str() == Some("udp") {
            let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
            return Ok(Self { host, port: uri.port_u16().unwrap_or(PORT), ..Self::default() });
        }
        let influx = Self { transport: "http".into(), url: Some(text.into()), ..Self::default() };
        influx.target(&uri)?;
        Ok(influx)
    }

    async fn open(self, site: &Site) -> Result<Opened, ExporterError> {
        let refuse = ExporterError::Refused;
        if self.measurement.is_empty() || self.measurement.starts_with('#') {
            return Err(refuse("measurement: a name that does not begin with # is accepted".into()));
        }
        let timeout = Duration::try_from_secs_f64(self.timeout).ok().filter(|timeout| !timeout.is_zero());
        let timeout = timeout.ok_or_else(|| refuse("timeout: a number of seconds above 0 is accepted".into()))?;
        let mut opened = Opened {
            place: String::new(),
            result: Value::Null,
            unit: "points",
            notes: Vec::new(),
            work: Box::new(|_| Box::pin(async {})),
        };
        match self.transport.to_lowercase().as_str() {
            "udp" => {
                let address = place::joined(&self.host, self.port);
                opened.place = format!("udp://{address}");
                opened.work = Box::new(move |life| Box::pin(self.send_datagrams(address, life)));
            }
            "http" => {
                let text = self.url.clone().ok_or_else(|| refuse("transport http needs a url".into()))?;
                let uri = place::url(&text, &["http", "https"]).map_err(|why| refuse(format!("url: {why}")))?;
                let uri = self.target(&uri).map_err(|why| refuse(format!("url: {why}")))?;
                opened.place = redact::urls(&uri.to_string());
                let headers = self.headers(&uri, site).map_err(refuse)?;
                let secure = uri.scheme_str() == Some("https");
                let tls = secure.then(|| net::tls(None, &[])).transpose().map_err(refuse)?;
                let post = Post::new(uri, tls, headers, timeout);
                opened.work = Box::new(move |life| Box::pin(self.post(post, life)));
            }
            other => return Err(refuse(format!("unknown transport `{other}`; accepted: udp, http"))),
        }
        Ok(opened)
    }
}

impl Influx {
    /// Where points are posted to: the URL as given, completed if it has no path.
    fn target(&self, uri: &Uri) -> Result<Uri, String> {
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Ok(uri.clone());
        }
        let path = match (&self.database, &self.org, &self.bucket) {
            (Some(database), None, None) => format!("/write?db={}&precision=ns", place::encoded(database)),
            (None, Some(org), Some(bucket)) => {
                let [org, bucket] = [org, bucket].map(|text| place::encoded(text));
                format!("/api/v2/write?org={org}&bucket={bucket}&precision=ns")
            }
            _ => {
                let forms = "http://HOST:8086/write?db=DATABASE or http://HOST:8086/api/v2/write?org=ORG&bucket=BUCKET";
                return Err(format!("it does not say where points go: {forms}, or `database`, or `org` and `bucket`"));
            }
        };
        let mut parts = uri.clone().into_parts();
        parts.path_and_query = Some(path.parse::<uri::PathAndQuery>().map_err(|e| e.to_string())?);
        Uri::from_parts(parts).map_err(|e| e.to_string())
    }

    fn headers(&self, uri: &Uri, site: &Site) -> Result<HeaderMap, String> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        let known = ["LD_INFLUX_TOKEN", "INFLUX_TOKEN"];
        let token = self.token.clone().or_else(|| known.iter().find_map(|name| (site.environment)(name)));
        let user = uri.authority().and_then(|authority| authority.as_str().rsplit_once('@')).map(|(user, _)| user);
        let proof = match (token, user) {
            (Some(token), _) => format!("Token {token}"),
            (None, Some(user)) => {
                let pair = place::decoded(user);
                format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair.as_bytes()))
            }
            (None, None) => return Ok(headers),
        };
        let mut proof = HeaderValue::from_str(&proof).map_err(|_| "token: it cannot stand in a header".to_owned())?;
        proof.set_sensitive(true);
        headers.insert(AUTHORIZATION, proof);
        Ok(headers)
    }

    fn points(&self, life: &Life) -> Points {
        let base = Arc::clone(&life.readings.borrow());
        Points::new(&self.measurement, self.per_request.then(|| Arc::clone(&life.console)), base)
    }

    async fn send_datagrams(self, address: String, life: Life) {
        let lines = Lines { points: self.points(&life), most_points: usize::MAX, most_bytes: DATAGRAM };
        let socket = Datagrams::new(address, Arc::clone(&life.tally));
        push::run(life, lines, socket, Rules { queue: DATAGRAMS, patience: PATIENCE, every: EVERY }).await;
    }

    async fn post(self, post: Post, life: Life) {
        let lines = Lines { points: self.points(&life), most_points: POST, most_bytes: usize::MAX };
        push::run(life, lines, post, Rules { queue: POSTS, patience: PATIENCE, every: EVERY }).await;
    }
}

/// Points in batches.
struct Lines {
    points: Points,
    most_points: usize,
    most_bytes: usize,
}

impl Encoder for Lines {
    fn encode(&mut self, reading: &Arc<Reading>) -> Vec<Batch> {
        batches(self.points.lines(reading), self.most_points, self.most_bytes)
    }
}

/// Lines in batches of at most so many, and so many bytes unless one alone is longer.
pub(super) fn batches(lines: Vec<String>, most_lines: usize, most_bytes: usize) -> Vec<Batch> {
    let mut batches = Vec::new();
    let (mut body, mut units) = (String::new(), 0);
    for line in lines {
        let is_full = units as usize >= most_lines || body.len() + line.len() + 1 > most_bytes;
        if units > 0 && is_full {
            batches.push(Batch { body: Bytes::from(std::mem::take(&mut body)), units: std::mem::take(&mut units) });
        }
        if units > 0 {
            body.push('\n');
        }
        body.push_str(&line);
        units += 1;
    }
    if units > 0 {
        batches.push(Batch { body: Bytes::from(body), units });
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remote::Access;
    use serde_json::json;

    fn site() -> Site {
        Site {
            environment: |name| (name == "INFLUX_TOKEN").then(|| "of the environment".into()),
            access: Access::default(),
        }
    }

    async fn opened(arguments: Value) -> Result<String, String> {
        let influx: Influx = serde_json::from_value(arguments).unwrap();
        influx.open(&site()).await.map(|opened| opened.place).map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn where_points_go() {
        let good = [
            (json!({}), "udp://127.0.0.1:8089"),
            (json!({"transport": "UDP", "host": "::1", "port": 5}), "udp://[::1]:5"),
            (json!({"transport": "http", "url": "http://h:86/write?db=x"}), "http://h:86/write?db=x"),
            (
                json!({"transport": "http", "url": "http://h", "database": "a b"}),
                "http://h/write?db=a%20b&precision=ns",
            ),
            (
                json!({"transport": "http", "url": "http://h/", "org": "o&", "bucket": "b"}),
                "http://h/api/v2/write?org=o%26&bucket=b&precision=ns",
            ),
        ];
        for (arguments, place) in good {
            assert_eq!(opened(arguments).await.unwrap(), place);
        }
        let shown = opened(json!({"transport": "http", "url": "http://me:hidden@h/write?db=x"})).await.unwrap();
        assert!(!shown.contains("hidden"), "{shown}");
        for arguments in [
            json!({"transport": "tcp"}),
            json!({"transport": "http"}),
            json!({"transport": "http", "url": "ftp://h"}),
            json!({"transport": "http", "url": "http://h"}),
            json!({"transport": "http", "url": "http://h", "org": "o"}),
            json!({"measurement": ""}),
            json!({"timeout": 0}),
        ] {
            assert!(opened(arguments.clone()).await.is_err(), "{arguments}");
        }
    }

    #[test]
    fn who_posts() {
        let proof = |arguments: Value, url: &str| {
            let influx: Influx = serde_json::from_value(arguments).unwrap();
            let headers = influx.headers(&url.parse().unwrap(), &site()).unwrap();
            headers[AUTHORIZATION].to_str().unwrap().to_owned()
        };
        assert_eq!(proof(json!({"token": "t"}), "http://h"), "Token t");
        assert_eq!(proof(json!({}), "http://h"), "Token of the environment");
        let none = Site { environment: |_| None, access: Access::default() };
        let influx = Influx::default();
        let headers = influx.headers(&"http://me:p%40ss@h".parse().unwrap(), &none).unwrap();
        assert_eq!(headers[AUTHORIZATION], "Basic bWU6cEBzcw==");
    }

    #[test]
    fn batches_are_bounded_and_lose_nothing() {
        let lines: Vec<String> = (0..100).map(|n| "x".repeat(n)).collect();
        for (most_lines, most_bytes) in [(7, usize::MAX), (usize::MAX, 50), (3, 120), (1, 1)] {
            let made = batches(lines.clone(), most_lines, most_bytes);
            assert_eq!(made.iter().map(|batch| batch.units).sum::<u64>(), 100);
            let text: Vec<_> = made.iter().map(|b| String::from_utf8(b.body.to_vec()).unwrap()).collect();
            assert_eq!(text.join("\n"), lines.join("\n"));
            for batch in made {
                assert!(batch.units as usize <= most_lines);
                assert!(batch.body.len() <= most_bytes || batch.units == 1);
            }
        }
    }
}
