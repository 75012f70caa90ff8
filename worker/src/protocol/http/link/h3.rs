//! HTTP/3: QUIC connections, and what travels over them.

mod failure;

use super::{Broken, Kind, Link, closed};
use crate::dial::{DialError, Dialer, Host, Stamps, TlsSettings};
use crate::probe::Probe;
use crate::protocol::http::answer::Answer;
use crate::protocol::http::message::Message;
use crate::protocol::http::origin::Origin;
use crate::protocol::http::version::Way;
use bytes::{Buf, Bytes};
use h3::client::{RequestStream, SendRequest};
use h3::error::{Code, StreamError};
use h3_quinn::{BidiStream, OpenStreams};
use ld_shared::sample::{Failure, FailureKind};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Endpoint, EndpointConfig, TransportConfig, VarInt};
use std::cell::{Cell, RefCell};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;

/// What the peer may send before we have read it: of one answer, and of all.
const WINDOWS: (u32, u32) = (1 << 20, 4 << 20);
/// Most bytes of an answer's head.
const MAX_HEAD: u64 = 256 * 1024;
/// Connections of idle users stay open, as those of HTTP/1.1 do, and dead peers are noticed.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// How long an address may be silent before the next one is tried; the last one has all the time.
const SILENCE: Duration = Duration::from_secs(2);
/// Room for datagrams that arrive while the core is busy: all its connections share one socket.
const RECEIVE_BUFFER: usize = 4 << 20;

/// Sockets and settings of one core: made when first needed.
#[derive(Default)]
pub(in super::super) struct Quic {
    v4: RefCell<Option<Endpoint>>,
    v6: RefCell<Option<Endpoint>>,
    configs: RefCell<Vec<(bool, ClientConfig)>>,
}

impl Quic {
    /// A connection to `origin` in at most `limit` seconds.
    pub(in super::super) async fn open(
        &self,
        dialer: &Dialer,
        origin: &Rc<Origin>,
        tls: &TlsSettings,
        limit: f64,
        stamps: &mut Stamps<'_>,
    ) -> Result<Link, Failure> {
        let config = self.config(tls, origin.verify)?;
        let limit = Duration::try_from_secs_f64(limit).unwrap_or(Duration::MAX);
        let dial = self.dial(dialer, origin, &config, stamps);
        let Ok(dialled) = tokio::time::timeout(limit, dial).await else {
            return Err(Failure::new(FailureKind::Timeout, "connection timed out"));
        };
        let connection = dialled.map_err(|error| {
            if error.is_local {
                stamps.on(Probe::local_error);
            }
            error.failure
        })?;
        Ok(Link::new(origin, Way::H3, Kind::H3(Connection::over(connection).await?)))
    }

    /// The first address that answers. One where nobody listens is silent.
    async fn dial(
        &self,
        dialer: &Dialer,
        origin: &Origin,
        config: &ClientConfig,
        stamps: &mut Stamps<'_>,
    ) -> Result<quinn::Connection, DialError> {
        let addresses = dialer.addresses(&origin.dialled, origin.port, stamps).await?;
        let mut last = None;
        let most = addresses.len();
        for (at, address) in addresses.into_iter().enumerate() {
            let remote = SocketAddr::new(address, origin.port);
            let endpoint = self.endpoint(address).map_err(|error| DialError::connect(&error))?;
            let connecting = endpoint
                .connect_with(config.clone(), remote, &origin.host)
                .map_err(|_| failure::of_dial(Failure::new(FailureKind::Connect, "an address that QUIC cannot use")))?;
            let silence = if at + 1 < most { SILENCE } else { Duration::MAX };
            match tokio::time::timeout(silence, connecting).await {
                Ok(Ok(connection)) => {
                    if let Host::Name(name) = &origin.dialled {
                        dialer.worked(name, address);
                    }
                    // one handshake is both
                    stamps.on(Probe::connected);
                    stamps.on(Probe::secured);
                    return Ok(connection);
                }
                Ok(Err(error)) => last = Some(failure::of_handshake(&error)),
                Err(_) => last = Some(Failure::new(FailureKind::Timeout, "connection timed out")),
            }
        }
        if let Host::Name(name) = &origin.dialled {
            dialer.forget(name);
        }
        Err(last.map_or_else(DialError::unresolved, failure::of_dial))
    }

    fn endpoint(&self, address: IpAddr) -> io::Result<Endpoint> {
        let (cell, any) = match address {
            IpAddr::V4(_) => (&self.v4, SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0))),
            IpAddr::V6(_) => (&self.v6, SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0))),
        };
        let mut made = cell.borrow_mut();
        if let Some(endpoint) = &*made {
            return Ok(endpoint.clone());
        }
        let socket = std::net::UdpSocket::bind(any)?;
        // as much as this machine lets us
        socket2::SockRef::from(&socket).set_recv_buffer_size(RECEIVE_BUFFER).ok();
        let endpoint = Endpoint::new(EndpointConfig::default(), None, socket, Arc::new(quinn::TokioRuntime))?;
        Ok(made.insert(endpoint).clone())
    }

    fn config(&self, tls: &TlsSettings, verify: bool) -> Result<ClientConfig, Failure> {
        if let Some((_, made)) = self.configs.borrow().iter().find(|(of, _)| *of == verify) {
            return Ok(made.clone());
        }
        let refused = |why: String| Failure::new(FailureKind::Tls, why);
        let tls = tls.config(verify, Way::H3.alpn()).map_err(|error| refused(error.to_string()))?;
        let crypto = QuicClientConfig::try_from(tls).map_err(|error| refused(format!("tls: {error}")))?;
        let mut config = ClientConfig::new(Arc::new(crypto));
        let mut transport = TransportConfig::default();
        transport
            .stream_receive_window(VarInt::from_u32(WINDOWS.0))
            .receive_window(VarInt::from_u32(WINDOWS.1))
            .max_concurrent_bidi_streams(VarInt::from_u32(0))
            .keep_alive_interval(Some(KEEP_ALIVE));
        config.transport_config(Arc::new(transport));
        self.configs.borrow_mut().push((verify, config.clone()));
        Ok(config)
    }
}

/// An open connection; a task of its core reads what is no answer.
pub(super) struct Connection {
    quic: quinn::Connection,
    sender: SendRequest<OpenStreams, Bytes>,
    /// It will take no more requests.
    is_over: Rc<Cell<bool>>,
    driver: JoinHandle<()>,
    /// Bytes of datagrams that exchanges have counted as theirs.
    claimed: Cell<(u64, u64)>,
}

impl Connection {
    async fn over(quic: quinn::Connection) -> Result<Self, Failure> {
        let over = h3_quinn::Connection::new(quic.clone());
        let (mut connection, sender) = h3::client::builder()
            .max_field_section_size(MAX_HEAD)
            .send_grease(false)
            .build(over)
            .await
            .map_err(|error| failure::of_connection(&error, &quic))?;
        let is_over = Rc::new(Cell::new(false));
        let shared = Rc::clone(&is_over);
        let driver = tokio::task::spawn_local(async move {
            connection.wait_idle().await;
            shared.set(true);
        });
        Ok(Self { quic, sender, is_over, driver, claimed: Cell::default() })
    }

    pub(super) fn is_open(&self) -> bool {
        !self.is_over.get() && self.quic.close_reason().is_none()
    }

    pub(super) async fn exchange(
        &self,
        message: &Message,
        answer: &mut Answer,
        stamps: &mut Stamps<'_>,
    ) -> Result<(), Broken> {
        let outcome = self.run(message, answer, stamps).await;
        let stats = self.quic.stats();
        let all = (stats.udp_rx.bytes, stats.udp_tx.bytes);
        let before = self.claimed.replace(all);
        answer.received += all.0 - before.0;
        stamps.on(|probe| probe.sent(all.1 - before.1));
        outcome
    }

    async fn run(&self, message: &Message, answer: &mut Answer, stamps: &mut Stamps<'_>) -> Result<(), Broken> {
        let stream = self.sender.clone().send_request(message.head.clone()).await;
        let mut open = Open { stream: stream.map_err(|error| self.broken(&error))?, is_done: false };
        let stream = &mut open.stream;
        if !message.body.is_empty() {
            self.unless_stopped(stream.send_data(message.body.clone()).await)?;
        }
        self.unless_stopped(stream.finish().await)?;
        stamps.on(|probe| probe.written(0));
        let head = loop {
            let head = stream.recv_response().await;
            stamps.on(Probe::received);
            let head = head.map_err(|error| self.broken(&error))?;
            if !head.status().is_informational() {
                break head;
            }
        };
        let length = answer.take_head(head.status().as_u16(), head.headers())?;
        loop {
            let data = stream.recv_data().await;
            stamps.on(Probe::received);
            let Some(mut data) = data.map_err(|error| self.broken(&error))? else { break };
            while data.has_remaining() {
                let part = data.chunk();
                let taken = part.len();
                answer.take_data(part)?;
                data.advance(taken);
            }
        }
        open.is_done = true;
        answer.take_end(length)?;
        Ok(())
    }

    /// A peer may answer without having read the whole request: reading decides.
    fn unless_stopped(&self, sent: Result<(), StreamError>) -> Result<(), Broken> {
        match sent {
            Ok(()) | Err(StreamError::RemoteTerminate { .. }) => Ok(()),
            Err(error) => Err(self.broken(&error)),
        }
    }

    fn broken(&self, error: &StreamError) -> Broken {
        let is_goodbye = matches!(error, StreamError::RemoteClosing { .. });
        // said here: the next request must not come before the connection's task has seen it
        if is_goodbye || matches!(error, StreamError::ConnectionError { .. }) {
            self.is_over.set(true);
        }
        if is_goodbye {
            return Broken { failure: closed("GOAWAY"), is_unseen: true };
        }
        failure::of_stream(error, &self.quic).into()
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
        self.quic.close(code(Code::H3_NO_ERROR), b"");
    }
}

fn code(code: Code) -> VarInt {
    VarInt::from_u64(code.value()).unwrap_or_default()
}

/// A request's stream, reset if it is dropped before the end of the answer.
struct Open {
    stream: RequestStream<BidiStream<Bytes>, Bytes>,
    is_done: bool,
}

impl Drop for Open {
    fn drop(&mut self) {
        if !self.is_done {
            self.stream.stop_stream(Code::H3_REQUEST_CANCELLED);
            // The other half tells the peer to stop when it is dropped. Telling it here would panic:
            // h3-quinn has lent that half to a read that is under way.
        }
    }
}
