//! Certificates of the suites' TLS servers, made anew for each: an authority, a server's, a client's.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use std::fs;
use std::path::PathBuf;
use tempfile::TempDir;

/// PEM files, gone when dropped. Certificates are for `localhost` and `127.0.0.1`.
#[derive(Debug)]
pub struct Certificates {
    _folder: TempDir,
    /// The authority.
    pub ca: PathBuf,
    /// A server's certificate.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// A client's certificate.
    pub client_cert: PathBuf,
    /// Its key.
    pub client_key: PathBuf,
    /// A certificate of that client, with the same key, whose time is over.
    pub expired_cert: PathBuf,
}

impl Certificates {
    /// Makes them.
    pub fn make() -> Self {
        let folder = tempfile::tempdir().expect("the temporary folder is writable");
        let write = |name: &str, text: String| {
            let path = folder.path().join(name);
            fs::write(&path, text).expect("the temporary folder is writable");
            path
        };
        let key = || KeyPair::generate().expect("the machine has random numbers");
        let mut authority = CertificateParams::new(Vec::new()).expect("there is no name to refuse");
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // another name than those it signs, which would look as if they had signed themselves
        authority.distinguished_name.push(DnType::CommonName, "authority");
        let authority = CertifiedIssuer::self_signed(authority, key()).expect("an authority signs itself");
        let leaf = || {
            let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
            let params = CertificateParams::new(names).expect("these are valid names");
            let key = key();
            let certificate = params.signed_by(&key, &authority).expect("the authority can sign");
            (certificate.pem(), key.serialize_pem())
        };
        let (server, client) = (leaf(), leaf());
        let mut old = CertificateParams::new(["localhost".to_owned()]).expect("this is a valid name");
        (old.not_before, old.not_after) = (rcgen::date_time_ymd(2020, 1, 1), rcgen::date_time_ymd(2020, 2, 1));
        let old_key = KeyPair::from_pem(&client.1).expect("it was just written");
        let old = old.signed_by(&old_key, &authority).expect("the authority can sign");
        Self {
            ca: write("ca.pem", authority.pem()),
            cert: write("cert.pem", server.0),
            key: write("key.pem", server.1),
            client_cert: write("client.pem", client.0),
            expired_cert: write("expired.pem", old.pem()),
            client_key: write("client-key.pem", client.1),
            _folder: folder,
        }
    }
}
