//! Events in a stream of bytes.
//!
//! Pure, and fed the pieces of any reads. Source: WHATWG HTML, 9.2.6 "Interpreting an event stream".

use ld_shared::sample::{Failure, FailureKind};
use memchr::memchr2;
use std::ops::ControlFlow;

/// Most bytes of a line, and of the data of one event.
const MAX_EVENT: usize = 1024 * 1024;
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// An event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Event<'a> {
    /// Its type: `message` if it names none.
    pub(super) kind: &'a [u8],
    /// Its data lines, joined by line feeds.
    pub(super) data: &'a [u8],
}

/// A stream of events that is being read.
#[derive(Debug, Default)]
pub(super) struct Events {
    /// Beginning of a line whose end did not come yet.
    line: Vec<u8>,
    /// The last byte was a carriage return: a line feed after it belongs to it.
    after_return: bool,
    /// A line has been read: a byte order mark can only stand before the first.
    has_begun: bool,
    data: Vec<u8>,
    kind: Vec<u8>,
    /// What the next event sets the last id to.
    id: Option<Box<str>>,
    last_id: Option<Box<str>>,
}

impl Events {
    /// Takes bytes, and hands each event that they complete to `see`, until that breaks. What comes
    /// after a break is not looked at.
    pub(super) fn feed(
        &mut self,
        mut bytes: &[u8],
        mut see: impl FnMut(Event<'_>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, Failure> {
        loop {
            if self.after_return {
                let Some(first) = bytes.first() else { break };
                self.after_return = false;
                if *first == b'\n' {
                    bytes = &bytes[1..];
                }
            }
            let Some(end) = memchr2(b'\n', b'\r', bytes) else {
                self.append(bytes)?;
                break;
            };
            self.after_return = bytes[end] == b'\r';
            let flow = if self.line.is_empty() {
                if end > MAX_EVENT {
                    return Err(too_long());
                }
                self.line(&bytes[..end], &mut see)?
            } else {
                self.append(&bytes[..end])?;
                let line = std::mem::take(&mut self.line);
                let flow = self.line(&line, &mut see)?;
                // the buffer is used again, unless it is a large one
                if line.capacity() <= 4096 {
                    self.line = line;
                    self.line.clear();
                }
                flow
            };
            bytes = &bytes[end + 1..];
            if flow.is_break() {
                return Ok(flow);
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// The id that a new request goes on from: `None` if no event had one.
    pub(super) fn last_id(&self) -> Option<&str> {
        self.last_id.as_deref()
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        if self.line.len() + bytes.len() > MAX_EVENT {
            return Err(too_long());
        }
        self.line.extend_from_slice(bytes);
        Ok(())
    }

    fn line(
        &mut self,
        line: &[u8],
        see: &mut impl FnMut(Event<'_>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, Failure> {
        let line = if std::mem::replace(&mut self.has_begun, true) {
            line
        } else {
            line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line)
        };
        if line.is_empty() {
            return Ok(self.dispatch(see));
        }
        let (name, value) = match memchr::memchr(b':', line) {
            // a comment: servers send them to keep the connection open
            Some(0) => return Ok(ControlFlow::Continue(())),
            Some(colon) => (&line[..colon], &line[colon + 1..]),
            None => (line, &[][..]),
        };
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match name {
            b"data" => {
                if self.data.len() + value.len() + 1 > MAX_EVENT + 1 {
                    return Err(too_long());
                }
                self.data.extend_from_slice(value);
                self.data.push(b'\n');
            }
            b"event" => {
                self.kind.clear();
                self.kind.extend_from_slice(value);
            }
            b"id" if !value.contains(&0) => self.id = Some(String::from_utf8_lossy(value).into()),
            // `retry` says when a browser comes back; a load test does when its user does
            _ => {}
        }
        Ok(ControlFlow::Continue(()))
    }

    fn dispatch(&mut self, see: &mut impl FnMut(Event<'_>) -> ControlFlow<()>) -> ControlFlow<()> {
        if let Some(id) = self.id.take() {
            self.last_id = Some(id);
        }
        let flow = match self.data.strip_suffix(b"\n") {
            None => ControlFlow::Continue(()),
            Some(data) => {
                let kind = if self.kind.is_empty() { &b"message"[..] } else { &self.kind };
                see(Event { kind, data })
            }
        };
        self.data.clear();
        self.kind.clear();
        flow
    }
}

fn too_long() -> Failure {
    Failure::new(FailureKind::Protocol, "an event longer than 1 MiB")
}

#[cfg(test)]
mod tests {
    use super::*;
    use ld_shared::noise;
    use proptest::prelude::*;

    /// Types and data of the events in `bytes`, which come in pieces, and the last id.
    fn read(bytes: &[u8], cuts: &[usize]) -> (Vec<(String, String)>, Option<String>) {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let mut events = Events::default();
        let mut seen = Vec::new();
        let mut from = 0;
        for cut in cuts.iter().copied().chain([bytes.len()]) {
            let flow = events.feed(&bytes[from..cut], |event| {
                seen.push((text(event.kind), text(event.data)));
                ControlFlow::Continue(())
            });
            assert_eq!(flow, Ok(ControlFlow::Continue(())));
            from = cut;
        }
        (seen, events.last_id().map(str::to_owned))
    }

    #[test]
    fn the_examples_of_the_standard() {
        for (stream, wanted, id) in [
            ("data: YHOO\ndata: +2\ndata: 10\n\n", vec![("message", "YHOO\n+2\n10")], None),
            (
                ": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n",
                vec![("message", "first event"), ("message", "second event"), ("message", " third event")],
                Some(""),
            ),
            ("data\n\ndata\ndata\n\ndata:", vec![("message", ""), ("message", "\n")], None),
            ("data:test\n\ndata: test\n\n", vec![("message", "test"), ("message", "test")], None),
            ("event: add\r\ndata: 1\r\rid: 7\r\ndata: lost", vec![("add", "1")], None),
            ("event: add\n\ndata: x\n\n", vec![("message", "x")], None),
            ("\u{feff}data: x\n\nid: 5\nretry: 100\nnope: 1\n\n", vec![("message", "x")], Some("5")),
            ("id: a\0b\ndata: x\n\n", vec![("message", "x")], None),
        ] {
            let wanted: Vec<_> = wanted.into_iter().map(|(kind, data)| (kind.to_owned(), data.to_owned())).collect();
            assert_eq!(read(stream.as_bytes(), &[]), (wanted, id.map(str::to_owned)), "{stream:?}");
        }
    }

    #[test]
    fn a_break_ends_the_reading() {
        let mut events = Events::default();
        let mut seen = 0;
        let flow = events.feed(b"data: 1\n\ndata: 2\n\n", |_| {
            seen += 1;
            ControlFlow::Break(())
        });
        assert_eq!((flow, seen), (Ok(ControlFlow::Break(())), 1));
    }

    #[test]
    fn memory_is_bounded() {
        let see = |_: Event<'_>| ControlFlow::Continue(());
        let mut line = Events::default();
        let half = vec![b'x'; MAX_EVENT / 2];
        assert!(line.feed(&half, see).is_ok() && line.feed(&half, see).is_ok() && line.feed(b"x", see).is_err());
        let mut data = Events::default();
        let line = [b"data:", &half[..], b"\n"].concat();
        assert!(data.feed(&line, see).is_ok() && data.feed(&line, see).is_err());
        let whole = [&half[..], &half, b"x\n"].concat();
        assert!(Events::default().feed(&whole, see).is_err());
    }

    #[test]
    fn spoiled_streams_are_the_same_in_any_pieces() {
        let right =
            noise::corpus(&std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/corpus/sse"), None);
        let mut events = 0;
        noise::fuzz_in_pieces(2, 20_000, &right, |bytes, cuts| {
            let seen = read(bytes, &[]);
            events += seen.0.len();
            assert_eq!(read(bytes, cuts), seen, "{} at {cuts:?}", bytes.escape_ascii());
        });
        assert!(events > 10_000, "{events} events");
    }

    proptest! {
        #[test]
        fn any_pieces_give_the_same_events(
            words in prop::collection::vec(
                prop::sample::select(vec![
                    "data: é", "data:", "event: add", "id: 7", ": c", "\n", "\r", "\r\n", "\n\n", "\r\n\r\n", "data", "x", ":", "\u{feff}",
                ]),
                0..40,
            ),
            mut cuts in prop::collection::vec(0_usize..200, 0..12),
        ) {
            let stream = words.concat();
            cuts.retain(|cut| *cut <= stream.len());
            cuts.sort_unstable();
            prop_assert_eq!(read(stream.as_bytes(), &cuts), read(stream.as_bytes(), &[]));
        }
    }
}
