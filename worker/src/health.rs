//! `--web` of a worker: whether it lives, and whether it has joined.
//!
//! It runs on a thread and runtime of its own: asking how a worker is takes nothing from its load cores and delays no
//! heartbeat.

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, watch};

/// Whether a master has let the worker in; else why not yet.
pub type Standing = Result<(), String>;

/// A caller that takes longer, or sends nothing, is left.
const CALL_WITHIN: Duration = Duration::from_secs(10);
/// Callers at once; others wait for their turn.
const CALLERS: usize = 32;

/// Serves `/healthz` and `/readyz` from a thread of its own for as long as the process lives. Returns the address.
pub fn serve(address: SocketAddr, standing: watch::Receiver<Standing>) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    let bound = listener.local_addr()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let serve = move || {
        if let Err(error) = runtime.block_on(accept(listener, standing)) {
            tracing::error!(%error, "nobody can ask any more how this worker is");
        }
    };
    std::thread::Builder::new().name("health".into()).spawn(serve)?;
    Ok(bound)
}

async fn accept(listener: TcpListener, standing: watch::Receiver<Standing>) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let callers = Arc::new(Semaphore::new(CALLERS));
    while let Ok(turn) = callers.clone().acquire_owned().await {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            // a caller that is gone already, or no free file: neither is for ever
            Err(error) => {
                tracing::debug!(%error, "cannot accept");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let standing = standing.clone();
        tokio::spawn(async move {
            let service = service_fn(async |request: Request<Incoming>| {
                let answer = answer(request.method(), request.uri().path(), &standing.borrow());
                Ok::<_, Infallible>(answer)
            });
            let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            // how a caller leaves is its own affair
            drop(tokio::time::timeout(CALL_WITHIN, connection).await);
            drop(turn);
        });
    }
    Ok(())
}

fn answer(method: &Method, path: &str, standing: &Standing) -> Response<Full<Bytes>> {
    let (status, text) = match (method, path) {
        (&Method::GET | &Method::HEAD, "/healthz") => (StatusCode::OK, "ok".to_owned()),
        (&Method::GET | &Method::HEAD, "/readyz") => match standing {
            Ok(()) => (StatusCode::OK, "joined".to_owned()),
            Err(why) => (StatusCode::SERVICE_UNAVAILABLE, why.clone()),
        },
        (_, "/healthz" | "/readyz") => (StatusCode::METHOD_NOT_ALLOWED, "GET is accepted".to_owned()),
        _ => (StatusCode::NOT_FOUND, "a worker has /healthz and /readyz".to_owned()),
    };
    let mut response = Response::new(Full::new(Bytes::from(text + "\n")));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::healthcheck::ask;

    #[test]
    fn a_worker_is_ready_once_it_has_joined() {
        let (tell, standing) = watch::channel(Err("the master m:1 has not answered yet".to_owned()));
        let address = serve("127.0.0.1:0".parse().unwrap(), standing).unwrap().to_string();
        assert!(ask(&address, "/healthz", Duration::ZERO).is_ok());
        let why = ask(&address, "/readyz", Duration::ZERO).unwrap_err();
        assert!(why.contains("503") && why.contains("the master m:1 has not answered yet"), "{why}");
        tell.send(Ok(())).unwrap();
        assert!(ask(&address, "/readyz", Duration::ZERO).is_ok());
        assert!(ask(&address, "/", Duration::ZERO).unwrap_err().contains("404"));
    }

    #[test]
    fn a_port_that_is_taken_is_an_error() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let (_tell, standing) = watch::channel(Ok(()));
        assert!(serve(taken.local_addr().unwrap(), standing).is_err());
    }
}
