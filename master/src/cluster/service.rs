//! The gRPC side of the cluster: two streams a worker, turned into inputs of the driver.

use super::driver::{ConnectionId, Input};
use futures_util::Stream;
use ld_proto::v1;
use ld_proto::v1::cluster_server::{Cluster, ClusterServer};
use ld_shared::boot::clock;
use ld_shared::message::{FRAME_WINDOW, LINK_QUEUE, RECORD_WINDOW, ToWorker};
use ld_shared::wire::{self, MAX_MESSAGE};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming};

/// How long the first message on a stream may take.
const FIRST_WITHIN: Duration = Duration::from_secs(5);
/// Connections of one master; numbers below are the local workers'.
const FIRST_CONNECTION: ConnectionId = 1_000;

type Outgoing<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

struct Service {
    inputs: mpsc::Sender<Input>,
    next: AtomicU64,
}

/// Serves workers on `listener` until `stop` is done.
pub(super) async fn serve(
    listener: TcpListener,
    inputs: mpsc::Sender<Input>,
    stop: impl Future<Output = ()>,
) -> Result<(), tonic::transport::Error> {
    let service = Service { inputs, next: AtomicU64::new(FIRST_CONNECTION) };
    let service =
        ClusterServer::new(service).max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(MAX_MESSAGE);
    let incoming = TcpListenerStream::new(listener).map(|tcp: io::Result<tokio::net::TcpStream>| {
        let tcp = tcp?;
        tcp.set_nodelay(true)?;
        Ok::<_, io::Error>(tcp)
    });
    tonic::transport::Server::builder()
        .initial_stream_window_size(64 * 1024)
        .initial_connection_window_size(1024 * 1024)
        .serve_with_incoming_shutdown(service, incoming, stop)
        .await
}

#[tonic::async_trait]
impl Cluster for Service {
    type ControlStream = Outgoing<v1::FromMaster>;
    type ResultsStream = Outgoing<v1::ResultsFromMaster>;

    async fn control(
        &self,
        request: Request<Streaming<v1::FromWorker>>,
    ) -> Result<Response<Self::ControlStream>, Status> {
        let connection = self.next.fetch_add(1, Ordering::Relaxed);
        let mut stream = request.into_inner();
        let (out, outgoing) = mpsc::channel::<ToWorker>(LINK_QUEUE);
        let inputs = self.inputs.clone();
        let closing = || Status::unavailable("the master is ending");
        // only the driver holds `out`: when it lets go of a worker, the stream to it ends
        inputs.send(Input::Opened { connection, out }).await.map_err(|_| closing())?;
        tokio::spawn(async move {
            let mut first = true;
            let seen = loop {
                let message = tokio::select! {
                    message = stream.message() => message,
                    () = tokio::time::sleep(FIRST_WITHIN), if first => break "no hello within 5 s".to_owned(),
                };
                first = false;
                let at = clock::mono();
                let message = match message {
                    Ok(Some(message)) => message,
                    Ok(None) => break "closed without goodbye".to_owned(),
                    Err(status) => break describe(&status),
                };
                match wire::control_from_worker(message) {
                    Ok(message) => {
                        if inputs.send(Input::Message { connection, at, message }).await.is_err() {
                            return;
                        }
                    }
                    Err(error) => break format!("it broke the contract: {error}"),
                }
            };
            drop(inputs.send(Input::Closed { connection, seen }).await);
        });
        let outgoing = ReceiverStream::new(outgoing).filter_map(|message| wire::control_to_worker(&message).map(Ok));
        Ok(Response::new(Box::pin(outgoing)))
    }

    async fn results(
        &self,
        request: Request<Streaming<v1::ResultsFromWorker>>,
    ) -> Result<Response<Self::ResultsStream>, Status> {
        let mut stream = request.into_inner();
        let first = tokio::time::timeout(FIRST_WITHIN, stream.message()).await;
        let first = first.map_err(|_| Status::deadline_exceeded("no attach within 5 s"))??;
        let first = first.ok_or_else(|| Status::invalid_argument("the first message must be an attach"))?;
        let decoded = wire::results_from_worker(first).map_err(|error| Status::invalid_argument(error.to_string()))?;
        let Ok((session, secret)) = decoded else {
            return Err(Status::invalid_argument("the first message must be an attach"));
        };
        let (out, outgoing) = mpsc::channel::<ToWorker>(2 * (FRAME_WINDOW + RECORD_WINDOW));
        let (reply, answer) = oneshot::channel();
        let inputs = self.inputs.clone();
        let closing = || Status::unavailable("the master is ending");
        inputs.send(Input::Attach { session, secret, out, reply }).await.map_err(|_| closing())?;
        let connection = answer.await.map_err(|_| closing())?;
        let connection = connection.ok_or_else(|| Status::permission_denied("no such session: join again"))?;
        tokio::spawn(async move {
            let seen = loop {
                let message = match stream.message().await {
                    Ok(Some(message)) => message,
                    // the end of `Control` says what it means
                    Ok(None) => return,
                    Err(status) => break describe(&status),
                };
                let at = clock::mono();
                match wire::results_from_worker(message) {
                    Ok(Err(message)) => {
                        if inputs.send(Input::Message { connection, at, message }).await.is_err() {
                            return;
                        }
                    }
                    Ok(Ok(_)) => break "it attached twice".to_owned(),
                    Err(error) => break format!("it broke the contract: {error}"),
                }
            };
            drop(inputs.send(Input::Closed { connection, seen }).await);
        });
        let outgoing = ReceiverStream::new(outgoing).filter_map(|message| wire::results_to_worker(&message).map(Ok));
        Ok(Response::new(Box::pin(outgoing)))
    }
}

/// What ended a stream, as far as it is known.
fn describe(status: &Status) -> String {
    use std::error::Error as _;
    let mut text = status.message().to_owned();
    let mut source = status.source();
    while let Some(error) = source {
        text = error.to_string();
        source = error.source();
    }
    if text.is_empty() { status.code().to_string() } else { text }
}
