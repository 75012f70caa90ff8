//! An answer in no protocol's terms: what checks and extractors look at.

use std::borrow::Cow;

/// An answer.
#[derive(Clone, Copy, Debug)]
pub struct Reply<'a> {
    /// Its status, 0 if there was no answer, `None` where the protocol has none.
    pub status: Option<u16>,
    /// Headers, metadata or properties, in order.
    pub headers: &'a [(Cow<'a, str>, Cow<'a, str>)],
    /// The decoded body.
    pub body: &'a [u8],
}
