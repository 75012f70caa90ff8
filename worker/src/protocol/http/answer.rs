//! An answer, read from any pieces: what of it is the head, the body, and where it ends.
//!
//! Pure: it is fed bytes and says when it is complete. Source: RFC 9112.

mod parts;

use super::chunked::Chunked;
use super::decode::Coding;
use super::redirect;
use crate::protocol::Want;
use ld_shared::sample::{Failure, FailureKind};
use std::mem::MaybeUninit;

/// Header lines that are parsed without an allocation.
const USUAL_HEADERS: usize = 128;
/// Most header lines of an answer.
const MAX_HEADERS: usize = 1_024;
/// Most bytes of an answer's head.
const MAX_HEAD: usize = 256 * 1024;
/// Most bytes of an encoded body that are kept in order to decode it.
pub(super) const MAX_ENCODED: usize = 64 * 1024 * 1024;

/// An answer that is being read.
#[derive(Debug)]
pub(super) struct Answer {
    stage: Stage,
    /// The request was a HEAD: its answer has no body, whatever its head says.
    is_head: bool,
    want: Want,
    /// Beginning of a head that did not come in one read.
    partial: Vec<u8>,
    /// 0 until the head is there.
    pub(super) status: u16,
    /// The connection can carry another request.
    pub(super) keeps_open: bool,
    pub(super) coding: Coding,
    /// Raw header lines, if they are wanted.
    pub(super) headers: Vec<u8>,
    /// Where a redirect leads.
    pub(super) location: Option<Box<str>>,
    /// Values of `Set-Cookie`.
    pub(super) cookies: Vec<Box<str>>,
    /// What is wanted of the body, still encoded.
    pub(super) body: Vec<u8>,
    /// Length of the body, transfer coding removed.
    pub(super) body_bytes: u64,
    /// Bytes received on the wire.
    pub(super) received: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Head,
    Length(u64),
    Chunked(Chunked),
    UntilClose,
    Done,
}

impl Answer {
    pub(super) fn new(is_head: bool, want: Want) -> Self {
        Self {
            stage: Stage::Head,
            is_head,
            want,
            partial: Vec::new(),
            status: 0,
            keeps_open: false,
            coding: Coding::Identity,
            headers: Vec::new(),
            location: None,
            cookies: Vec::new(),
            body: Vec::new(),
            body_bytes: 0,
            received: 0,
        }
    }

    /// How many bytes of the decoded body are wanted.
    pub(super) fn wanted(&self) -> usize {
        if self.status >= 400 { self.want.failed_body } else { self.want.body }
    }

    /// It is a redirect that says where to.
    pub(super) fn leads_on(&self) -> bool {
        self.location.is_some() && redirect::is_redirect(self.status)
    }

    /// Takes the bytes of a read. `true`: the answer is complete.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Result<bool, Failure> {
        self.received += bytes.len() as u64;
        if self.stage != Stage::Head {
            return self.feed_body(bytes);
        }
        if self.partial.is_empty() {
            return match self.feed_head(bytes)? {
                Some(taken) => self.feed_body(&bytes[taken..]),
                None => Ok(false),
            };
        }
        let mut partial = std::mem::take(&mut self.partial);
        partial.extend_from_slice(bytes);
        // A head ends with a line: parsing it anew for each byte of a line would be quadratic.
        if partial.len() > 64 && !bytes.contains(&b'\n') {
            if partial.len() > MAX_HEAD {
                return Err(malformed("the head is longer than 256 KiB"));
            }
            self.partial = partial;
            return Ok(false);
        }
        match self.feed_head(&partial)? {
            Some(taken) => {
                self.partial = Vec::new();
                self.feed_body(&partial[taken..])
            }
            None => Ok(false),
        }
    }

    /// The peer closed the connection.
    pub(super) fn end(&mut self) -> Result<(), Failure> {
        match self.stage {
            Stage::Done => Ok(()),
            Stage::UntilClose => {
                self.stage = Stage::Done;
                Ok(())
            }
            Stage::Head if self.received == 0 => {
                Err(Failure::new(FailureKind::Closed, "connection closed before the answer"))
            }
            Stage::Head | Stage::Length(_) | Stage::Chunked(_) => {
                Err(Failure::new(FailureKind::Closed, "connection closed in mid-answer"))
            }
        }
    }

    /// Parses heads until a final one is complete: those of 1xx answers are skipped. Returns how many
    /// bytes they took; `None`: the rest, kept, needs more.
    fn feed_head(&mut self, bytes: &[u8]) -> Result<Option<usize>, Failure> {
        let mut from = 0;
        loop {
            let rest = &bytes[from..];
            match self.parse(rest)? {
                None => {
                    if rest.len() > MAX_HEAD {
                        return Err(malformed("the head is longer than 256 KiB"));
                    }
                    self.partial = rest.to_vec();
                    return Ok(None);
                }
                Some(taken) => from += taken,
            }
            match self.status {
                101 => return Err(malformed("101 Switching Protocols was not asked for")),
                100..200 => self.status = 0,
                _ => return Ok(Some(from)),
            }
        }
    }

    fn parse(&mut self, bytes: &[u8]) -> Result<Option<usize>, Failure> {
        let mut usual = [const { MaybeUninit::<httparse::Header<'_>>::uninit() }; USUAL_HEADERS];
        match self.parse_into(bytes, &mut usual) {
            Err(httparse::Error::TooManyHeaders) => {}
            other => return other.map_err(|error| malformed(&error.to_string()))?,
        }
        let mut many = vec![MaybeUninit::<httparse::Header<'_>>::uninit(); MAX_HEADERS];
        match self.parse_into(bytes, &mut many) {
            Err(httparse::Error::TooManyHeaders) => Err(malformed("more than 1024 header lines")),
            other => other.map_err(|error| malformed(&error.to_string()))?,
        }
    }

    fn parse_into<'b>(
        &mut self,
        bytes: &'b [u8],
        headers: &mut [MaybeUninit<httparse::Header<'b>>],
    ) -> Result<Result<Option<usize>, Failure>, httparse::Error> {
        let mut head = httparse::Response::new(&mut []);
        let mut config = httparse::ParserConfig::default();
        config.allow_obsolete_multiline_headers_in_responses(true);
        match config.parse_response_with_uninit_headers(&mut head, bytes, headers)? {
            httparse::Status::Partial => Ok(Ok(None)),
            httparse::Status::Complete(taken) => {
                self.status = head.code.unwrap_or(0);
                let is_http_11 = head.version == Some(1);
                Ok(self.head(is_http_11, head.headers, &bytes[..taken]).map(|()| Some(taken)))
            }
        }
    }

    /// Looks at what framing, cookies and redirects need.
    fn head(&mut self, is_http_11: bool, headers: &[httparse::Header<'_>], raw: &[u8]) -> Result<(), Failure> {
        if self.status < 200 {
            return Ok(());
        }
        let mut length = None;
        let mut is_chunked = None;
        let mut keeps_open = is_http_11;
        for header in headers {
            // By length first: nearly all headers end here.
            match header.name.len() {
                8 if self.status / 100 == 3 && header.name.eq_ignore_ascii_case("location") => {
                    self.location = Some(text(header.value).into());
                }
                10 if header.name.eq_ignore_ascii_case("connection") => {
                    for token in header.value.split(|b| *b == b',').map(<[u8]>::trim_ascii) {
                        if token.eq_ignore_ascii_case(b"close") {
                            keeps_open = false;
                        } else if token.eq_ignore_ascii_case(b"keep-alive") && !is_http_11 {
                            keeps_open = true;
                        }
                    }
                }
                10 if header.name.eq_ignore_ascii_case("set-cookie") => self.cookies.push(text(header.value).into()),
                14 if header.name.eq_ignore_ascii_case("content-length") => {
                    let value =
                        std::str::from_utf8(header.value).ok().filter(|v| v.bytes().all(|b| b.is_ascii_digit()));
                    let Some(value) = value.and_then(|v| v.parse::<u64>().ok()) else {
                        return Err(malformed("malformed Content-Length"));
                    };
                    if length.replace(value).is_some() {
                        return Err(malformed("more than one Content-Length"));
                    }
                }
                16 if self.wanted() > 0 && header.name.eq_ignore_ascii_case("content-encoding") => {
                    self.coding = Coding::of(header.value);
                }
                17 if header.name.eq_ignore_ascii_case("transfer-encoding") => {
                    let last = header.value.rsplit(|b| *b == b',').next().unwrap_or(b"").trim_ascii();
                    is_chunked = Some(last.eq_ignore_ascii_case(b"chunked"));
                }
                _ => {}
            }
        }
        let has_both = is_chunked.is_some() && length.is_some();
        self.stage = match (is_chunked, length) {
            _ if self.is_head || self.status == 204 || self.status == 304 => Stage::Done,
            (Some(true), _) => Stage::Chunked(Chunked::new()),
            (Some(false), _) | (None, None) => Stage::UntilClose,
            (None, Some(0)) => Stage::Done,
            (None, Some(length)) => Stage::Length(length),
        };
        self.keeps_open = keeps_open && !has_both && self.stage != Stage::UntilClose;
        if self.want.headers {
            let lines = raw.iter().position(|b| *b == b'\n').map_or(raw.len(), |at| at + 1);
            let end = if raw.ends_with(b"\r\n") { raw.len() - 2 } else { raw.len() - 1 };
            self.headers = raw.get(lines..end).unwrap_or_default().to_vec();
        }
        Ok(())
    }

    fn feed_body(&mut self, bytes: &[u8]) -> Result<bool, Failure> {
        let mut taken = bytes.len();
        match &mut self.stage {
            Stage::Head => return Ok(false),
            Stage::Done => taken = 0,
            Stage::UntilClose => self.keep(bytes)?,
            Stage::Length(left) => {
                taken = usize::try_from(*left).map_or(bytes.len(), |left| left.min(bytes.len()));
                *left -= taken as u64;
                if *left == 0 {
                    self.stage = Stage::Done;
                }
                self.keep(&bytes[..taken])?;
            }
            Stage::Chunked(chunked) => {
                let mut chunked = *chunked;
                let mut kept = Ok(());
                taken = chunked
                    .feed(bytes, |data| {
                        if kept.is_ok() {
                            kept = self.keep(data);
                        }
                    })
                    .map_err(malformed)?;
                kept?;
                self.stage = if chunked.is_done() { Stage::Done } else { Stage::Chunked(chunked) };
            }
        }
        if taken < bytes.len() {
            // Bytes that nobody asked for: what follows on this connection cannot be trusted.
            self.keeps_open = false;
        }
        Ok(self.stage == Stage::Done)
    }

    fn keep(&mut self, data: &[u8]) -> Result<(), Failure> {
        self.body_bytes += data.len() as u64;
        let wanted = match self.wanted() {
            0 => return Ok(()),
            wanted if self.coding == Coding::Identity => wanted,
            _ if self.body.len() + data.len() > MAX_ENCODED => {
                return Err(malformed("the encoded body is longer than 64 MiB"));
            }
            _ => MAX_ENCODED,
        };
        let room = wanted.saturating_sub(self.body.len()).min(data.len());
        self.body.extend_from_slice(&data[..room]);
        Ok(())
    }
}

/// The answer breaks the protocol.
pub(super) fn malformed(what: &str) -> Failure {
    Failure::new(FailureKind::Protocol, format!("malformed answer: {what}"))
}

/// Header values are bytes; what is no UTF-8 is read as Latin-1.
fn text(value: &[u8]) -> String {
    std::str::from_utf8(value).map_or_else(|_| value.iter().map(|b| char::from(*b)).collect(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ld_shared::noise;
    use proptest::prelude::*;

    const ALL: Want = Want { headers: true, body: 1 << 20, failed_body: 1 << 20 };

    /// Status, body, whether it ended, whether the connection lives, header lines.
    type Seen = (u16, Vec<u8>, bool, bool, Vec<u8>);

    fn read(bytes: &[u8], cuts: &[usize], is_head: bool) -> Result<Seen, Failure> {
        let mut answer = Answer::new(is_head, ALL);
        let mut from = 0;
        let mut done = false;
        for cut in cuts.iter().copied().chain([bytes.len()]) {
            if cut > from && !done {
                done = answer.feed(&bytes[from..cut])?;
                from = cut;
            }
        }
        // What is left over after the end arrives with it or later; both close the connection.
        let is_whole = from == bytes.len();
        if !done {
            answer.end()?;
        }
        Ok((answer.status, answer.body, done, answer.keeps_open && is_whole, answer.headers))
    }

    fn body(bytes: &str) -> Result<(u16, String, bool), String> {
        let (status, body, _, keeps, _) = read(bytes.as_bytes(), &[], false).map_err(|f| f.reason.to_string())?;
        Ok((status, String::from_utf8(body).unwrap(), keeps))
    }

    #[test]
    fn framings() {
        for (bytes, status, text, keeps) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", 200, "hi", true),
            ("HTTP/1.1 200 OK\nContent-Length: 2\n\nhi", 200, "hi", true),
            ("HTTP/1.1 200\r\ncontent-length:0\r\n\r\n", 200, "", true),
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhiX", 200, "hi", false),
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: foo, Close\r\n\r\nhi", 200, "hi", false),
            ("HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi", 200, "hi", false),
            ("HTTP/1.0 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\nhi", 200, "hi", true),
            ("HTTP/1.1 200 OK\r\n\r\nuntil close", 200, "until close", false),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", 200, "hi", true),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 9\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
                200,
                "",
                false,
            ),
            ("HTTP/1.1 204 No\r\nContent-Length: 5\r\n\r\n", 204, "", true),
            ("HTTP/1.1 304 No\r\nContent-Length: 5\r\n\r\n", 304, "", true),
            (
                "HTTP/1.1 100 Go\r\n\r\nHTTP/1.1 103 Hints\r\nA: b\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx",
                200,
                "x",
                true,
            ),
        ] {
            assert_eq!(body(bytes), Ok((status, text.to_owned(), keeps)), "{bytes}");
        }
    }

    #[test]
    fn faults() {
        let long = format!("HTTP/1.1 200 OK\r\n{}\r\n", "A: b\r\n".repeat(1_025));
        for (bytes, reason) in [
            ("", "connection closed before the answer"),
            ("HTTP/1.1 200", "connection closed in mid-answer"),
            ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nhi", "connection closed in mid-answer"),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n", "connection closed in mid-answer"),
            ("HTTP/1.1 101 Switch\r\n\r\n", "malformed answer: 101 Switching Protocols was not asked for"),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
                "malformed answer: more than one Content-Length",
            ),
            ("HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\n", "malformed answer: malformed Content-Length"),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "malformed answer: malformed chunk size"),
            ("220 smtp ready\r\n", "malformed answer: invalid HTTP version"),
            (&long, "malformed answer: more than 1024 header lines"),
        ] {
            assert_eq!(body(bytes).unwrap_err(), reason);
        }
    }

    #[test]
    fn many_headers_and_heads_without_body() {
        let many = format!("HTTP/1.1 200 OK\r\n{}Content-Length: 1\r\n\r\nx", "A: b\r\n".repeat(500));
        assert_eq!(body(&many), Ok((200, "x".to_owned(), true)));
        let (.., keeps, headers) = read(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", &[], true).unwrap();
        assert!(keeps);
        assert_eq!(headers, b"Content-Length: 5\r\n");
    }

    #[test]
    fn what_is_not_wanted_is_counted_and_dropped() {
        let mut answer = Answer::new(false, Want { headers: false, body: 2, failed_body: 0 });
        assert_eq!(answer.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"), Ok(true));
        assert_eq!((answer.body.as_slice(), answer.body_bytes, answer.headers.len()), (&b"he"[..], 5, 0));
        let mut answer = Answer::new(false, Want { headers: false, body: 2, failed_body: 0 });
        assert_eq!(answer.feed(b"HTTP/1.1 500 No\r\nContent-Length: 5\r\n\r\nhello"), Ok(true));
        assert_eq!((answer.body.len(), answer.body_bytes), (0, 5));
    }

    const SAMPLES: [&str; 5] = [
        "HTTP/1.1 200 OK\r\nServer: x\r\nContent-Length: 12\r\n\r\nhello, world",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 404 No\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n3\r\nabc\r\n0\r\nT: v\r\n\r\n",
        "HTTP/1.0 200 OK\r\nX: y\r\n\r\nto the end",
        "HTTP/1.1 204 No Content\r\nSet-Cookie: a=b\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx",
    ];

    #[test]
    fn every_byte_may_come_alone() {
        for sample in SAMPLES {
            let every: Vec<usize> = (1..sample.len()).collect();
            assert_eq!(read(sample.as_bytes(), &every, false), read(sample.as_bytes(), &[], false), "{sample}");
        }
    }

    #[test]
    fn spoiled_answers_are_the_same_in_any_pieces() {
        let right = noise::corpus(
            &std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/corpus/http"),
            None,
        );
        let (mut whole, mut wrong) = (0, 0);
        noise::fuzz_in_pieces(1, 20_000, &right, |bytes, cuts| {
            let seen = read(bytes, &[], false);
            match &seen {
                Ok((status, body, ..)) => assert!(*status >= 200 && body.len() <= bytes.len()),
                Err(failure) => assert!(!failure.reason.is_empty()),
            }
            // one that is wrong may be seen to be so later: a head is read again when its end is there
            let (is_ok, pieces) = (seen.is_ok(), read(bytes, cuts, false));
            assert_eq!(pieces.ok(), seen.ok(), "{} at {cuts:?}", bytes.escape_ascii());
            *(if is_ok { &mut whole } else { &mut wrong }) += 1;
        });
        assert!(whole > 2_000 && wrong > 2_000, "{whole} answers, {wrong} failures");
    }

    proptest! {
        #[test]
        fn cuts_change_nothing(sample in 0..SAMPLES.len(), mut cuts in prop::collection::vec(0_usize..120, 0..8)) {
            let bytes = SAMPLES[sample].as_bytes();
            cuts.retain(|cut| *cut < bytes.len());
            cuts.sort_unstable();
            prop_assert_eq!(read(bytes, &cuts, false), read(bytes, &[], false));
        }

        #[test]
        fn arbitrary_bytes_end_in_an_answer_or_a_failure(
            head in prop::sample::select(vec!["", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"]),
            noise in prop::collection::vec(any::<u8>(), 0..300),
            cut in 0_usize..300,
        ) {
            let bytes = [head.as_bytes(), &noise].concat();
            let seen = read(&bytes, &[cut.min(bytes.len())], false);
            prop_assert!(seen.is_err() || seen.is_ok_and(|(status, ..)| status >= 200));
        }
    }
}
