//! The server: accepts, reads, waits as the law says, answers.

use crate::target::Options;
use crate::target::law::release;
use crate::target::ledger::{Arrival, Ledger, Ticket};
use crate::target::log::Lines;
use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, HeaderValue};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use ld_shared::boot::clock;
use ld_shared::rng::KeyedRng;
use ld_shared::time::Mono;
use serde::Serialize;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tracing::{debug, warn};

/// Longest body that a query may ask for.
const MAX_BODY: usize = 64 << 20;

/// What all connections share.
pub(super) struct Server {
    pub(super) options: Options,
    pub(super) started: Mono,
    pub(super) ledger: Mutex<Ledger>,
    pub(super) arrivals: Option<Lines>,
    pub(super) answers: Option<Lines>,
    pub(super) tls: Option<TlsAcceptor>,
    pub(super) body: Bytes,
}

/// What the service knows about its connection.
struct Connection {
    client: SocketAddr,
    client_ip: String,
    slowed: Duration,
    requests: AtomicU64,
    /// The same socket again: closing it with no linger resets the connection.
    reset: Option<socket2::Socket>,
}

/// The connection is to be reset instead of an answer.
#[derive(Debug, thiserror::Error)]
#[error("connection reset on purpose")]
struct Reset;

/// What a query asks for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Wish {
    delay: Option<Duration>,
    status: Option<u16>,
    bytes: Option<usize>,
}

impl Server {
    pub(super) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Accepts until its task is dropped.
    pub(super) async fn accept(self: Arc<Self>, listener: TcpListener) {
        loop {
            match listener.accept().await {
                Ok((stream, client)) => {
                    let server = Arc::clone(&self);
                    tokio::spawn(async move {
                        server.ledger().open();
                        server.connection(stream, client).await;
                        server.ledger().close();
                    });
                }
                Err(error) => {
                    warn!(%error, "target could not accept a connection");
                    // mostly EMFILE: give open connections time to end
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
        }
    }

    async fn connection(self: &Arc<Self>, stream: TcpStream, client: SocketAddr) {
        if let Err(error) = stream.set_nodelay(true) {
            debug!(%error, "target could not set TCP_NODELAY");
        }
        let reset = if self.options.reset > 0.0 {
            socket2::SockRef::from(&stream).try_clone().inspect_err(|error| warn!(%error, "no reset possible")).ok()
        } else {
            None
        };
        let ip = client.ip().to_canonical();
        let slowed = self.options.slow_clients.iter().filter(|(slow, _)| *slow == ip).map(|(_, by)| *by).sum();
        let connection =
            Arc::new(Connection { client, client_ip: ip.to_string(), slowed, requests: AtomicU64::new(0), reset });
        match &self.tls {
            None => self.speak(TokioIo::new(stream), connection).await,
            Some(tls) => match tls.accept(stream).await {
                Ok(stream) => self.speak(TokioIo::new(stream), connection).await,
                Err(error) => debug!(%client, %error, "TLS handshake with the target failed"),
            },
        }
    }

    async fn speak<T>(self: &Arc<Self>, io: TokioIo<T>, connection: Arc<Connection>)
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let client = connection.client;
        let service = hyper::service::service_fn(|request| {
            let arrived = clock::mono();
            let (server, connection) = (Arc::clone(self), Arc::clone(&connection));
            async move { server.serve(request, arrived, &connection).await }
        });
        if let Err(error) = hyper::server::conn::http1::Builder::new().serve_connection(io, service).await {
            debug!(%client, %error, "connection to the target ended");
        }
    }

    async fn serve(
        &self,
        request: Request<Incoming>,
        arrived: Mono,
        connection: &Connection,
    ) -> Result<Response<Full<Bytes>>, Reset> {
        match request.uri().path() {
            "/__counts" => return Ok(json(&self.ledger().counts())),
            "/__reset" => {
                self.ledger().reset();
                return Ok(json(&serde_json::json!({"ok": true})));
            }
            _ => {}
        }
        let wish = Wish::of(request.uri().query().unwrap_or_default());
        let (ticket, planned, status) = self.arrive(&request, arrived, connection, &wish);
        drain(request.into_body()).await;
        let release = arrived.after(planned);
        loop {
            let rest = release.since(clock::mono());
            if rest.is_zero() {
                break;
            }
            tokio::time::sleep(rest).await;
        }
        let Some(status) = status else {
            if let Some(Err(error)) = connection.reset.as_ref().map(|s| s.set_linger(Some(Duration::ZERO))) {
                warn!(%error, "target could not reset a connection");
            }
            return Err(Reset);
        };
        let body = wish.bytes.map_or_else(|| self.body.clone(), |n| Bytes::from(vec![b'x'; n]));
        let mut response = Response::new(Full::new(body));
        *response.status_mut() = status;
        let seen = connection.requests.fetch_add(1, Ordering::Relaxed) + 1;
        if self.options.close_after.is_some_and(|n| seen >= n) {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        let held = clock::mono().since(arrived);
        self.ledger().answer(ticket, held);
        if let Some(lines) = &self.answers {
            lines.answer(ticket.id, held);
        }
        Ok(response)
    }

    /// Counts and logs a request; chooses its delay and its status (`None`: reset).
    fn arrive(
        &self,
        request: &Request<Incoming>,
        arrived: Mono,
        connection: &Connection,
        wish: &Wish,
    ) -> (Ticket, Duration, Option<StatusCode>) {
        let mut ledger = self.ledger();
        let ticket = ledger.arrive(arrived);
        let mut rng = KeyedRng::new(self.options.seed, ticket.id, 0);
        let drawn = self.options.latency.draw(&mut rng);
        let reset = rng.next_f64() < self.options.reset;
        let failed = rng.next_f64() < self.options.fail;
        let status = match wish.status.and_then(|s| StatusCode::from_u16(s).ok()) {
            _ if reset => None,
            Some(status) => Some(status),
            None if failed => Some(StatusCode::SERVICE_UNAVAILABLE),
            None => Some(StatusCode::OK),
        };
        let delay = wish.delay.unwrap_or(drawn) + connection.slowed;
        let planned = release(ticket.since_first, delay, &self.options.stalls).saturating_sub(ticket.since_first);
        let path = request.uri().path();
        let code = status.map_or(0, |s| s.as_u16());
        ledger.describe(path, &connection.client_ip, code);
        if self.arrivals.is_some() || self.options.keep_arrivals {
            let arrival = Arrival {
                id: ticket.id,
                at_ns: arrived.since(self.started).as_nanos() as u64,
                client: connection.client,
                method: request.method().to_string(),
                path: path.to_owned(),
                status: code,
                planned_ns: planned.as_nanos() as u64,
                held_ns: None,
            };
            // under the lock, so that lines are in order of their ids
            if let Some(lines) = &self.arrivals {
                lines.arrival(&arrival);
            }
            ledger.keep(|| arrival);
        }
        (ticket, planned, status)
    }
}

impl Wish {
    /// Reads `ms=20&status=404&bytes=100`; anything else is ignored, as a server does.
    fn of(query: &str) -> Self {
        let mut wish = Self::default();
        for (key, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
            match key {
                "ms" => {
                    let seconds = value.parse::<f64>().ok().map(|ms| ms / 1e3);
                    wish.delay = seconds.and_then(|s| Duration::try_from_secs_f64(s).ok());
                }
                "status" => wish.status = value.parse().ok().filter(|s| (200..600).contains(s)),
                "bytes" => wish.bytes = value.parse::<usize>().ok().map(|n| n.min(MAX_BODY)),
                _ => {}
            }
        }
        wish
    }
}

/// Reads a body to its end; a client that breaks off is found out when it is answered.
async fn drain(mut body: Incoming) {
    while let Some(Ok(_)) = body.frame().await {}
}

fn json(value: &impl Serialize) -> Response<Full<Bytes>> {
    let text = serde_json::to_vec(value).expect("counts are plain data with text keys");
    let mut response = Response::new(Full::new(Bytes::from(text)));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_ask_for_delay_status_and_size() {
        let ms = |n| Some(Duration::from_millis(n));
        for (query, wish) in [
            ("", Wish::default()),
            ("ms=20", Wish { delay: ms(20), ..Wish::default() }),
            ("status=404&bytes=5&x=1", Wish { status: Some(404), bytes: Some(5), ..Wish::default() }),
            ("ms=-1&status=99&bytes=a", Wish::default()),
        ] {
            assert_eq!(Wish::of(query), wish, "{query}");
        }
    }
}
