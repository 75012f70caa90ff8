//! Tokens of surfaces: who may do what.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use ld_shared::handshake::Token;
use sha2::{Digest as _, Sha256};

/// What whoever asks may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Nothing.
    Nobody,
    /// Look.
    Viewer,
    /// Everything that callers from outside may do.
    Full,
}

/// The tokens of this process.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// With it one may do everything; `None`: so may anybody.
    pub token: Option<Token>,
    /// With it one may look.
    pub viewer: Option<Token>,
}

impl Access {
    /// What one may do with this token. Takes as long whatever it is.
    pub fn level(&self, given: Option<&[u8]>) -> Level {
        let is = |token: &Option<Token>| {
            token.as_ref().is_some_and(|token| equal(token.secret(), given.unwrap_or_default()))
        };
        let (full, viewer) = (is(&self.token), is(&self.viewer));
        match (full || self.token.is_none(), viewer) {
            (true, _) => Level::Full,
            (false, true) => Level::Viewer,
            (false, false) => Level::Nobody,
        }
    }
}

/// Whether two texts are the same; how long that takes tells nothing about them, not even their lengths.
fn equal(a: &[u8], b: &[u8]) -> bool {
    let [a, b] = [a, b].map(Sha256::digest);
    verify_slices_are_equal(&a, &b).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_do_what() {
        let access = Access { token: Token::new("all"), viewer: Token::new("look") };
        let levels =
            [Some("all"), Some("look"), Some("al"), Some(""), None].map(|t| access.level(t.map(str::as_bytes)));
        assert_eq!(levels, [Level::Full, Level::Viewer, Level::Nobody, Level::Nobody, Level::Nobody]);
        assert_eq!(Access::default().level(None), Level::Full, "without a token anybody may");
        let viewers = Access { token: None, viewer: Token::new("look") };
        assert_eq!(viewers.level(Some(b"look")), Level::Full, "a token that only takes away would be a trap");
    }
}
