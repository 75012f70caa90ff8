//! The gRPC side of the cluster: two streams a worker, turned into inputs of the driver.

use super::door::{self, Peer};
use super::driver::{ConnectionId, Input, Inputs};
use super::greeter::{FIRST_WITHIN, Greeter};
use super::security::Credentials;
use bytes::Bytes;
use futures_util::Stream;
use ld_proto::v1;
use ld_proto::v1::cluster_server::{Cluster, ClusterServer};
use ld_shared::boot::clock;
use ld_shared::id::SessionId;
use ld_shared::message::{FRAME_WINDOW, LINK_QUEUE, RECORD_WINDOW, ToMaster, ToWorker};
use ld_shared::wire::{self, MAX_MESSAGE, WireError};
use ld_worker::link::grpc::text_of;
use ld_worker::link::socket::Listen;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::{CancellationToken, PollSemaphore};
use tonic::{Request, Response, Status, Streaming};

/// A worker has two streams; a third serves one that attaches again while the old one ends.
const MOST_STREAMS: u32 = 4;
/// Bytes of a request's headers.
const MOST_HEADERS: u32 = 8 * 1024;
/// Connections of one master; numbers below are the local workers'.
const FIRST_CONNECTION: ConnectionId = 1_000;

/// A message on `Results`: an attach, or what is measured.
type FromResults = Result<(SessionId, Bytes), ToMaster>;

type Outgoing<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

struct Service {
    inputs: Inputs,
    next: AtomicU64,
    credentials: Arc<Credentials>,
    /// To decode measurements.
    turns: PollSemaphore,
}

/// What workers measured, decoded a few at a time: everything else that their connections bring, above all beats, would
/// else wait behind all of them.
struct InTurn {
    stream: Streaming<v1::ResultsFromWorker>,
    turns: PollSemaphore,
}

impl InTurn {
    /// The next message; `None`: there is none any more. Cancel safe.
    async fn next(&mut self) -> Option<Result<Result<FromResults, WireError>, Status>> {
        let poll = |context: &mut Context<'_>| {
            let _turn = std::task::ready!(self.turns.poll_acquire(context));
            let message = std::task::ready!(Pin::new(&mut self.stream).poll_next(context));
            Poll::Ready(message.map(|message| message.map(wire::results_from_worker)))
        };
        std::future::poll_fn(poll).await
    }
}

/// Serves workers on `listener` until `stop` is done; so many of their measurements are decoded at once.
pub(super) async fn serve(
    listener: impl Listen,
    credentials: Credentials,
    (inputs, decoding): (Inputs, usize),
    stop: impl Future<Output = ()>,
) -> Result<(), tonic::transport::Error> {
    let incoming = door::connections(listener, credentials.acceptor.clone());
    let service = Service {
        inputs,
        next: AtomicU64::new(FIRST_CONNECTION),
        credentials: Arc::new(credentials),
        turns: PollSemaphore::new(Arc::new(Semaphore::new(decoding))),
    };
    let service =
        ClusterServer::new(service).max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(MAX_MESSAGE);
    tonic::transport::Server::builder()
        .initial_stream_window_size(64 * 1024)
        .initial_connection_window_size(1024 * 1024)
        .max_concurrent_streams(MOST_STREAMS)
        .http2_max_header_list_size(MOST_HEADERS)
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
        let peer = peer_of(&request)?;
        let connection = self.next.fetch_add(1, Ordering::Relaxed);
        let mut stream = request.into_inner();
        let (greetings, greeted) = mpsc::channel::<v1::FromMaster>(2);
        let (out, outgoing) = mpsc::channel::<ToWorker>(LINK_QUEUE);
        let (Inputs { first: inputs, measured }, credentials) = (self.inputs.clone(), Arc::clone(&self.credentials));
        let proof = Arc::new(OnceLock::new());
        let proven = Arc::clone(&proof);
        tokio::spawn(async move {
            let greeting = Greeter { credentials: &credentials, peer: &peer, greetings: &greetings };
            let worker = greeting.greet(&mut stream).await;
            let (hello, proof) = match worker {
                Ok(worker) => worker,
                Err(why) => {
                    peer.complain(&format!("a worker was refused: {why}"));
                    return peer.close_soon();
                }
            };
            // read when the welcome goes out, which is later
            proven.get_or_init(|| proof);
            peer.admit();
            drop(greetings);
            let (at, message) = (clock::mono(), ToMaster::Hello(hello));
            let let_go = CancellationToken::new();
            let open = Some(let_go.clone().drop_guard());
            for input in [Input::Opened { connection, out, open }, Input::Message { connection, at, message }] {
                if inputs.send(input).await.is_err() {
                    return;
                }
            }
            let seen = loop {
                let message = tokio::select! {
                    message = stream.message() => message,
                    // the driver has no use for it any more
                    () = let_go.cancelled() => return peer.close_soon(),
                };
                let message = match message {
                    Ok(Some(message)) => message,
                    Ok(None) => break "closed without goodbye".to_owned(),
                    Err(status) => break text_of(&status),
                };
                let at = clock::mono();
                match wire::control_from_worker(message) {
                    Ok(message) => {
                        if inputs.send(Input::Message { connection, at, message }).await.is_err() {
                            return;
                        }
                    }
                    Err(error) => {
                        peer.complain(&format!("it broke the contract: {error}"));
                        break format!("it broke the contract: {error}");
                    }
                }
            };
            peer.close_soon();
            drop(measured.send(Input::Closed { connection, seen }).await);
        });
        let outgoing = ReceiverStream::new(outgoing).filter_map(|message| wire::control_to_worker(&message));
        let outgoing = outgoing.map(move |message| wire::with_proof(message, proof.get().unwrap_or(&Bytes::new())));
        Ok(Response::new(Box::pin(ReceiverStream::new(greeted).chain(outgoing).map(Ok))))
    }

    async fn results(
        &self,
        request: Request<Streaming<v1::ResultsFromWorker>>,
    ) -> Result<Response<Self::ResultsStream>, Status> {
        let peer = peer_of(&request)?;
        if !peer.is_admitted() {
            return Err(Status::permission_denied("this connection has no worker: `Control` comes first"));
        }
        let mut stream = InTurn { stream: request.into_inner(), turns: self.turns.clone() };
        let first = tokio::time::timeout(FIRST_WITHIN, stream.next()).await;
        let first = first.map_err(|_| Status::deadline_exceeded("no attach within 5 s"))?;
        let no_attach = || Status::invalid_argument("the first message must be an attach");
        let decoded = first.ok_or_else(no_attach)??.map_err(|error| Status::invalid_argument(error.to_string()))?;
        let (session, secret) = decoded.map_err(|_| no_attach())?;
        let no_session = || {
            peer.complain("it attached to a session that it is not");
            Status::permission_denied("no such session: join again")
        };
        if !self.credentials.key.is_secret(session, &secret) {
            return Err(no_session());
        }
        let (out, outgoing) = mpsc::channel::<ToWorker>(2 * (FRAME_WINDOW + RECORD_WINDOW));
        let (reply, answer) = oneshot::channel();
        let Inputs { first: inputs, measured } = self.inputs.clone();
        let closing = || Status::unavailable("the master is ending");
        inputs.send(Input::Attach { session, secret, out, reply }).await.map_err(|_| closing())?;
        let connection = answer.await.map_err(|_| closing())?;
        let connection = connection.ok_or_else(no_session)?;
        tokio::spawn(async move {
            let seen = loop {
                match stream.next().await {
                    // the end of `Control` says what it means
                    None => return,
                    Some(Err(status)) => break text_of(&status),
                    Some(Ok(Ok(Err(message)))) => {
                        let at = clock::mono();
                        if measured.send(Input::Message { connection, at, message }).await.is_err() {
                            return;
                        }
                    }
                    Some(Ok(Ok(Ok(_)))) => break "it attached twice".to_owned(),
                    Some(Ok(Err(error))) => {
                        peer.complain(&format!("it broke the contract: {error}"));
                        break format!("it broke the contract: {error}");
                    }
                }
            };
            drop(measured.send(Input::Closed { connection, seen }).await);
        });
        let outgoing = ReceiverStream::new(outgoing).filter_map(|message| wire::results_to_worker(&message).map(Ok));
        Ok(Response::new(Box::pin(outgoing)))
    }
}

/// Where a call comes from.
fn peer_of<T>(request: &Request<T>) -> Result<Peer, Status> {
    request.extensions().get::<Peer>().cloned().ok_or_else(|| Status::internal("a connection without a peer"))
}
