//! A certificate that the target makes for itself.

use rcgen::{CertificateParams, KeyPair};
use rustls::ServerConfig;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use std::io;
use std::net::IpAddr;
use std::sync::Arc;

/// Server settings with a fresh certificate for `localhost` and the addresses, and the certificate
/// as PEM for those who want to trust it.
pub(super) fn self_signed(addresses: &[IpAddr]) -> io::Result<(Arc<ServerConfig>, String)> {
    let mut names = vec!["localhost".to_owned()];
    names.extend(addresses.iter().filter(|a| !a.is_unspecified()).map(ToString::to_string));
    let key = KeyPair::generate().map_err(io::Error::other)?;
    let certificate =
        CertificateParams::new(names).and_then(|params| params.self_signed(&key)).map_err(io::Error::other)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .map_err(io::Error::other)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok((Arc::new(config), certificate.pem()))
}
