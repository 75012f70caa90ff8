//! Where a request ends: a state machine over the bytes as they come.
//!
//! Raw, a request is a JSON document (or `quit_server`), and nothing says how long it is: it has ended
//! when it can be read, when it can no longer become readable, or when the client says no more. The seed
//! took what one receive call gave, at most 8 KiB.
//!
//! Prefixed, 4 bytes (big-endian) say how long it is.

use super::protocol::QUIT;
use serde::de::IgnoredAny;

/// Longest request, in bytes: the seed's bound on frames, for both framings.
pub const LONGEST: usize = 1024 * 1024;
/// Bytes that say how long a frame is.
const PREFIX: usize = 4;
/// Requests that begin with no bracket are short words and numbers: they are looked at each time.
const SHORT: usize = 64;

/// How requests and replies are told apart from what follows them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Framing {
    /// By nothing: one request, its reply, the end of the connection.
    #[default]
    Raw,
    /// By a length before each, 4 bytes, big-endian.
    Prefixed,
}

/// What has come so far.
#[derive(Debug, PartialEq, Eq)]
pub enum Intake {
    /// The request goes on.
    More,
    /// The whole request.
    Whole(Vec<u8>),
    /// Longer than [`LONGEST`].
    TooLong,
    /// There is none, nor will there be.
    Nothing,
}

/// A request on its way in.
#[derive(Debug, Default)]
pub struct Inbox {
    framing: Framing,
    bytes: Vec<u8>,
    brackets: Brackets,
    /// How many bytes there were when they were last looked at as a whole.
    looked_at: usize,
}

impl Framing {
    /// A line of a reply as it is sent.
    pub fn wrap(self, line: &str) -> Vec<u8> {
        match self {
            Self::Raw => line.as_bytes().to_vec(),
            Self::Prefixed => {
                // a longer line could not be told in four bytes: it is a gigabyte beyond what any client reads
                let length = u32::try_from(line.len()).unwrap_or(u32::MAX);
                let body = line.as_bytes().iter().take(length as usize);
                length.to_be_bytes().iter().chain(body).copied().collect()
            }
        }
    }
}

impl Inbox {
    /// An empty one.
    pub fn new(framing: Framing) -> Self {
        Self { framing, ..Self::default() }
    }

    /// Takes what came.
    pub fn push(&mut self, bytes: &[u8]) -> Intake {
        match self.framing {
            Framing::Raw => self.push_raw(bytes),
            Framing::Prefixed => self.push_prefixed(bytes),
        }
    }

    /// Nothing more comes: the client has ended its side, or its time is over.
    pub fn end(&mut self) -> Intake {
        match self.framing {
            Framing::Raw if !self.bytes.is_empty() => Intake::Whole(std::mem::take(&mut self.bytes)),
            Framing::Raw | Framing::Prefixed => Intake::Nothing,
        }
    }

    fn push_prefixed(&mut self, bytes: &[u8]) -> Intake {
        // what follows the first frame counts for nothing
        self.bytes.extend_from_slice(bytes);
        let Some((prefix, body)) = self.bytes.split_first_chunk::<PREFIX>() else { return Intake::More };
        let length = u32::from_be_bytes(*prefix) as usize;
        match length {
            0 => Intake::Nothing,
            _ if length > LONGEST => Intake::TooLong,
            _ => body.get(..length).map_or(Intake::More, |body| Intake::Whole(body.to_vec())),
        }
    }

    fn push_raw(&mut self, bytes: &[u8]) -> Intake {
        self.bytes.extend_from_slice(bytes);
        self.brackets.read(bytes);
        if self.bytes.is_empty() {
            return Intake::More;
        }
        // looked at as a whole only when it may have ended or has doubled: never more than twice its length in all
        let due = self.brackets.closed || self.bytes.len() < SHORT || self.bytes.len() >= 2 * self.looked_at;
        let whole = due && self.is_whole();
        if self.bytes.len() > LONGEST {
            return Intake::TooLong;
        }
        if whole { Intake::Whole(std::mem::take(&mut self.bytes)) } else { Intake::More }
    }

    /// Whether it can be read, or can no longer become readable.
    fn is_whole(&mut self) -> bool {
        self.looked_at = self.bytes.len();
        let text = self.bytes.trim_ascii();
        if QUIT.as_bytes().starts_with(text) {
            // blanks alone are a request that the seed refuses at once
            return text.is_empty() || text.len() == QUIT.len();
        }
        // bytes that are no UTF-8 are replaced later, so they may stand in texts here
        serde_json::from_slice::<IgnoredAny>(text).err().is_none_or(|error| !error.is_eof())
    }
}

/// Brackets of a JSON text that are open, byte by byte.
#[derive(Debug, Default)]
struct Brackets {
    open: usize,
    in_text: bool,
    escaped: bool,
    /// The outermost one was closed.
    closed: bool,
}

impl Brackets {
    fn read(&mut self, bytes: &[u8]) {
        for byte in bytes {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = self.in_text,
                b'"' => self.in_text = !self.in_text,
                _ if self.in_text => {}
                b'[' | b'{' => self.open += 1,
                b']' | b'}' => {
                    self.open = self.open.saturating_sub(1);
                    self.closed |= self.open == 0;
                }
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What comes of a request that arrives in these pieces, and how many of them it took.
    fn intake(framing: Framing, pieces: &[&[u8]]) -> (Intake, usize) {
        let mut inbox = Inbox::new(framing);
        for (taken, piece) in pieces.iter().enumerate() {
            let intake = inbox.push(piece);
            if intake != Intake::More {
                return (intake, taken + 1);
            }
        }
        (inbox.end(), pieces.len())
    }

    fn whole(text: &str) -> Intake {
        Intake::Whole(text.as_bytes().to_vec())
    }

    #[test]
    fn a_raw_request_ends_when_it_can_be_read_or_never_will() {
        let table: [(&[&str], &str, usize); 11] = [
            (&[r#"[["abs",[-1]]]"#, "later"], r#"[["abs",[-1]]]"#, 1),
            (&[r#"[["len",["a]"#, r#"b"]]]"#, "later"], r#"[["len",["a]b"]]]"#, 2),
            (&[r#"[["len",["\"]]]"#, r#"x"]]]"#], r#"[["len",["\"]]]x"]]]"#, 2),
            (&["{", "nope", "later"], "{nope", 2),
            (&["{nope", "later"], "{nope", 1),
            (&["quit_ser", "ver", "later"], "quit_server", 2),
            (&["nu", "ll", "later"], "null", 2),
            (&["   ", "later"], "   ", 1),
            (&["5", "later"], "5", 1),
            (&["[1]\n[2]", "later"], "[1]\n[2]", 1),
            // the client ends its side before the document does
            (&[r#"[["len",["#], r#"[["len",["#, 1),
        ];
        for (pieces, expected, taken) in table {
            let pieces: Vec<&[u8]> = pieces.iter().map(|piece| piece.as_bytes()).collect();
            assert_eq!(intake(Framing::Raw, &pieces), (whole(expected), taken), "{pieces:?}");
        }
        assert_eq!(intake(Framing::Raw, &[]).0, Intake::Nothing);
        assert_eq!(intake(Framing::Raw, &[b"[[\"abs\",[\"\xff\"]]]", b"later"]).1, 1);
    }

    #[test]
    fn a_raw_request_has_a_bound() {
        let mut inbox = Inbox::new(Framing::Raw);
        let piece = [b' '; 8192];
        assert_eq!(inbox.push(b"[\""), Intake::More);
        let all: Vec<_> = std::iter::repeat_with(|| inbox.push(&piece)).take(LONGEST / piece.len()).collect();
        assert_eq!(all.last(), Some(&Intake::TooLong));
        assert!(all[..all.len() - 1].iter().all(|intake| *intake == Intake::More));
    }

    #[test]
    fn a_prefixed_request_is_as_long_as_it_says() {
        let table: [(&[&[u8]], Intake); 8] = [
            (&[b"\0\0\0\x02[]"], whole("[]")),
            (&[b"\0\0", b"\0\x02[", b"]\0\0\0\x02{}"], whole("[]")),
            (&[b"\0\0\0\0"], Intake::Nothing),
            (&[b"\0\x10\0\x01x"], Intake::TooLong),
            (&[b"\x80\0\0\0"], Intake::TooLong),
            (&[b"[[\"abs\",[-1]]]"], Intake::TooLong),
            (&[b"\0\0\0\x32abc"], Intake::Nothing),
            (&[b"\0\0"], Intake::Nothing),
        ];
        for (pieces, expected) in table {
            assert_eq!(intake(Framing::Prefixed, pieces).0, expected, "{pieces:?}");
        }
        let longest = [&(LONGEST as u32).to_be_bytes()[..], &vec![b'x'; LONGEST]].concat();
        assert!(matches!(intake(Framing::Prefixed, &[&longest]).0, Intake::Whole(body) if body.len() == LONGEST));
        assert_eq!(Framing::Prefixed.wrap("Return_Data_Over_JE\n"), b"\0\0\0\x14Return_Data_Over_JE\n");
        assert_eq!(Framing::Raw.wrap("1\n"), b"1\n");
    }

    proptest! {
        /// However the network cuts it, a document is one request, and nothing of it is left behind.
        #[test]
        fn cuts_change_nothing(texts in prop::collection::vec(r#"[a-z"\\\[\]{} ü]{0,40}"#, 1..5), cuts in prop::collection::vec(1usize..9, 1..200)) {
            let document = serde_json::json!([["len", texts]]).to_string();
            for framing in [Framing::Raw, Framing::Prefixed] {
                let bytes = framing.wrap(&document);
                let (mut pieces, mut rest) = (Vec::new(), &bytes[..]);
                for cut in cuts.iter().cycle() {
                    if rest.is_empty() { break; }
                    let (piece, after) = rest.split_at((*cut).min(rest.len()));
                    pieces.push(piece);
                    rest = after;
                }
                prop_assert_eq!(intake(framing, &pieces), (whole(&document), pieces.len()));
            }
        }

        /// Whatever comes, it ends.
        #[test]
        fn any_bytes(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 0..20)) {
            let pieces: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
            for framing in [Framing::Raw, Framing::Prefixed] {
                prop_assert_ne!(intake(framing, &pieces).0, Intake::More);
            }
        }
    }
}
