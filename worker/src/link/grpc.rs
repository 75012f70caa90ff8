//! A connection to a master over gRPC: one TCP connection, two streams.

use super::socket::{Connect, Socket, Tcp};
use super::trust::{Tls, is_reset};
use super::{Channel, Dial};
use crate::membership::Unreached;
use ld_proto::v1::cluster_client::ClusterClient;
use ld_shared::boot::cause;
use ld_shared::handshake::{self, Fingerprint, Role, Token, Transcript};
use ld_shared::message::{FRAME_WINDOW, LINK_QUEUE, RECORD_WINDOW, ToMaster, ToWorker};
use ld_shared::wire::{self, MAX_MESSAGE};
use std::future::{Ready, ready};
use std::io;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_rustls::client::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic::codegen::Service;
use tonic::transport::{Endpoint, Uri};

/// How long a connection may take to stand.
const DIAL_WITHIN: Duration = Duration::from_secs(3);

/// Dials one address.
#[derive(Clone, Debug)]
pub struct GrpcDial<C = Tcp> {
    /// `HOST:PORT`.
    pub master: String,
    /// How it knows the master, and the master it.
    pub credentials: Credentials,
    /// What opens connections.
    pub connect: C,
}

/// How a worker knows its master, and its master it.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    /// TLS; `None`: everything goes in the clear.
    pub tls: Option<Tls>,
    /// What both must know.
    pub token: Option<Token>,
}

impl Credentials {
    /// TLS with the first certificate that is met, no token.
    pub fn first_use() -> Self {
        let tls = Tls::new(None, None).expect("there is no file to be wrong");
        Self { tls: Some(tls), token: None }
    }
}

impl<C: Connect> Dial for GrpcDial<C> {
    async fn dial(&mut self) -> Result<Channel, Unreached> {
        let connected = tokio::time::timeout(DIAL_WITHIN, self.connect()).await;
        let late = |_| Unreached::seen(format!("{} did not answer within {DIAL_WITHIN:?}", self.master));
        connected.map_err(late)?
    }
}

impl<C: Connect> GrpcDial<C> {
    async fn connect(&self) -> Result<Channel, Unreached> {
        let unreached = |error: io::Error| {
            let refused = error.kind() == io::ErrorKind::ConnectionRefused;
            Unreached { refused, reset: is_reset(&error), ..Unreached::seen(error.to_string()) }
        };
        let tcp = self.connect.connect(&self.master).await.map_err(unreached)?;
        tcp.set_nodelay(true).map_err(unreached)?;
        let (stream, certificate) = match &self.credentials.tls {
            None => (Io::Left(tcp), Fingerprint::default()),
            Some(tls) => {
                let secured = tls
                    .secure(tcp)
                    .await
                    .map_err(|why| Unreached { reset: why.reset, ..self.distrusted(&why.text, why.hopeless) })?;
                (Io::Right(secured.0), secured.1)
            }
        };
        // TLS is below: for tonic this is a plain connection
        let endpoint = Endpoint::from_static("http://master")
            .initial_stream_window_size(64 * 1024)
            .initial_connection_window_size(1024 * 1024);
        let transport = endpoint.connect_with_connector(Once(Some(stream))).await;
        let transport = transport.map_err(|error| ended(cause::of(&error)))?;
        let client =
            ClusterClient::new(transport).max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(MAX_MESSAGE);
        let (up, from_shell) = mpsc::channel::<ToMaster>(LINK_QUEUE);
        let (to_shell, down) = mpsc::channel(LINK_QUEUE);
        tokio::spawn(self.clone().talk(client, certificate, from_shell, to_shell));
        Ok(Channel { up, down })
    }

    /// Greets, then moves messages until one side goes.
    async fn talk(
        self,
        client: Client,
        certificate: Fingerprint,
        mut from_shell: mpsc::Receiver<ToMaster>,
        to_shell: ToShell,
    ) {
        let (control_up, control_out) = mpsc::channel(LINK_QUEUE);
        // as many frames and batches of records as may be under way, and the attach: beats never wait for room
        let (results_up, results_out) = mpsc::channel(FRAME_WINDOW + RECORD_WINDOW + 1);
        let greeted = tokio::select! {
            greeted = self.greet(client.clone(), certificate, &mut from_shell, (&control_up, control_out)) => greeted,
            () = to_shell.closed() => return,
        };
        let (control, first) = match greeted {
            Ok(greeted) => greeted,
            // the shell is gone, or will see it
            Err(why) => return drop(to_shell.send(Err(why)).await),
        };
        tokio::spawn(send(from_shell, control_up, results_up.clone()));
        receive(client, (first, control), results_up, results_out, to_shell).await;
    }

    /// The handshake of `cluster.proto`. Gives the first message after it, which is no longer part of it.
    async fn greet(
        &self,
        mut client: Client,
        certificate: Fingerprint,
        from_shell: &mut mpsc::Receiver<ToMaster>,
        (up, out): (&mpsc::Sender<wire::v1::FromWorker>, mpsc::Receiver<wire::v1::FromWorker>),
    ) -> Result<(Control, wire::v1::FromMaster), Unreached> {
        let gone = || ended("it was closed".to_owned());
        let Some(ToMaster::Hello(hello)) = from_shell.recv().await else { return Err(gone()) };
        let worker = handshake::fresh_nonce();
        // the stream opens only with the first message
        up.send(wire::hello_to_master(&hello, &worker)).await.map_err(|_| gone())?;
        let control = client.control(ReceiverStream::new(out)).await;
        let mut control = control.map_err(|status| self.seen(&status))?.into_inner();
        let first = control.message().await.map_err(|status| self.seen(&status))?.ok_or_else(gone)?;
        let Some(challenge) = wire::challenge_from_master(&first) else { return refused(control, first) };
        let challenge = challenge.map_err(|error| Unreached::seen(error.to_string()))?;
        let transcript = Transcript { worker, master: challenge.nonce, certificate, version: hello.protocol };
        let token = self.credentials.token.as_ref().map(Token::secret);
        if token.is_some() && !challenge.token_needed {
            let text = "it has no token, so it cannot prove that it is the right one: start it with this worker's LD_TOKEN or --token-file";
            return Err(self.distrusted(text, true));
        }
        let proof = wire::Proof {
            token: token.map(|token| transcript.prove(Role::Worker, token)).unwrap_or_default(),
            session: hello.returning.map(|r| transcript.prove(Role::Session, &r.secret)).unwrap_or_default(),
        };
        up.send(wire::proof_to_master(proof)).await.map_err(|_| gone())?;
        let second = control.message().await.map_err(|status| self.seen(&status))?.ok_or_else(gone)?;
        let Some(proof) = wire::proof_from_master(&second) else { return refused(control, second) };
        if token.is_some_and(|token| !transcript.is_proof(Role::Master, token, proof)) {
            let text = "it does not know this worker's token: somebody may stand between them";
            return Err(self.distrusted(text, true));
        }
        if self.credentials.tls.as_ref().is_some_and(|tls| tls.trust(certificate)) {
            tracing::info!(
                "trusting the master's certificate {certificate} for as long as this process lives, because it is \
                 the first; to name it: --ca-fingerprint {certificate}"
            );
        }
        Ok((control, second))
    }

    fn distrusted(&self, text: &str, hopeless: bool) -> Unreached {
        let seen = if hopeless {
            format!("this worker does not trust the master {}: {text}", self.master)
        } else {
            text.to_owned()
        };
        Unreached { hopeless, ..Unreached::seen(seen) }
    }

    /// What ended a stream. TLS 1.3 tells only after its handshake what the master thinks of a certificate.
    fn seen(&self, status: &Status) -> Unreached {
        let text = text_of(status);
        match certificate_refused(&text) {
            Some(why) => Unreached {
                hopeless: true,
                ..Unreached::seen(format!("the master {} refused this worker: {why}", self.master))
            },
            None => ended(text),
        }
    }
}

/// A connection ended before the master had let this worker in. HTTP/2 keeps of the error only its words.
fn ended(text: String) -> Unreached {
    let reset =
        text == "it was closed" || ["reset", "broken pipe"].iter().any(|word| text.to_lowercase().contains(word));
    Unreached { reset, ..Unreached::seen(text) }
}

/// What a TLS alert says of this worker's certificate, if that is why the connection ended.
fn certificate_refused(text: &str) -> Option<String> {
    let alert = text.split("received fatal alert: ").nth(1)?;
    match alert {
        "CertificateRequired" => Some(
            "it wants a certificate of this worker's: give it one that its --tls-client-ca signed by --tls-cert CERT,KEY"
                .to_owned(),
        ),
        // the second: an authority of the same name and another key
        "UnknownCA" | "DecryptError" => Some("its --tls-client-ca did not sign the certificate of this worker's --tls-cert".to_owned()),
        "CertificateExpired" => {
            Some("by its clock the certificate of this worker's --tls-cert has expired or is not valid yet".to_owned())
        }
        "BadCertificate" | "UnsupportedCertificate" | "CertificateRevoked" | "CertificateUnknown" | "AccessDenied"
        => Some(format!("it does not take the certificate of this worker's --tls-cert ({alert})")),
        _ => None,
    }
}

type Client = ClusterClient<tonic::transport::Channel>;
type Control = tonic::Streaming<wire::v1::FromMaster>;
type ToShell = mpsc::Sender<Result<ToWorker, Unreached>>;
type Io<S> = tokio_util::either::Either<S, TlsStream<S>>;

/// The only message that may come before the handshake is over is a refusal: a welcome without proof
/// lets nobody in.
fn refused(control: Control, message: wire::v1::FromMaster) -> Result<(Control, wire::v1::FromMaster), Unreached> {
    match wire::control_from_master(message.clone()) {
        Ok(ToWorker::Refused(_)) => Ok((control, message)),
        _ => Err(Unreached::seen("it does not keep to the handshake of cluster.proto")),
    }
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
    client: Client,
    (first, mut control): (wire::v1::FromMaster, Control),
    results_up: mpsc::Sender<wire::v1::ResultsFromWorker>,
    results_out: mpsc::Receiver<wire::v1::ResultsFromWorker>,
    to_shell: ToShell,
) {
    let mut unopened = Some((results_up, results_out));
    let mut next = Ok(Some(first));
    loop {
        let message = match next {
            Ok(Some(message)) => wire::control_from_master(message).map_err(|error| Unreached::seen(error.to_string())),
            Ok(None) => return,
            Err(status) => Err(Unreached::seen(text_of(&status))),
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
                    Err(status) => return drop(to_shell.send(Err(Unreached::seen(text_of(&status)))).await),
                };
                loop {
                    let message = tokio::select! {
                        message = acks.message() => message,
                        () = to_shell.closed() => return,
                    };
                    let message = match message {
                        Ok(Some(message)) => {
                            wire::results_from_master(message).map_err(|error| Unreached::seen(error.to_string()))
                        }
                        Ok(None) => return,
                        Err(status) => Err(Unreached::seen(text_of(&status))),
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
        next = tokio::select! {
            message = control.message() => message,
            () = to_shell.closed() => return,
        };
    }
}

/// What ended a stream, as far as it is known.
pub fn text_of(status: &Status) -> String {
    match std::error::Error::source(status) {
        Some(source) => cause::of(source),
        None if status.message().is_empty() => status.code().to_string(),
        None => status.message().to_owned(),
    }
}

/// Hands out one connection once: tonic would otherwise reconnect behind our back, and a second
/// connection is a second worker.
struct Once<S>(Option<Io<S>>);

impl<S: Socket> Service<Uri> for Once<S> {
    type Response = hyper_util::rt::TokioIo<Io<S>>;
    type Error = io::Error;
    type Future = Ready<Result<Self::Response, io::Error>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), io::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _uri: Uri) -> Self::Future {
        let stream = self.0.take().ok_or_else(|| io::Error::other("the connection ended"));
        ready(stream.map(hyper_util::rt::TokioIo::new))
    }
}
