//! Dialling: from a host name to an open stream, with or without TLS. Every protocol uses it.
//!
//! Nothing here keeps time: callers bound a dial by their own deadline.

mod failure;
mod names;
mod stream;
mod tls;

pub use failure::{DialError, NO_PROTOCOL, of_io};
pub use names::Names;
pub use stream::Stream;
pub use tls::{Alpn, TlsError, TlsSettings};

use crate::probe::Probe;
use ld_shared::boot::clock::mono;
use ld_shared::plan::Plan;
use ld_shared::sample::{Failure, FailureKind};
use ld_shared::targets::TargetList;
use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpStream, UdpSocket, UnixStream};

/// Where to connect.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    /// A name that must be resolved.
    Name(Rc<str>),
    /// An address.
    Address(IpAddr),
}

impl Host {
    /// From the host of a URL, IPv6 without its brackets.
    pub fn new(text: &str) -> Self {
        text.parse().map_or_else(|_| Self::Name(text.into()), Self::Address)
    }
}

/// Where stamps go: to the probe of the exchange, or nowhere (later hops of a redirect chain, which
/// is one request).
pub struct Stamps<'a>(pub Option<&'a mut Probe>);

impl Stamps<'_> {
    /// Takes a stamp.
    pub fn on(&mut self, stamp: impl FnOnce(&mut Probe)) {
        if let Some(probe) = &mut self.0 {
            stamp(probe);
        }
    }
}

/// After a connection for which this machine had no port or file, so long none is tried to that address, ns: a
/// search through ports that are all taken costs milliseconds, and would be all that a core does.
const TRY_AGAIN_AFTER: u64 = 10_000_000;

/// The dialler of one load core.
#[derive(Default)]
pub struct Dialer {
    names: Names,
    /// Each must allow a target.
    lists: Vec<TargetList>,
    /// The newest limit of this machine that was met: to which address, until when it is believed to hold.
    exhausted: RefCell<Option<(SocketAddr, u64, DialError)>>,
}

impl Dialer {
    /// A dialler for a plan: it asks its lists about every address before it connects to it.
    pub fn of(plan: &Plan) -> Self {
        Self { lists: plan.allow_targets.clone(), ..Self::default() }
    }

    /// An open stream to `host`, with TLS if there is a `config` for it, in at most `limit` seconds.
    /// A limit of this machine is marked in the stamps ([`Probe::local_error`]).
    ///
    /// Cancel safe.
    pub async fn open(
        &self,
        host: &Host,
        port: u16,
        config: Option<Arc<rustls::ClientConfig>>,
        limit: f64,
        stamps: &mut Stamps<'_>,
    ) -> Result<Stream, Failure> {
        let dial = async {
            let tcp = self.tcp(host, port, stamps).await?;
            match config {
                Some(config) => self.tls(tcp, host, config, stamps).await,
                None => Ok(Stream::Plain(tcp)),
            }
        };
        let dialled = within(limit, dial).await?;
        marked(dialled, stamps)
    }

    /// An open stream to the Unix socket at `path`; the rest as [`Self::open`]. A list of addresses
    /// that may be dialled holds no path: with one, none may.
    pub async fn unix(&self, path: &str, limit: f64, stamps: &mut Stamps<'_>) -> Result<Stream, Failure> {
        if !self.lists.is_empty() {
            return Err(DialError::forbidden().failure);
        }
        let dialled = within(limit, UnixStream::connect(path)).await?.map_err(|error| DialError::connect(&error));
        if dialled.is_ok() {
            stamps.on(Probe::connected);
        }
        marked(dialled.map(Stream::Unix), stamps)
    }

    /// A UDP socket that sends to, and receives from, the first address of `host` that there is a
    /// way to; the rest as [`Self::open`].
    pub async fn udp(&self, host: &Host, port: u16, limit: f64, stamps: &mut Stamps<'_>) -> Result<UdpSocket, Failure> {
        let bind = async {
            let name = match host {
                Host::Address(address) => return self.bind(host, *address, port).await,
                Host::Name(name) => name,
            };
            let addresses = self.names.resolve(name).await?;
            stamps.on(Probe::resolved);
            let mut last = None;
            for address in addresses {
                match self.bind(host, address, port).await {
                    Ok(socket) => return Ok(socket),
                    Err(error) if error.is_local => return Err(error),
                    Err(error) => last = Some(error),
                }
            }
            self.names.forget(name);
            Err(last.unwrap_or_else(DialError::unresolved))
        };
        let bound = within(limit, bind).await?;
        marked(bound, stamps)
    }

    /// Connects to the first address of `host` that answers. Stamps the name's resolution and the
    /// connection.
    ///
    /// Cancel safe.
    pub async fn tcp(&self, host: &Host, port: u16, stamps: &mut Stamps<'_>) -> Result<TcpStream, DialError> {
        let name = match host {
            Host::Address(address) => return self.connect(host, *address, port, stamps).await,
            Host::Name(name) => name,
        };
        let addresses = self.names.resolve(name).await?;
        stamps.on(Probe::resolved);
        let mut last = None;
        for address in addresses {
            match self.connect(host, address, port, stamps).await {
                Ok(stream) => {
                    self.worked(name, address);
                    return Ok(stream);
                }
                // A limit of ours holds for the other addresses too.
                Err(error) if error.is_local => return Err(error),
                Err(error) => last = Some(error),
            }
        }
        self.forget(name);
        Err(last.unwrap_or_else(DialError::unresolved))
    }

    /// Addresses of `host` that may be dialled, in the order in which they should be tried, for
    /// transports that connect by themselves. Stamps the name's resolution.
    pub async fn addresses(&self, host: &Host, port: u16, stamps: &mut Stamps<'_>) -> Result<Vec<IpAddr>, DialError> {
        let mut addresses = match host {
            Host::Address(address) => vec![*address],
            Host::Name(name) => {
                let addresses = self.names.resolve(name).await?;
                stamps.on(Probe::resolved);
                addresses
            }
        };
        addresses.retain(|address| self.may_dial(host, *address, port));
        if addresses.is_empty() { Err(DialError::forbidden()) } else { Ok(addresses) }
    }

    /// An address of the name answered: its family is tried first from now on.
    pub fn worked(&self, name: &Rc<str>, address: IpAddr) {
        self.names.worked(name, address);
    }

    /// No address of the name answered: it is asked for again.
    pub fn forget(&self, name: &Rc<str>) {
        self.names.forget(name);
    }

    fn may_dial(&self, host: &Host, address: IpAddr, port: u16) -> bool {
        let by_name = |list: &TargetList, name: &str| list.allows(name, address, port);
        self.lists.iter().all(|list| match host {
            Host::Name(name) => by_name(list, name),
            Host::Address(itself) => by_name(list, &itself.to_string()),
        })
    }

    /// TLS over an open stream. Stamps the handshake.
    pub async fn tls(
        &self,
        tcp: TcpStream,
        host: &Host,
        config: Arc<rustls::ClientConfig>,
        stamps: &mut Stamps<'_>,
    ) -> Result<Stream, DialError> {
        let name = tls::server_name(host)?;
        let stream = tokio_rustls::TlsConnector::from(config)
            .connect(name, tcp)
            .await
            .map_err(|error| DialError::handshake(&error))?;
        stamps.on(Probe::secured);
        Ok(Stream::Tls(Box::new(stream)))
    }

    /// A UDP socket whose peer is `address`.
    async fn bind(&self, host: &Host, address: IpAddr, port: u16) -> Result<UdpSocket, DialError> {
        if !self.may_dial(host, address, port) {
            return Err(DialError::forbidden());
        }
        let any: IpAddr = if address.is_ipv6() { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
        let socket = UdpSocket::bind((any, 0)).await.map_err(|error| DialError::bind(&error))?;
        socket.connect(SocketAddr::new(address, port)).await.map_err(|error| DialError::connect(&error))?;
        Ok(socket)
    }

    async fn connect(
        &self,
        host: &Host,
        address: IpAddr,
        port: u16,
        stamps: &mut Stamps<'_>,
    ) -> Result<TcpStream, DialError> {
        if !self.may_dial(host, address, port) {
            return Err(DialError::forbidden());
        }
        let to = SocketAddr::new(address, port);
        if let Some(error) = self.exhausted(to) {
            return Err(error);
        }
        let stream = TcpStream::connect(to).await.map_err(|error| self.noted(to, DialError::connect(&error)))?;
        // A request goes out in one write: waiting for more to fill a segment only delays it.
        stream.set_nodelay(true).map_err(|error| DialError::connect(&error))?;
        stamps.on(Probe::connected);
        Ok(stream)
    }
}

impl Dialer {
    /// Why this machine can open no connection to this address now, as far as is known.
    fn exhausted(&self, to: SocketAddr) -> Option<DialError> {
        let exhausted = self.exhausted.borrow();
        exhausted.as_ref().filter(|(at, until, _)| *at == to && mono().0 < *until).map(|(.., error)| error.clone())
    }

    /// Remembers an error if it is a limit of this machine.
    fn noted(&self, to: SocketAddr, error: DialError) -> DialError {
        if error.is_local {
            self.exhausted.replace(Some((to, mono().0 + TRY_AGAIN_AFTER, error.clone())));
        }
        error
    }
}

/// What comes of `work` in at most `limit` seconds.
async fn within<T>(limit: f64, work: impl Future<Output = T>) -> Result<T, Failure> {
    let limit = Duration::try_from_secs_f64(limit).unwrap_or(Duration::MAX);
    tokio::time::timeout(limit, work).await.map_err(|_| Failure::new(FailureKind::Timeout, "connection timed out"))
}

/// A dial's outcome; a limit of this machine is marked in the stamps.
fn marked<T>(dialled: Result<T, DialError>, stamps: &mut Stamps<'_>) -> Result<T, Failure> {
    dialled.map_err(|error| {
        if error.is_local {
            stamps.on(Probe::local_error);
        }
        error.failure
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    #[tokio::test]
    async fn a_limit_of_this_machine_is_believed_for_a_while_and_for_one_address() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback has free ports");
        let to = listener.local_addr().expect("it is bound");
        let other = SocketAddr::new(to.ip(), to.port() ^ 1);
        let dialer = Dialer::default();
        let host = Host::Address(to.ip());
        let error = dialer.noted(to, DialError::connect(&io::Error::from(rustix::io::Errno::ADDRNOTAVAIL)));
        assert_eq!((dialer.exhausted(to), dialer.exhausted(other)), (Some(error.clone()), None));
        let refused = DialError::connect(&io::Error::from(rustix::io::Errno::CONNREFUSED));
        dialer.noted(other, refused);
        assert_eq!(dialer.tcp(&host, to.port(), &mut Stamps(None)).await.err(), Some(error), "nothing else is a limit");
        tokio::time::sleep(Duration::from_nanos(TRY_AGAIN_AFTER)).await;
        dialer.tcp(&host, to.port(), &mut Stamps(None)).await.expect("it is tried again, and somebody listens");
    }
}
