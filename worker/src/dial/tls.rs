//! TLS of clients: what is trusted, who we are.

use super::{DialError, Host};
use bytes::Bytes;
use ld_shared::id::Digest;
use ld_shared::plan::TlsPlan;
use ld_shared::sample::{Failure, FailureKind};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

/// A scenario's TLS settings, its files read.
#[derive(Debug)]
pub struct TlsSettings {
    verify: bool,
    roots: Option<Arc<RootCertStore>>,
    identity: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
    /// Made when first needed.
    made: RefCell<Vec<(bool, Alpn, Arc<ClientConfig>)>>,
}

/// Names of protocols that are offered in the handshake, best first.
pub type Alpn = &'static [&'static [u8]];

/// TLS settings that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TlsError {
    /// A file of the plan did not come along.
    #[error("tls: the plan's {0} is not among its blobs")]
    Missing(&'static str),
    /// A file holds none of what it should.
    #[error("tls: cannot read the {what}: {cause}; expected PEM")]
    Unreadable {
        /// Which file.
        what: &'static str,
        /// What the reader said.
        cause: String,
    },
    /// Certificate and key go together.
    #[error("tls: a client certificate needs both certificate and key, only one is given")]
    HalfIdentity,
    /// The library refused the settings.
    #[error("tls: settings refused: {0}")]
    Refused(String),
}

impl From<TlsError> for Failure {
    fn from(error: TlsError) -> Self {
        Self::new(FailureKind::Tls, error.to_string())
    }
}

impl TlsSettings {
    /// From the plan and its blobs.
    pub fn new(plan: &TlsPlan, blobs: &BTreeMap<Digest, Bytes>) -> Result<Self, TlsError> {
        let blob = |digest: &Digest, what| blobs.get(digest).ok_or(TlsError::Missing(what));
        let roots = match &plan.ca {
            None => None,
            Some(digest) => Some(Arc::new(authorities(blob(digest, "certificate authority")?)?)),
        };
        let identity = match (&plan.certificate, &plan.key) {
            (None, None) => None,
            (Some(chain), Some(key)) => {
                Some((chain_of(blob(chain, "client certificate")?)?, key_of(blob(key, "client key")?)?))
            }
            // One file may hold both.
            (Some(both), None) => {
                let pem = blob(both, "client certificate")?;
                Some((chain_of(pem)?, key_of(pem).map_err(|_| TlsError::HalfIdentity)?))
            }
            (None, Some(_)) => return Err(TlsError::HalfIdentity),
        };
        Ok(Self { verify: plan.verify, roots, identity, made: RefCell::default() })
    }

    /// Whether the peer's certificate is checked unless a task says otherwise.
    pub fn verify(&self) -> bool {
        self.verify
    }

    /// Settings for connections that speak one of the protocols `alpn`: made once each.
    pub fn config(&self, verify: bool, alpn: Alpn) -> Result<Arc<ClientConfig>, TlsError> {
        let is_it = |(of, names, _): &&(bool, Alpn, Arc<ClientConfig>)| *of == verify && *names == alpn;
        if let Some((_, _, made)) = self.made.borrow().iter().find(is_it) {
            return Ok(Arc::clone(made));
        }
        let config = self.make(verify, alpn)?;
        self.made.borrow_mut().push((verify, alpn, Arc::clone(&config)));
        Ok(config)
    }

    fn make(&self, verify: bool, alpn: Alpn) -> Result<Arc<ClientConfig>, TlsError> {
        let refused = |error: rustls::Error| TlsError::Refused(error.to_string());
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(refused)?;
        let builder = if verify {
            builder.with_root_certificates(self.roots.clone().unwrap_or_else(system_roots))
        } else {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(Unverified(provider)))
        };
        let mut config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => builder.with_client_auth_cert(chain.clone(), key.clone_key()).map_err(refused)?,
        };
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        Ok(Arc::new(config))
    }
}

/// The name that the peer's certificate must be for.
pub(super) fn server_name(host: &Host) -> Result<ServerName<'static>, DialError> {
    match host {
        Host::Address(address) => Ok(ServerName::from(*address)),
        Host::Name(name) => {
            ServerName::try_from(name.to_string()).map_err(|_| DialError::tls("tls: not a valid server name"))
        }
    }
}

/// Authorities that this machine trusts, read once. None found: nothing is trusted.
fn system_roots() -> Arc<RootCertStore> {
    static ROOTS: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    ROOTS
        .get_or_init(|| {
            let found = rustls_native_certs::load_native_certs();
            for error in &found.errors {
                tracing::warn!(%error, "cannot read a certificate authority of this machine");
            }
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(found.certs);
            Arc::new(roots)
        })
        .clone()
}

fn authorities(pem: &[u8]) -> Result<RootCertStore, TlsError> {
    let unreadable = |cause: String| TlsError::Unreadable { what: "certificate authority", cause };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| unreadable(error.to_string()))?;
        roots.add(certificate).map_err(|error| unreadable(error.to_string()))?;
    }
    if roots.is_empty() { Err(unreadable("it holds no certificate".to_owned())) } else { Ok(roots) }
}

fn chain_of(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let unreadable = |cause: String| TlsError::Unreadable { what: "client certificate", cause };
    let chain = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| unreadable(error.to_string()))?;
    if chain.is_empty() { Err(unreadable("it holds no certificate".to_owned())) } else { Ok(chain) }
}

fn key_of(pem: &[u8]) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(pem)
        .map_err(|error| TlsError::Unreadable { what: "client key", cause: error.to_string() })
}

/// `verify: false`: any peer will do, also one whose certificate no library would read.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
