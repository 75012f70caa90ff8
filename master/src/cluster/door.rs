//! The door of the port for workers: TLS, and bounds on what strangers may cost.
//!
//! Whoever has not yet proved that it may join is a visitor. A visitor has a few seconds and a few
//! kilobytes, and there are only so many at once: the one that has been there longest makes room.

use ld_shared::boot::clock;
use ld_worker::link::socket::{Listen, Socket};
use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::server::Connected;

/// How long the TLS handshake may take.
const SECURED_WITHIN: Duration = Duration::from_secs(5);
/// How long a connection may go without a worker that proved that it may join.
const ADMITTED_WITHIN: Duration = Duration::from_secs(15);
/// How much such a connection may say: a hello and a proof are a hundredth of it.
const MOST_OF_A_VISITOR: usize = 32 * 1024;
/// Such connections at once, if this machine's limit of open files allows it: as many workers may be
/// started in the same moment.
const MOST_VISITORS: usize = 2_000;
/// The least of them.
const LEAST_VISITORS: usize = 100;
/// Peers that are remembered for having been complained of.
const MOST_SUSPECTS: usize = 1_000;
/// How long a connection stays after its last word, which must get through.
const LINGER: Duration = Duration::from_secs(1);
/// After an error of `accept`, as of too many open files.
const PAUSE: Duration = Duration::from_millis(50);
/// First byte of a TLS handshake, and of an HTTP/2 connection without TLS.
const TLS: u8 = 0x16;
const HTTP2: u8 = b'P';
/// "Protocol version": a TLS peer understands that this is no TLS.
const NO_TLS: [u8; 7] = [0x15, 3, 3, 0, 2, 2, 70];

/// Who is at the other end of a connection.
#[derive(Clone, Debug)]
pub(super) struct Peer(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    ip: IpAddr,
    /// It speaks no TLS where it should.
    in_the_clear: AtomicBool,
    admitted: AtomicBool,
    closed: CancellationToken,
    suspects: Arc<Suspects>,
}

impl Peer {
    /// It proved that it may join: it is no visitor any more.
    pub(super) fn admit(&self) {
        self.0.admitted.store(true, Ordering::Relaxed);
    }

    /// Whether it proved that it may join.
    pub(super) fn is_admitted(&self) -> bool {
        self.0.admitted.load(Ordering::Relaxed)
    }

    /// Whether it speaks no TLS where it should.
    pub(super) fn is_in_the_clear(&self) -> bool {
        self.0.in_the_clear.load(Ordering::Relaxed)
    }

    /// Tells people of what it did: once, for who does it once does it a thousand times.
    pub(super) fn complain(&self, what: &str) {
        let ip = self.0.ip;
        if self.0.suspects.is_new(ip) {
            tracing::warn!(peer = %ip, "{what} (said once for this address)");
        } else {
            tracing::debug!(peer = %ip, "{what}");
        }
    }

    /// Cuts the connection, as soon as what was said last had the time to get there.
    pub(super) fn close_soon(&self) {
        let closed = self.0.closed.clone();
        tokio::spawn(async move {
            tokio::time::sleep(LINGER).await;
            closed.cancel();
        });
    }
}

/// Addresses that were complained of. Beyond the limit all are forgotten, and may be named again.
#[derive(Debug, Default)]
struct Suspects(Mutex<BTreeSet<IpAddr>>);

impl Suspects {
    fn is_new(&self, ip: IpAddr) -> bool {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST_SUSPECTS {
            known.clear();
        }
        known.insert(ip)
    }
}

/// Connections of `listener`, secured, until nobody takes them any more.
pub(super) fn connections<L: Listen>(
    listener: L,
    acceptor: Option<TlsAcceptor>,
) -> ReceiverStream<io::Result<Connection<L::Socket>>> {
    let (out, connections) = mpsc::channel(64);
    tokio::spawn(async move {
        let suspects = Arc::new(Suspects::default());
        let mut visitors = VecDeque::new();
        // the other half is for workers
        let files = usize::try_from(ld_worker::limits::load_files() / 2).unwrap_or(MOST_VISITORS);
        let most = files.clamp(LEAST_VISITORS, MOST_VISITORS);
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = out.closed() => return,
            };
            let (tcp, from) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!("cannot take a connection: {error}");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            let peer = Peer(Arc::new(Inner {
                ip: from.ip(),
                in_the_clear: AtomicBool::new(false),
                admitted: AtomicBool::new(false),
                closed: CancellationToken::new(),
                suspects: Arc::clone(&suspects),
            }));
            make_room(&mut visitors, most, peer.clone());
            tokio::spawn(welcome(tcp, peer, acceptor.clone(), out.clone()));
        }
    });
    ReceiverStream::new(connections)
}

/// One more visitor; beyond the limit the oldest must go.
fn make_room(visitors: &mut VecDeque<Peer>, most: usize, new: Peer) {
    visitors.push_back(new);
    if visitors.len() > most {
        visitors.retain(|peer| !peer.is_admitted() && !peer.0.closed.is_cancelled());
    }
    if visitors.len() > most
        && let Some(oldest) = visitors.pop_front()
    {
        oldest.complain(&format!("more than {most} connections without a worker: the oldest are cut"));
        oldest.0.closed.cancel();
    }
}

/// Secures a connection, hands it on, and cuts it if no worker comes of it.
async fn welcome<S: Socket>(
    tcp: S,
    peer: Peer,
    acceptor: Option<TlsAcceptor>,
    out: mpsc::Sender<io::Result<Connection<S>>>,
) {
    let closed = peer.0.closed.clone();
    let began = clock::mono();
    let secured = tokio::select! {
        secured = tokio::time::timeout(SECURED_WITHIN, secure(tcp, &peer, acceptor)) => secured,
        () = closed.cancelled() => return,
    };
    let io = match secured {
        Ok(Ok(io)) => io,
        Ok(Err(error)) => {
            // a probe that only connects, as a health check does, is nobody's fault
            if error.kind() != io::ErrorKind::UnexpectedEof {
                peer.complain(&format!("no TLS came about: {error}"));
            }
            return closed.cancel();
        }
        Err(_) => {
            peer.complain(&format!("no TLS handshake within {SECURED_WITHIN:?}"));
            return closed.cancel();
        }
    };
    let end = Box::pin(closed.clone().cancelled_owned());
    let connection = Connection { io, end, said: 0, peer: peer.clone() };
    if out.send(Ok(connection)).await.is_err() {
        return;
    }
    let left = ADMITTED_WITHIN.saturating_sub(clock::mono().since(began));
    tokio::select! {
        () = tokio::time::sleep(left) => if !peer.is_admitted() {
            peer.complain("a connection without a worker is cut");
            closed.cancel();
        },
        () = closed.cancelled() => {}
    }
}

/// TLS over a connection, or a word to a peer that does not do as we do.
async fn secure<S: Socket>(mut tcp: S, peer: &Peer, acceptor: Option<TlsAcceptor>) -> io::Result<Io<S>> {
    tcp.set_nodelay(true)?;
    let mut first = [0];
    if tcp.peek(&mut first).await? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    match (acceptor, first[0]) {
        (None, TLS) => {
            tcp.write_all(&NO_TLS).await?;
            tcp.shutdown().await?;
            Err(io::Error::other("it speaks TLS, and this master was started with --tls off"))
        }
        (None, _) => Ok(Io::Plain(tcp)),
        (Some(_), HTTP2) => {
            // it is told why, over what it speaks, and gets nothing else
            peer.0.in_the_clear.store(true, Ordering::Relaxed);
            Ok(Io::Plain(tcp))
        }
        (Some(acceptor), _) => Ok(Io::Tls(Box::new(acceptor.accept(tcp).await?))),
    }
}

/// A connection at which somebody may knock.
pub(super) struct Connection<S> {
    io: Io<S>,
    end: Pin<Box<WaitForCancellationFutureOwned>>,
    said: usize,
    peer: Peer,
}

enum Io<S> {
    Plain(S),
    Tls(Box<TlsStream<S>>),
}

impl<S> Drop for Connection<S> {
    fn drop(&mut self) {
        self.peer.0.closed.cancel();
    }
}

impl<S> Connected for Connection<S> {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl<S: Socket> AsyncRead for Connection<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.end.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        let before = buffer.filled().len();
        ready!(match &mut self.io {
            Io::Plain(tcp) => Pin::new(tcp).poll_read(context, buffer),
            Io::Tls(tls) => Pin::new(tls).poll_read(context, buffer),
        })?;
        if !self.peer.is_admitted() {
            self.said += buffer.filled().len() - before;
            if self.said > MOST_OF_A_VISITOR {
                self.peer.complain(&format!("more than {MOST_OF_A_VISITOR} bytes without a worker"));
                return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: Socket> AsyncWrite for Connection<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        // whoever reads nothing must not stay for it
        if self.end.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        match &mut self.io {
            Io::Plain(tcp) => Pin::new(tcp).poll_write(context, bytes),
            Io::Tls(tls) => Pin::new(tls).poll_write(context, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Plain(tcp) => Pin::new(tcp).poll_flush(context),
            Io::Tls(tls) => Pin::new(tls).poll_flush(context),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Plain(tcp) => Pin::new(tcp).poll_shutdown(context),
            Io::Tls(tls) => Pin::new(tls).poll_shutdown(context),
        }
    }
}
