//! Which version of HTTP a request travels by.

use super::origin::Origin;
use crate::dial::Alpn;
use ld_shared::plan::{HttpVersion, ScenarioPlan};

/// Key of users that speak HTTP/3 whatever `http_version` says.
pub(super) const HTTP3_USER: &str = "http3_user";
/// Key of users whose event streams come by HTTP/1.1 whatever `http_version` says.
pub(crate) const SSE_USER: &str = "sse_user";

/// The version that users of this key speak in a scenario.
pub(super) fn of(user: &str, scenario: &ScenarioPlan) -> HttpVersion {
    match user {
        HTTP3_USER => HttpVersion::H3,
        SSE_USER => HttpVersion::H1,
        _ => scenario.http_version,
    }
}

/// How requests travel to an origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// HTTP/1.1.
    H1,
    /// HTTP/2 or HTTP/1.1, as the target chooses in the TLS handshake.
    Chosen,
    /// HTTP/2; without TLS by prior knowledge.
    H2,
    /// HTTP/3.
    H3,
}

impl Way {
    pub(super) fn to(origin: &Origin, version: HttpVersion) -> Self {
        match version {
            HttpVersion::Auto if origin.is_https => Self::Chosen,
            HttpVersion::Auto | HttpVersion::H1 => Self::H1,
            HttpVersion::H2 => Self::H2,
            HttpVersion::H3 => Self::H3,
        }
    }

    /// What is offered in the TLS handshake.
    pub(super) fn alpn(self) -> Alpn {
        match self {
            Self::H1 => &[b"http/1.1"],
            Self::Chosen => &[b"h2", b"http/1.1"],
            Self::H2 => &[b"h2"],
            Self::H3 => &[b"h3"],
        }
    }
}
