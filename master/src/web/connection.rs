//! Connections: how many, how slow, how large.

use super::page;
use super::route::{self, Sender};
use super::{Web, routes};
use axum::Router;
use axum::body::Body;
use axum::response::Response;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, HeaderMap, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use http::{HeaderValue, Request};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{Sleep, sleep, timeout};
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

/// Most connections at once.
const MOST: usize = 512;
/// How long the head of a request may take, and how long a connection may be idle.
const HEAD_TIME: Duration = Duration::from_secs(10);
/// Most bytes of a head.
const LARGEST_HEAD: usize = 32 << 10;
/// A client that takes nothing for so long is gone.
const STALL: Duration = Duration::from_secs(30);
/// How long requests may take to end when the process does.
const FAREWELL: Duration = Duration::from_secs(2);
const BUSY: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 5\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

/// Serves until the process ends.
pub(super) async fn serve(listener: TcpListener, web: Arc<Web>) {
    let router = route::router(&web, routes::ROUTES);
    let slots = Arc::new(Semaphore::new(MOST));
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            () = web.ending.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // out of files, or a client that left at once
                tracing::debug!(%error, "cannot accept a connection");
                sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        match Arc::clone(&slots).try_acquire_owned() {
            Ok(slot) => {
                let (web, router) = (Arc::clone(&web), router.clone());
                connections.spawn(async move {
                    connection(stream, peer, web, router).await;
                    drop(slot);
                });
            }
            Err(_) => refuse(stream).await,
        }
    }
    drop(listener);
    connections.close();
    // those that do not end are cut off
    drop(timeout(FAREWELL, connections.wait()).await);
}

/// Says that there is no room. A fresh connection takes so few bytes at once.
async fn refuse(stream: TcpStream) {
    if let Ok(Ok(())) = timeout(Duration::from_millis(100), stream.writable()).await {
        // whoever does not take it sees the connection close
        drop(stream.try_write(BUSY));
    }
}

async fn connection(stream: TcpStream, peer: SocketAddr, web: Arc<Web>, router: Router) {
    // answers are small and waited for
    drop(stream.set_nodelay(true));
    let ending = web.ending.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let (web, router) = (Arc::clone(&web), router.clone());
        async move { Ok::<_, Infallible>(respond(&web, router, peer.ip(), request.map(Body::new)).await) }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIME).max_buf_size(LARGEST_HEAD);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(Patient { stream, stall: None }), service));
    let served = tokio::select! {
        served = connection.as_mut() => served,
        () = ending.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = served {
        tracing::debug!(%peer, %error, "a connection ended early");
    }
}

async fn respond(web: &Web, router: Router, peer: IpAddr, request: Request<Body>) -> Response {
    let (head, body) = request.into_parts();
    let mut response = match web.guard.admit(&head) {
        Ok(()) => {
            let mut request = Request::from_parts(head, body);
            request.extensions_mut().insert(Sender(format!("api {peer}")));
            let Ok(response) = router.oneshot(request).await;
            response
        }
        Err(problem) => {
            route::drain(body).await;
            page::refusal(&head, problem)
        }
    };
    dress(response.headers_mut());
    response
}

/// What every answer says to browsers: take it for what it is, keep nothing, load nothing, show it in no
/// frame. No page of another origin may read it: there are no CORS headers.
fn dress(headers: &mut HeaderMap) {
    for (name, value) in [
        (CACHE_CONTROL, "no-store"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (X_FRAME_OPTIONS, "DENY"),
        (REFERRER_POLICY, "no-referrer"),
        (
            CONTENT_SECURITY_POLICY,
            "default-src 'none'; style-src 'unsafe-inline'; img-src data:; form-action 'self'; frame-ancestors 'none'; \
             base-uri 'none'",
        ),
    ] {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
}

/// A stream whose other end must take what is sent to it within [`STALL`].
struct Patient {
    stream: TcpStream,
    stall: Option<Pin<Box<Sleep>>>,
}

impl Patient {
    /// The outcome of a write: pending for too long is an error.
    fn patiently<T>(&mut self, context: &mut Context<'_>, outcome: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.stall = None;
            return outcome;
        }
        let stall = self.stall.get_or_insert_with(|| Box::pin(sleep(STALL)));
        ready!(stall.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Patient {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Patient {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.patiently(context, outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.patiently(context, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
