//! Prometheus: a page that is scraped.

mod page;

pub use page::render;

use super::{Exporter, ExporterError, Life, Opened, Reading, Site};
use crate::app::App;
use crate::exporter::tally::Tally;
use crate::remote::{Access, Level};
use crate::script::{CommandSpec, Kind, Parameter};
use base64::Engine as _;
use bytes::Bytes;
use http::header::{ALLOW, AUTHORIZATION, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use ld_shared::boot::clock;
use serde::Deserialize;
use serde_json::Value;
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Media type of the page.
pub const CONTENT: &str = "text/plain; version=0.0.4; charset=utf-8";
/// The seed's port.
const PORT: u16 = 9_646;
/// How long the page stays up for a last scrape.
const LINGER: f64 = 15.0;
/// Connections at once; more are closed.
const CONNECTIONS: usize = 32;
/// A connection is closed after this time, and a scrape takes no longer than the other.
const LONGEST: Duration = Duration::from_mins(5);
const SCRAPE: Duration = Duration::from_secs(30);
/// A scraper that keeps its connection comes back within this time.
const IDLE: Duration = Duration::from_secs(90);

/// The page of this moment.
pub async fn page_now(app: &App) -> String {
    page::of(&Reading { at: clock::wall(), feed: app.feed().await, tallies: app.exporters().tallies() })
}

/// Serves what was measured as a page for Prometheus.
#[derive(Debug, Deserialize)]
pub struct Prometheus {
    #[serde(default = "port")]
    port: u16,
    #[serde(default = "address")]
    addr: String,
    #[serde(default = "linger")]
    linger: f64,
}

fn port() -> u16 {
    PORT
}

fn address() -> String {
    "127.0.0.1".into()
}

fn linger() -> f64 {
    LINGER
}

impl Exporter for Prometheus {
    const NAME: &'static str = "prometheus";
    const START: CommandSpec = CommandSpec {
        name: "LD_start_prometheus_exporter",
        parameters: &[
            Parameter::new("port", Kind::Integer).about("the port of the page; 0 is a free one"),
            Parameter::new("addr", Kind::Text).about("its address, which is this machine's alone unless it is given"),
            Parameter::new("linger", Kind::Number)
                .about("how long the page stays up at the end for a last scrape, s, 15 if not given")
                .keyword(),
        ],
        check: None,
    };
    const STOP: CommandSpec = CommandSpec { name: "LD_stop_prometheus_exporter", parameters: &[], check: None };
    const ABOUT: &'static str = "Serves metrics as a page for Prometheus until it is stopped, over all tests";

    fn from_flag(text: &str) -> Result<Self, String> {
        let (place, query) = text.split_once('?').unwrap_or((text, ""));
        let linger = match query {
            "" => LINGER,
            query => query
                .strip_prefix("linger=")
                .map(|seconds| seconds.strip_suffix('s').unwrap_or(seconds))
                .and_then(|seconds| seconds.parse().ok())
                .filter(|seconds: &f64| (0.0..=3_600.0).contains(seconds))
                .ok_or("only ?linger=SECONDS may follow the address")?,
        };
        if place.is_empty() {
            return Ok(Self { port: PORT, addr: address(), linger });
        }
        let place: SocketAddr =
            place.parse().map_err(|_| format!("an address with a port like 127.0.0.1:{PORT} is accepted"))?;
        Ok(Self { port: place.port(), addr: place.ip().to_string(), linger })
    }

    async fn open(self, site: &Site) -> Result<Opened, ExporterError> {
        let shown = if self.addr.contains(':') { format!("[{}]", self.addr) } else { self.addr.clone() };
        let place = format!("{shown}:{}", self.port);
        let listen = |source| ExporterError::Listen { place: place.clone(), source };
        if !(0.0..=3_600.0).contains(&self.linger) {
            return Err(ExporterError::Refused("linger: 0 to 3600 s are accepted".into()));
        }
        let listener = TcpListener::bind((self.addr.as_str(), self.port)).await.map_err(listen)?;
        let bound = listener.local_addr().map_err(listen)?;
        let access = site.access.clone();
        let is_open = access.token.is_none() && !is_loopback(bound.ip());
        let notes = is_open.then(|| {
            format!("warning: no token: anyone who reaches {bound} reads the metrics; set LD_TOKEN or use a loopback address")
        });
        let linger = Duration::from_secs_f64(self.linger);
        Ok(Opened {
            place: format!("http://{bound}/metrics"),
            result: Value::from(bound.port()),
            unit: "scrapes",
            notes: notes.into_iter().collect(),
            work: Box::new(move |life| Box::pin(serve(listener, access, linger, life))),
        })
    }
}

fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

/// What connections share.
struct Page {
    readings: watch::Receiver<Arc<Reading>>,
    tally: Arc<Tally>,
    access: Access,
    /// The reading that is there is the last.
    is_last: AtomicBool,
    /// The last reading was scraped.
    scraped: Notify,
}

/// Answers until the last reading was scraped, or its time is over.
async fn serve(listener: TcpListener, access: Access, linger: Duration, life: Life) {
    let Life { readings, ending, cut, tally, console } = life;
    let place = tally.place.clone();
    let page = Arc::new(Page { readings, tally, access, is_last: AtomicBool::new(false), scraped: Notify::new() });
    let (mut connections, closing) = (JoinSet::new(), CancellationToken::new());
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    let until = async {
        ending.cancelled().await;
        page.is_last.store(true, Ordering::SeqCst);
        if linger.is_zero() || cut.is_cancelled() {
            return;
        }
        console.note(&format!(
            "waiting up to {} s for a last scrape of {place}; Ctrl-C ends the wait",
            linger.as_secs_f64().ceil()
        ));
        tokio::select! {
            () = page.scraped.notified() => {}
            () = cut.cancelled() => {}
            () = tokio::time::sleep(linger) => console.note(&format!("nobody scraped {place} in that time")),
        }
    };
    tokio::pin!(until);
    loop {
        tokio::select! {
            () = &mut until => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => match Arc::clone(&room).try_acquire_owned() {
                    Ok(permit) => {
                        let (page, closing) = (Arc::clone(&page), closing.clone());
                        connections.spawn(async move {
                            answer(stream, page, closing).await;
                            drop(permit);
                        });
                    }
                    Err(_) => page.tally.lose(1, "too many connections at once"),
                },
                Err(error) => {
                    tracing::warn!(%error, "cannot accept scrapers");
                    // out of files, most likely: no use in asking again at once
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            },
        }
    }
    // the port is free from here on
    drop(listener);
    closing.cancel();
    let closed = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(Duration::from_secs(1), closed).await.is_err() {
        page.tally.lose(connections.len() as u64, "cut off at the end");
    }
}

async fn answer(stream: TcpStream, page: Arc<Page>, closing: CancellationToken) {
    let tally = Arc::clone(&page.tally);
    let service = service_fn(move |request| {
        let page = Arc::clone(&page);
        async move { Ok::<_, Infallible>(page.answer(&request)) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        // a scraper that reads nothing holds its place no longer than this; one that is well dials again
        () = tokio::time::sleep(LONGEST) => {
            connection.as_mut().graceful_shutdown();
            match tokio::time::timeout(SCRAPE, connection).await {
                Ok(ended) => ended,
                Err(_) => return tally.lose(1, "a scraper did not read its page"),
            }
        }
        () = closing.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended
        && !error.is_incomplete_message()
        && !error.is_timeout()
    {
        tally.lose(1, &format!("a scraper went away: {error}"));
    }
}

impl Page {
    /// Any path is the page.
    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let level = self.access.level(token(request.headers().get(AUTHORIZATION)).as_deref());
        if level < Level::Viewer {
            let mut refusal = text(StatusCode::UNAUTHORIZED, "a token is needed: Authorization: Bearer TOKEN\n".into());
            refusal.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            return refusal;
        }
        if request.method() != Method::GET && request.method() != Method::HEAD {
            let mut refusal = text(StatusCode::METHOD_NOT_ALLOWED, "GET and HEAD are accepted\n".into());
            refusal.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return refusal;
        }
        // before the reading is taken: what is scraped then is the last one
        let is_last = self.is_last.load(Ordering::SeqCst);
        let reading = Arc::clone(&self.readings.borrow());
        let page = text(StatusCode::OK, page::of(&reading));
        if request.method() == Method::GET {
            self.tally.deliver(1);
            if is_last {
                self.scraped.notify_one();
            }
        }
        page
    }
}

/// What an `Authorization` header proves knowledge of: the token of `Bearer`, the password of `Basic`.
fn token(header: Option<&HeaderValue>) -> Option<Vec<u8>> {
    let (scheme, value) = header?.to_str().ok()?.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(value.trim().as_bytes().to_vec());
    }
    let pair = base64::engine::general_purpose::STANDARD.decode(value.trim()).ok()?;
    let colon = pair.iter().position(|byte| *byte == b':')?;
    scheme.eq_ignore_ascii_case("basic").then(|| pair[colon + 1..].to_vec())
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(CONTENT));
    response
}
