//! What the port for workers is protected by: its certificate, the token, the key of sessions.

use crate::data_dir::DataDir;
use ld_shared::handshake::{Fingerprint, NONCE_BYTES, SessionKey, Token, fresh_nonce};
use ld_shared::targets::TargetList;
use ld_worker::link::trust::unusable;
use rcgen::{CertificateParams, DnType, KeyPair};
use rustls::RootCertStore;
use rustls::crypto::aws_lc_rs;
use rustls::server::{ServerConfig, WebPkiClientVerifier};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio_rustls::TlsAcceptor;

/// Name that the certificate is for, whatever the machine is called.
const NAME: &str = "loaddensity-master";

/// How the port for workers is to be protected, and from what targets are.
#[derive(Clone, Debug, Default)]
pub struct Security {
    /// Where its certificate comes from.
    pub tls: TlsMode,
    /// Only workers with a certificate of this authority may join.
    pub client_ca: Option<PathBuf>,
    /// What workers must know.
    pub token: Option<Token>,
    /// Where certificate and key are kept; `None`: for the life of the process.
    pub data_dir: Option<DataDir>,
    /// Which targets the worker in this process dials, whatever a plan allows; `None`: any.
    pub targets: Option<TargetList>,
}

/// Where the certificate comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum TlsMode {
    /// The master makes one for itself, once, and keeps it.
    #[default]
    Auto,
    /// No TLS.
    Off,
    /// From files.
    Files {
        /// The chain, PEM.
        certificate: PathBuf,
        /// Its key, PEM.
        key: PathBuf,
    },
}

/// Why the port cannot be protected as it should be.
#[derive(Debug, thiserror::Error)]
pub enum SecurityError {
    /// A file of the data folder.
    #[error("cannot keep the {what} in `{}`", folder.display())]
    Keep {
        /// Which.
        what: &'static str,
        /// The folder.
        folder: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file that was named.
    #[error("cannot read the {what} `{}`: {cause}; expected PEM", path.display())]
    Read {
        /// Which.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the reader said.
        cause: String,
    },
    /// Sessions could be guessed with it.
    #[error("the key of sessions `{}` is not whole", .0.display())]
    Key(PathBuf),
    /// The library makes no certificate.
    #[error("cannot make a certificate")]
    Make(#[from] rcgen::Error),
    /// The library refuses a certificate.
    #[error("certificate and key cannot be used: {0}")]
    Refused(String),
    /// The library refuses an authority.
    #[error("the authority of workers' certificates cannot be used: {0}")]
    Authority(String),
}

impl SecurityError {
    /// What to do about it.
    pub fn help(&self) -> Option<String> {
        match self {
            Self::Keep { .. } => {
                Some("name a folder that can be written by --data-dir, or own files by --tls CERT,KEY".into())
            }
            Self::Key(_) => Some("remove it: a new one is made, and workers of a run under way join anew".into()),
            Self::Read { .. } | Self::Make(_) | Self::Refused(_) | Self::Authority(_) => None,
        }
    }
}

impl From<rustls::Error> for SecurityError {
    fn from(error: rustls::Error) -> Self {
        Self::Refused(unusable(&error))
    }
}

/// What protects a port, ready for use.
#[derive(Clone)]
pub(super) struct Credentials {
    pub(super) acceptor: Option<TlsAcceptor>,
    /// Of the certificate; zeros without TLS.
    pub(super) fingerprint: Fingerprint,
    pub(super) token: Option<Token>,
    pub(super) key: SessionKey,
}

/// The file of the key in the data folder.
const KEY: &str = "session.key";

impl Credentials {
    /// Reads or makes what there must be.
    pub(super) fn load(security: &Security) -> Result<Self, SecurityError> {
        let token = security.token.clone();
        let key = keep(security.data_dir.as_ref(), ("key of sessions", KEY), || Ok(fresh_nonce().to_vec()))?;
        if key.len() != NONCE_BYTES {
            let root = security.data_dir.as_ref().map(|dir| dir.root().join(KEY));
            return Err(SecurityError::Key(root.unwrap_or_else(|| KEY.into())));
        }
        let key = SessionKey::new(&key);
        let (chain, private) = match &security.tls {
            TlsMode::Off => return Ok(Self { acceptor: None, fingerprint: Fingerprint::default(), token, key }),
            TlsMode::Auto => {
                let made = self_made()?;
                let kept =
                    keep(security.data_dir.as_ref(), ("certificate", "certificate.pem"), || Ok(made.into_bytes()))?;
                let path = security.data_dir.as_ref().map(|dir| dir.root().join("certificate.pem"));
                let path = path.unwrap_or_else(|| "certificate.pem".into());
                (chain_of(&path, &kept)?, key_of(&path, &kept)?)
            }
            TlsMode::Files { certificate, key } => {
                (chain_of(certificate, &read("certificate", certificate)?)?, key_of(key, &read("key", key)?)?)
            }
        };
        let fingerprint = chain.first().map(|first| Fingerprint::of(first)).unwrap_or_default();
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13])?;
        let builder = match &security.client_ca {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let refused = |error: &dyn std::error::Error| SecurityError::Authority(error.to_string());
                let mut roots = RootCertStore::empty();
                for authority in chain_of(path, &read("authority of workers' certificates", path)?)? {
                    roots.add(authority).map_err(|error| refused(&error))?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
                builder.with_client_cert_verifier(verifier.map_err(|error| refused(&error))?)
            }
        };
        let mut config = builder.with_single_cert(chain, private)?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        // every handshake shows the certificate
        config.send_tls13_tickets = 0;
        Ok(Self { acceptor: Some(TlsAcceptor::from(Arc::new(config))), fingerprint, token, key })
    }

    /// For a cluster without a port.
    pub(super) fn of_nobody() -> Self {
        Self { acceptor: None, fingerprint: Fingerprint::default(), token: None, key: SessionKey::random() }
    }
}

fn keep(
    dir: Option<&DataDir>,
    (what, name): (&'static str, &str),
    make: impl FnOnce() -> io::Result<Vec<u8>>,
) -> Result<Vec<u8>, SecurityError> {
    match dir {
        Some(dir) => {
            dir.keep(name, make).map_err(|source| SecurityError::Keep { what, folder: dir.root().into(), source })
        }
        None => make().map_err(|source| SecurityError::Keep { what, folder: PathBuf::new(), source }),
    }
}

/// A certificate that is its own issuer, and its key, as PEM.
fn self_made() -> Result<String, SecurityError> {
    let mut names = vec![NAME.to_owned(), "localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    let host = ld_worker::cli::host_name();
    if host.is_ascii() && !names.contains(&host) {
        names.push(host);
    }
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name.push(DnType::CommonName, NAME);
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    Ok(certificate.pem() + &key.serialize_pem())
}

fn read(what: &'static str, path: &Path) -> Result<Vec<u8>, SecurityError> {
    std::fs::read(path).map_err(|error| SecurityError::Read { what, path: path.into(), cause: error.to_string() })
}

fn chain_of(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, SecurityError> {
    let unreadable = |cause: String| SecurityError::Read { what: "certificate", path: path.into(), cause };
    let chain = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
    let chain = chain.map_err(|error| unreadable(error.to_string()))?;
    if chain.is_empty() { Err(unreadable("it holds no certificate".into())) } else { Ok(chain) }
}

fn key_of(path: &Path, pem: &[u8]) -> Result<PrivateKeyDer<'static>, SecurityError> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|error| SecurityError::Read {
        what: "key",
        path: path.into(),
        cause: error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_certificate_is_made_once_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        let security = Security { data_dir: Some(DataDir::new(folder.path())), ..Security::default() };
        let [first, second] = [(); 2].map(|()| Credentials::load(&security).unwrap());
        assert_eq!(first.fingerprint, second.fingerprint);
        let session = ld_shared::id::SessionId(3);
        assert!(second.key.is_secret(session, &first.key.secret(session)));
        let alone = Credentials::load(&Security::default()).unwrap();
        assert_ne!(alone.fingerprint, first.fingerprint);
        let off = Credentials::load(&Security { tls: TlsMode::Off, ..security }).unwrap();
        assert!(off.acceptor.is_none() && off.fingerprint == Fingerprint::default());
    }

    #[test]
    fn files_that_cannot_be_used_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let (certificate, key) = (file("c.pem", "x"), file("k.pem", "y"));
        let files = |certificate, key| {
            let tls = TlsMode::Files { certificate, key };
            Credentials::load(&Security { tls, ..Security::default() }).err().unwrap().to_string()
        };
        assert!(files(certificate, key.clone()).contains("c.pem`"));
        let good = file("good.pem", &self_made().unwrap());
        assert!(files(good.clone(), key).contains("k.pem"));
        assert!(files(good, "nowhere".into()).contains("nowhere"));
        // a folder where there is a file
        let data_dir = Some(DataDir::new(file("taken", "")));
        let error = Credentials::load(&Security { data_dir, ..Security::default() }).err().unwrap();
        assert!(error.help().unwrap().contains("--data-dir"));
    }
}
