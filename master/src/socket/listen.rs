//! Where the control socket listens, and its certificate.

use super::SocketError;
use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// Connections that wait to be taken.
const BACKLOG: i32 = 1024;

/// Listens on every address of a host: `localhost` is IPv4 and IPv6. The port 0 is a free one, the same
/// for all of them.
pub(super) async fn listen(host: &str, port: u16) -> Result<Vec<TcpListener>, SocketError> {
    let failed = |source| SocketError::Listen { host: host.to_owned(), port, source };
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let mut addresses: Vec<SocketAddr> = tokio::net::lookup_host((bare, port)).await.map_err(failed)?.collect();
    if bare == "localhost" {
        // it is both, whatever the machine's tables say
        addresses = ["127.0.0.1", "::1"].map(|ip| SocketAddr::new(ip.parse().expect("an address"), port)).into();
    }
    addresses.sort_unstable();
    addresses.dedup();
    let mut listeners: Vec<TcpListener> = Vec::new();
    let mut refusal = None;
    for mut address in addresses {
        if let Some(first) = listeners.first() {
            address.set_port(first.local_addr().map_err(failed)?.port());
        }
        match listen_on(address) {
            Ok(listener) => listeners.push(listener),
            // a machine without IPv6 has no ::1
            Err(error) if is_no_such_address(&error) => refusal = Some(error),
            Err(error) => return Err(failed(error)),
        }
    }
    match refusal {
        Some(error) if listeners.is_empty() => Err(failed(error)),
        _ if listeners.is_empty() => Err(failed(io::Error::other("the name has no address"))),
        _ => Ok(listeners),
    }
}

fn listen_on(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // connections of the one before may still be closing
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    if let SocketAddr::V6(v6) = address {
        // `::` is everything, IPv4 too
        socket.set_only_v6(!v6.ip().is_unspecified())?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

fn is_no_such_address(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::AddrNotAvailable | io::ErrorKind::Unsupported)
        || error.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error())
}

/// TLS 1.2 or later with the certificate of these files; both or neither.
pub(super) fn acceptor(cert: Option<&Path>, key: Option<&Path>) -> Result<Option<TlsAcceptor>, SocketError> {
    let (cert, key) = match (cert, key) {
        (None, None) => return Ok(None),
        (Some(cert), Some(key)) => (cert, key),
        (Some(_), None) => return Err(SocketError::HalfTls { given: "certificate", missing: "key" }),
        (None, Some(_)) => return Err(SocketError::HalfTls { given: "key", missing: "certificate" }),
    };
    let unusable = |path: &Path, source: Box<dyn std::error::Error + Send + Sync>| SocketError::Certificate {
        path: PathBuf::from(path),
        source,
    };
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(cert)
        .and_then(Iterator::collect)
        .map_err(|error| unusable(cert, Box::new(error)))?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| unusable(key, Box::new(error)))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, private))
        .map_err(|error| unusable(cert, Box::new(error)))?;
    Ok(Some(TlsAcceptor::from(Arc::new(config))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn localhost_is_both_families_on_one_port() {
        let listeners = listen("localhost", 0).await.unwrap();
        let addresses: Vec<SocketAddr> = listeners.iter().map(|listener| listener.local_addr().unwrap()).collect();
        assert!(addresses.iter().all(|address| address.port() == addresses[0].port() && address.ip().is_loopback()));
        assert!(addresses[0].is_ipv4());
        let taken = listen("127.0.0.1", addresses[0].port()).await;
        assert!(matches!(taken, Err(SocketError::Listen { .. })));
    }

    #[test]
    fn one_file_alone_is_an_error() {
        let file = Path::new("x.pem");
        assert!(matches!(acceptor(Some(file), None), Err(SocketError::HalfTls { missing: "key", .. })));
        assert!(matches!(acceptor(None, Some(file)), Err(SocketError::HalfTls { missing: "certificate", .. })));
        assert!(matches!(acceptor(Some(file), Some(file)), Err(SocketError::Certificate { .. })));
        assert!(acceptor(None, None).unwrap().is_none());
    }
}
