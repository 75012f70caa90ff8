//! A connection to a master over gRPC: one TCP connection, two streams.

use super::{Channel, Dial};
use crate::membership::Unreached;
use ld_proto::v1::cluster_client::ClusterClient;
use ld_shared::message::{FRAME_WINDOW, LINK_QUEUE, RECORD_WINDOW, ToMaster, ToWorker};
use ld_shared::wire::{self, MAX_MESSAGE};
use std::future::{Ready, ready};
use std::io;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic::codegen::Service;
use tonic::transport::{Endpoint, Uri};

/// How long a connection may take to stand.
const DIAL_WITHIN: Duration = Duration::from_secs(3);

/// Dials one address.
#[derive(Clone, Debug)]
pub struct GrpcDial {
    /// `HOST:PORT`.
    pub master: String,
}

impl Dial for GrpcDial {
    async fn dial(&mut self) -> Result<Channel, Unreached> {
        let connected = tokio::time::timeout(DIAL_WITHIN, connect(&self.master)).await;
        let late = |_| Unreached::seen(format!("{} did not answer within {DIAL_WITHIN:?}", self.master));
        connected.map_err(late)?
    }
}

async fn connect(master: &str) -> Result<Channel, Unreached> {
    let unreached = |error: io::Error| {
        let refused = error.kind() == io::ErrorKind::ConnectionRefused;
        Unreached { refused, seen: error.to_string() }
    };
    let tcp = TcpStream::connect(master).await.map_err(unreached)?;
    tcp.set_nodelay(true).map_err(unreached)?;
    let endpoint = Endpoint::from_static("http://master")
        .initial_stream_window_size(64 * 1024)
        .initial_connection_window_size(1024 * 1024);
    let transport =
        endpoint.connect_with_connector(Once(Some(tcp))).await.map_err(|error| Unreached::seen(describe(&error)))?;
    let mut client =
        ClusterClient::new(transport).max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(MAX_MESSAGE);

    let (up, from_shell) = mpsc::channel::<ToMaster>(LINK_QUEUE);
    let (to_shell, down) = mpsc::channel(LINK_QUEUE);
    let (control_up, control_out) = mpsc::channel(LINK_QUEUE);
    // as many frames and batches of records as may be under way, and the attach: beats never wait for room
    let (results_up, results_out) = mpsc::channel(FRAME_WINDOW + RECORD_WINDOW + 1);
    // the stream opens only with the first message: the hello must not wait for its answer
    tokio::spawn(send(from_shell, control_up, results_up.clone()));
    tokio::spawn(async move {
        let control = match client.control(ReceiverStream::new(control_out)).await {
            Ok(control) => control.into_inner(),
            Err(status) => return drop(to_shell.send(Err(text_of(&status))).await),
        };
        receive(client, control, results_up, results_out, to_shell).await;
    });
    Ok(Channel { up, down })
}

/// Splits what the shell says over the two streams.
async fn send(
    mut from_shell: mpsc::Receiver<ToMaster>,
    control: mpsc::Sender<wire::v1::FromWorker>,
    results: mpsc::Sender<wire::v1::ResultsFromWorker>,
) {
    while let Some(message) = from_shell.recv().await {
        let sent = if let Some(message) = wire::results_to_master(&message) {
            results.send(message).await.is_ok()
        } else if let Some(message) = wire::control_to_master(&message) {
            control.send(message).await.is_ok()
        } else {
            true
        };
        if !sent {
            return;
        }
    }
}

/// Joins what the master says on both streams.
async fn receive(
    client: ClusterClient<tonic::transport::Channel>,
    mut control: tonic::Streaming<wire::v1::FromMaster>,
    results_up: mpsc::Sender<wire::v1::ResultsFromWorker>,
    results_out: mpsc::Receiver<wire::v1::ResultsFromWorker>,
    to_shell: mpsc::Sender<Result<ToWorker, String>>,
) {
    let mut unopened = Some((results_up, results_out));
    loop {
        let message = tokio::select! {
            message = control.message() => message,
            () = to_shell.closed() => return,
        };
        let message = match message {
            Ok(Some(message)) => wire::control_from_master(message).map_err(|error| error.to_string()),
            Ok(None) => return,
            Err(status) => Err(text_of(&status)),
        };
        if let Ok(ToWorker::Welcome { session, secret, .. }) = &message
            && let Some((up, out)) = unopened.take()
        {
            // the attach must be first: nothing else is sent before the welcome is handed on
            drop(up.send(wire::attach_to_master(*session, secret.clone())).await);
            drop(up);
            let to_shell = to_shell.clone();
            let mut client = client.clone();
            tokio::spawn(async move {
                let acks = client.results(ReceiverStream::new(out)).await;
                let mut acks = match acks {
                    Ok(acks) => acks.into_inner(),
                    Err(status) => return drop(to_shell.send(Err(text_of(&status))).await),
                };
                loop {
                    let message = tokio::select! {
                        message = acks.message() => message,
                        () = to_shell.closed() => return,
                    };
                    let message = match message {
                        Ok(Some(message)) => wire::results_from_master(message).map_err(|error| error.to_string()),
                        Ok(None) => return,
                        Err(status) => Err(text_of(&status)),
                    };
                    let failed = message.is_err();
                    if to_shell.send(message).await.is_err() || failed {
                        return;
                    }
                }
            });
        }
        let failed = message.is_err();
        if to_shell.send(message).await.is_err() || failed {
            return;
        }
    }
}

fn text_of(status: &Status) -> String {
    if status.message().is_empty() { status.code().to_string() } else { status.message().to_owned() }
}

fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = error.to_string();
        source = error.source();
    }
    text
}

/// Hands out one connection once: tonic would otherwise reconnect behind our back, and a second
/// connection is a second worker.
struct Once(Option<TcpStream>);

impl Service<Uri> for Once {
    type Response = hyper_util::rt::TokioIo<TcpStream>;
    type Error = io::Error;
    type Future = Ready<Result<Self::Response, io::Error>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), io::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _uri: Uri) -> Self::Future {
        let tcp = self.0.take().ok_or_else(|| io::Error::other("the connection ended"));
        ready(tcp.map(hyper_util::rt::TokioIo::new))
    }
}
