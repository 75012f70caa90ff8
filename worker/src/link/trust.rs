//! Which master a worker trusts: the one whose certificate it knows, or the first that it meets.

use super::socket::Socket;
use ld_shared::handshake::Fingerprint;
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::{AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio_rustls::client::TlsStream;

/// TLS to the master, which it knows by its certificate's fingerprint.
///
/// No authority vouches for a certificate that a master made for itself, and no name is checked: the
/// fingerprint says which certificate it is, the handshake's signature that the peer has its key.
#[derive(Clone, Debug)]
pub struct Tls {
    config: Arc<ClientConfig>,
    known: Arc<Mutex<Known>>,
}

#[derive(Debug, Default)]
struct Known {
    /// The only certificate that is trusted, once there is one.
    trusted: Option<Fingerprint>,
    /// It was named, not met.
    pinned: bool,
    /// One that was refused.
    refused: Option<Fingerprint>,
}

/// Why TLS did not come about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotSecured {
    /// A sentence: what was seen, and what to do.
    pub text: String,
    /// Trying again cannot help.
    pub hopeless: bool,
    /// The connection was reset or closed before anything was said.
    pub reset: bool,
}

/// A worker's own certificate that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file holds none of what it should.
    #[error("cannot read the {what} `{path}`: {cause}; expected PEM")]
    Unreadable {
        /// What of it.
        what: &'static str,
        /// The file.
        path: String,
        /// What the reader said.
        cause: String,
    },
    /// The library refused it.
    #[error("certificate and key cannot be used: {}", unusable(.0))]
    Refused(#[from] rustls::Error),
}

/// Why a certificate or its key cannot be used, in words that tell what to do.
pub fn unusable(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InconsistentKeys(_) => "the key is not that of the certificate".to_owned(),
        other if other.to_string().contains("UnsupportedCertVersion") => {
            "the certificate is of X.509 version 1, without extensions; make one of version 3".to_owned()
        }
        other => other.to_string(),
    }
}

impl Tls {
    /// Trusts the certificate of that fingerprint; without one the first that it meets. Shows
    /// certificate and key, if there are some, to a master that asks.
    pub fn new(pinned: Option<Fingerprint>, identity: Option<(&Path, &Path)>) -> Result<Self, IdentityError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let known = Arc::new(Mutex::new(Known { trusted: pinned, pinned: pinned.is_some(), refused: None }));
        let verifier = Fingerprinted { known: Arc::clone(&known), provider: Arc::clone(&provider) };
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = match identity {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => builder.with_client_auth_cert(chain_of(chain)?, key_of(key)?)?,
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        // every handshake shows the certificate
        config.resumption = Resumption::disabled();
        Ok(Self { config: Arc::new(config), known })
    }

    /// TLS over a connection to the master, and the fingerprint that it showed.
    pub async fn secure<S: Socket>(&self, tcp: S) -> Result<(TlsStream<S>, Fingerprint), NotSecured> {
        // the name is only shown, never checked
        let name = ServerName::try_from("loaddensity-master").expect("this is a valid name");
        let connector = tokio_rustls::TlsConnector::from(Arc::clone(&self.config));
        let stream = connector.connect(name, tcp).await.map_err(|error| self.explain(&error))?;
        let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        let fingerprint = Fingerprint::of(shown.expect("TLS 1.3 without resumption shows a certificate"));
        Ok((stream, fingerprint))
    }

    /// The master of that certificate let this worker in: no other is trusted from now on. `true`:
    /// it was not known before.
    pub fn trust(&self, fingerprint: Fingerprint) -> bool {
        let mut known = self.known();
        if known.trusted.is_some() {
            return false;
        }
        known.trusted = Some(fingerprint);
        true
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn explain(&self, error: &io::Error) -> NotSecured {
        let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        let known = self.known();
        let text = match tls {
            Some(rustls::Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure)) => {
                let show = |of: Option<Fingerprint>| of.map(|of| of.to_string()).unwrap_or_default();
                let (shown, trusted) = (show(known.refused), show(known.trusted));
                let why = if known.pinned {
                    format!("--ca-fingerprint names {trusted}: compare it with what the master printed")
                } else {
                    format!(
                        "it was {trusted} when this worker first joined: if the master is a new one, start this worker anew"
                    )
                };
                format!("it shows the certificate {shown}, and {why}")
            }
            Some(
                rustls::Error::InvalidMessage(_) | rustls::Error::AlertReceived(AlertDescription::ProtocolVersion),
            ) => "it does not speak TLS: if it was started with --tls off, give this worker --tls off too".to_owned(),
            _ => {
                return NotSecured { text: format!("TLS: {error}"), hopeless: false, reset: is_reset(error) };
            }
        };
        NotSecured { text, hopeless: true, reset: false }
    }
}

/// Whether the other end's system ended a connection that stood.
pub fn is_reset(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof)
}

fn chain_of(path: &Path) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    let unreadable = |cause| IdentityError::Unreadable { what: "certificate", path: path.display().to_string(), cause };
    let pem = std::fs::read(path).map_err(|error| unreadable(error.to_string()))?;
    let chain = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| unreadable(error.to_string()))?;
    if chain.is_empty() { Err(unreadable("it holds no certificate".to_owned())) } else { Ok(chain) }
}

fn key_of(path: &Path) -> Result<PrivateKeyDer<'static>, IdentityError> {
    let unreadable = |cause| IdentityError::Unreadable { what: "key", path: path.display().to_string(), cause };
    let pem = std::fs::read(path).map_err(|error| unreadable(error.to_string()))?;
    PrivateKeyDer::from_pem_slice(&pem).map_err(|error| unreadable(error.to_string()))
}

/// Takes the known certificate, or any if none is known yet, and checks in either case that the
/// peer has its key: who only copied a certificate cannot sign the handshake.
#[derive(Debug)]
struct Fingerprinted {
    known: Arc<Mutex<Known>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Fingerprinted {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let shown = Fingerprint::of(end_entity);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.trusted.is_some_and(|trusted| trusted != shown) {
            known.refused = Some(shown);
            return Err(CertificateError::ApplicationVerificationFailure.into());
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::{TcpListener, TcpStream};

    fn certificate() -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        (made.cert.der().clone(), PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap())
    }

    /// One handshake with a server that shows `chain` and signs with `key`.
    async fn meet(
        tls: &Tls,
        chain: &CertificateDer<'static>,
        key: &PrivateKeyDer<'static>,
    ) -> Result<Fingerprint, NotSecured> {
        let signing = aws_lc_rs::sign::any_supported_type(key).unwrap();
        let shown = Arc::new(rustls::sign::CertifiedKey::new(vec![chain.clone()], signing));
        let config = rustls::ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(Always(shown)));
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            let (tcp, _) = listener.accept().await.unwrap();
            acceptor.accept(tcp).await.is_ok()
        });
        let met = tls.secure(TcpStream::connect(address).await.unwrap()).await.map(|(_, fingerprint)| fingerprint);
        server.await.unwrap();
        met
    }

    #[derive(Debug)]
    struct Always(Arc<rustls::sign::CertifiedKey>);

    impl rustls::server::ResolvesServerCert for Always {
        fn resolve(&self, _hello: rustls::server::ClientHello<'_>) -> Option<Arc<rustls::sign::CertifiedKey>> {
            Some(Arc::clone(&self.0))
        }
    }

    #[tokio::test]
    async fn only_the_certificate_that_is_known_and_only_with_its_key() {
        let ((ours, key), (other, other_key)) = (certificate(), certificate());
        let pinned = Tls::new(Some(Fingerprint::of(&ours)), None).unwrap();
        assert_eq!(meet(&pinned, &ours, &key).await, Ok(Fingerprint::of(&ours)));
        let refused = meet(&pinned, &other, &other_key).await.unwrap_err();
        assert!(refused.hopeless && refused.text.contains(&Fingerprint::of(&other).to_string()), "{refused:?}");
        // a copied certificate without its key
        let copied = meet(&pinned, &ours, &other_key).await.unwrap_err();
        assert!(copied.text.contains("TLS"), "{copied:?}");
        let first = Tls::new(None, None).unwrap();
        assert!(meet(&first, &other, &other_key).await.is_ok() && meet(&first, &ours, &key).await.is_ok());
        assert!(first.trust(Fingerprint::of(&ours)) && !first.trust(Fingerprint::of(&other)));
        let refused = meet(&first, &other, &other_key).await.unwrap_err();
        assert!(refused.hopeless && refused.text.contains("first joined"), "{refused:?}");
    }

    #[tokio::test]
    async fn a_master_without_tls_is_told_apart() {
        use tokio::io::AsyncWriteExt as _;
        for said in [b"\x00\x00\x12\x04\x00\x00\x00\x00\x00".as_slice(), b"\x15\x03\x03\x00\x02\x02\x46"] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let server = tokio::spawn(async move {
                let (mut tcp, _) = listener.accept().await.unwrap();
                tcp.write_all(said).await.unwrap();
                tcp
            });
            let tls = Tls::new(None, None).unwrap();
            let refused = tls.secure(TcpStream::connect(address).await.unwrap()).await.unwrap_err();
            assert!(refused.hopeless && refused.text.contains("--tls off"), "{refused:?}");
            server.await.unwrap();
        }
    }
}
