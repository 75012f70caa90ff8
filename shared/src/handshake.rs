//! How a worker and a master prove to each other that they know a token, and a worker that it is
//! the session it says: pure functions over what both have seen. Told in `cluster.proto`.
//!
//! Nothing that is secret travels: a proof is HMAC-SHA256 over everything that both must agree on.
//! Fresh nonces make a proof worthless a second time; the certificate's fingerprint, as each side
//! sees it, makes it worthless to whoever stands between them.

use crate::id::SessionId;
use aws_lc_rs::{constant_time, digest, hmac};
use bytes::Bytes;
use std::fmt::{self, Debug, Display, Formatter};
use std::str::FromStr;
use std::sync::Arc;

/// Bytes of a nonce.
pub const NONCE_BYTES: usize = 32;

/// A random number used once.
pub type Nonce = [u8; NONCE_BYTES];

/// A nonce that nobody can foresee.
pub fn fresh_nonce() -> Nonce {
    let mut nonce = Nonce::default();
    aws_lc_rs::rand::fill(&mut nonce).expect("the system gives random numbers, or TLS would have failed");
    nonce
}

/// SHA-256 of a certificate in DER; all zeros where there is no TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fingerprint(pub [u8; 32]);

impl Fingerprint {
    /// Of a certificate's DER.
    pub fn of(certificate: &[u8]) -> Self {
        let mut out = Self::default();
        out.0.copy_from_slice(digest::digest(&digest::SHA256, certificate).as_ref());
        out
    }
}

impl Display for Fingerprint {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for Fingerprint {
    type Err = String;

    /// `sha256:` and 64 hexadecimal digits, colons between them or not, as openssl prints them.
    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || "expected sha256: and 64 hexadecimal digits, as ld-master prints them".to_owned();
        let digits = text.trim().strip_prefix("sha256:").or_else(|| text.trim().strip_prefix("SHA256:"));
        let digits: Vec<u32> = digits
            .ok_or_else(expected)?
            .chars()
            .filter(|c| *c != ':')
            .map(|c| c.to_digit(16))
            .collect::<Option<_>>()
            .ok_or_else(expected)?;
        let mut out = Self::default();
        if digits.len() != 2 * out.0.len() {
            return Err(expected());
        }
        for (byte, pair) in out.0.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = (pair[0] << 4 | pair[1]) as u8;
        }
        Ok(out)
    }
}

/// Who proves something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A worker: it knows the token.
    Worker,
    /// A master: it knows the token.
    Master,
    /// A worker: it is this session.
    Session,
}

impl Role {
    fn label(self) -> &'static [u8] {
        match self {
            Self::Worker => b"worker\0",
            Self::Master => b"master\0",
            Self::Session => b"session\0",
        }
    }
}

/// What both sides have seen of one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transcript {
    /// Of the worker's hello.
    pub worker: Nonce,
    /// Of the master's challenge.
    pub master: Nonce,
    /// Of the certificate: the worker takes what it was shown, the master what it shows.
    pub certificate: Fingerprint,
    /// Version of the protocol.
    pub version: u32,
}

impl Transcript {
    fn bytes(&self, role: Role) -> Vec<u8> {
        let version = self.version.to_be_bytes();
        [role.label(), &self.worker, &self.master, &self.certificate.0, &version].concat()
    }

    /// The proof that its maker knows `secret`.
    pub fn prove(&self, role: Role, secret: &[u8]) -> Bytes {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
        Bytes::copy_from_slice(hmac::sign(&key, &self.bytes(role)).as_ref())
    }

    /// Whether `proof` is that. Takes as long for any proof of the right length.
    pub fn is_proof(&self, role: Role, secret: &[u8], proof: &[u8]) -> bool {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
        hmac::verify(&key, &self.bytes(role), proof).is_ok()
    }
}

/// What the workers and the master of one cluster know, and nobody else.
#[derive(Clone)]
pub struct Token(Arc<str>);

/// Tokens with fewer bits can be guessed from a proof that somebody saw.
pub const STRONG_BITS: u32 = 128;

impl Token {
    /// From a text, space around it left out; `None` if nothing is left.
    pub fn new(text: &str) -> Option<Self> {
        let text = text.trim();
        (!text.is_empty()).then(|| Self(text.into()))
    }

    /// It, as the key of proofs.
    pub fn secret(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// Bits of a random text of this length over the kinds of characters that it uses: no more than
    /// that, and of a phrase that somebody thought up much less.
    pub fn bits(&self) -> u32 {
        let any = |of: fn(&char) -> bool| self.0.chars().any(|c| of(&c));
        let is_hex = self.0.chars().all(|c| c.is_ascii_digit() || matches!(c, 'a'..='f' | 'A'..='F'));
        let kinds = if is_hex {
            16
        } else {
            let sizes = [
                (any(char::is_ascii_lowercase), 26),
                (any(char::is_ascii_uppercase), 26),
                (any(char::is_ascii_digit), 10),
                (any(|c| !c.is_ascii_alphanumeric()), 32),
            ];
            sizes.iter().filter(|(used, _)| *used).map(|(_, size)| size).sum()
        };
        let per_character = f64::from(kinds).log2();
        (self.0.chars().count() as f64 * per_character) as u32
    }

    /// What to tell people about a token that is too short; `None`: it is not.
    pub fn weakness(&self) -> Option<String> {
        let bits = self.bits();
        (bits < STRONG_BITS).then(|| {
            format!(
                "the token has at most {bits} bits: whoever sees one join can try tokens without asking anybody; \
                 take {STRONG_BITS} or more, for example of `openssl rand -hex 32`"
            )
        })
    }
}

/// Never shows it.
impl Debug for Token {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// The key of a data folder, from which the secret of each session is made, so that a restarted
/// master knows it again.
#[derive(Clone)]
pub struct SessionKey(hmac::Key);

impl SessionKey {
    /// From secret bytes.
    pub fn new(secret: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }

    /// One that nobody knows, for the life of a process.
    pub fn random() -> Self {
        Self::new(&fresh_nonce())
    }

    /// What proves that its holder is `session`.
    pub fn secret(&self, session: SessionId) -> Bytes {
        Bytes::copy_from_slice(
            hmac::sign(&self.0, &[b"session\0".as_slice(), &session.0.to_be_bytes()].concat()).as_ref(),
        )
    }

    /// Whether `secret` is that of `session`. Takes as long for any secret of the right length.
    pub fn is_secret(&self, session: SessionId, secret: &[u8]) -> bool {
        constant_time::verify_slices_are_equal(&self.secret(session), secret).is_ok()
    }
}

/// Never shows it.
impl Debug for SessionKey {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("SessionKey(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
    }

    fn transcript() -> Transcript {
        let certificate = Fingerprint([3; 32]);
        Transcript { worker: [1; 32], master: [2; 32], certificate, version: 2 }
    }

    /// These stand in `cluster.proto`.
    #[test]
    fn test_vectors_of_the_contract() {
        let of = |role| hex(&transcript().prove(role, b"correct horse"));
        assert_eq!(of(Role::Worker), VECTORS[0]);
        assert_eq!(of(Role::Master), VECTORS[1]);
        assert_eq!(of(Role::Session), VECTORS[2]);
        let contract = include_str!("../../proto/proto/loaddensity/cluster/v1/cluster.proto");
        for vector in VECTORS {
            assert!(contract.contains(vector), "{vector}");
        }
    }

    const VECTORS: [&str; 3] = [
        "145355f32c48952d56125c0c9b1742897c0b66feee9f93d321d670baad8c81e8",
        "2214b2edeb5a7b8106f159704ac3781081e88f15b75bb40a9cdd8910df51783e",
        "4f9b34f9a19541951962d097895a18128bc6538a2acb4cde7a5fcb543f1052bd",
    ];

    #[test]
    fn a_proof_holds_for_one_role_secret_and_transcript() {
        let seen = transcript();
        let proof = seen.prove(Role::Worker, b"t");
        assert!(seen.is_proof(Role::Worker, b"t", &proof));
        assert!(!seen.is_proof(Role::Master, b"t", &proof));
        assert!(!seen.is_proof(Role::Worker, b"u", &proof));
        assert!(!seen.is_proof(Role::Worker, b"t", &proof[..31]));
        assert!(!seen.is_proof(Role::Worker, b"t", b""));
        let others = [
            Transcript { worker: [9; 32], ..seen },
            Transcript { master: [9; 32], ..seen },
            Transcript { certificate: Fingerprint([9; 32]), ..seen },
            Transcript { version: 3, ..seen },
        ];
        assert!(others.iter().all(|other| !other.is_proof(Role::Worker, b"t", &proof)));
        assert_ne!(fresh_nonce(), fresh_nonce());
    }

    #[test]
    fn fingerprints_are_read_as_they_are_shown() {
        let shown = Fingerprint::of(b"certificate").to_string();
        assert_eq!(shown.parse(), Ok(Fingerprint::of(b"certificate")));
        let pairs: Vec<String> = hex(&Fingerprint::of(b"x").0)
            .as_bytes()
            .chunks(2)
            .map(|p| String::from_utf8_lossy(p).to_uppercase())
            .collect();
        assert_eq!(format!("sha256:{}", pairs.join(":")).parse(), Ok(Fingerprint::of(b"x")));
        for bad in
            ["", "sha256:", "sha256:zz", shown.trim_end_matches(char::is_alphanumeric), "md5:00", &format!("{shown}00")]
        {
            assert!(bad.parse::<Fingerprint>().is_err(), "{bad}");
        }
    }

    #[test]
    fn tokens_are_judged_by_their_length() {
        assert!(Token::new(" \n").is_none());
        let token = |text: &str| Token::new(text).unwrap();
        assert_eq!(token("  x\n").secret(), b"x");
        assert_eq!(token(&"0a".repeat(16)).bits(), 128);
        assert_eq!(token(&"0a".repeat(16)).weakness(), None);
        assert!(token("hunter2").weakness().unwrap().contains("at most 36 bits"));
        assert!(!format!("{:?}", token("hunter2")).contains("hunter"));
    }

    #[test]
    fn a_sessions_secret_is_its_own() {
        let key = SessionKey::new(b"k");
        let secret = key.secret(SessionId(7));
        assert!(SessionKey::new(b"k").is_secret(SessionId(7), &secret));
        assert!(!key.is_secret(SessionId(8), &secret) && !key.is_secret(SessionId(7), b""));
        assert!(!SessionKey::random().is_secret(SessionId(7), &secret));
    }
}
