//! The chunked transfer coding (RFC 9112, 7.1), one piece at a time.

/// Most bytes of chunk extensions and trailers of one answer.
const MAX_EXTRAS: u32 = 64 * 1024;

/// Where in the coding a stream of pieces stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Chunked {
    place: Place,
    /// Digits of the size seen, or bytes of data left.
    left: u64,
    digits: u8,
    extras: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Size,
    Extension,
    Data,
    DataEnd,
    /// At the beginning of a trailer line, or of the empty line that ends the body.
    Trailer,
    TrailerLine,
    Done,
}

impl Chunked {
    pub(super) fn new() -> Self {
        Self { place: Place::Size, left: 0, digits: 0, extras: 0 }
    }

    pub(super) fn is_done(self) -> bool {
        self.place == Place::Done
    }

    /// Takes what of `bytes` belongs to the body and hands its data to `data`. Returns how many bytes
    /// were taken: all, unless the body ended.
    pub(super) fn feed(&mut self, bytes: &[u8], mut data: impl FnMut(&[u8])) -> Result<usize, &'static str> {
        let mut at = 0;
        while at < bytes.len() && self.place != Place::Done {
            if self.place == Place::Data {
                let take = usize::try_from(self.left).map_or(bytes.len() - at, |left| left.min(bytes.len() - at));
                data(&bytes[at..at + take]);
                at += take;
                self.left -= take as u64;
                if self.left == 0 {
                    self.place = Place::DataEnd;
                }
                continue;
            }
            self.step(bytes[at])?;
            at += 1;
        }
        Ok(at)
    }

    fn step(&mut self, byte: u8) -> Result<(), &'static str> {
        match (self.place, byte) {
            (Place::Size, _) if byte.is_ascii_hexdigit() => {
                if self.left >> 60 != 0 {
                    return Err("chunk size too large");
                }
                let digit = char::from(byte).to_digit(16).expect("a hexadecimal digit was seen");
                self.left = self.left << 4 | u64::from(digit);
                self.digits = 1;
            }
            (Place::Size, b'\r' | b'\n' | b';' | b' ' | b'\t') if self.digits == 0 => {
                return Err("malformed chunk size");
            }
            (Place::Size | Place::Extension, b'\n') => {
                self.place = if self.left == 0 { Place::Trailer } else { Place::Data };
                self.digits = 0;
            }
            (Place::Size, b'\r' | b';' | b' ' | b'\t') => self.place = Place::Extension,
            (Place::Size, _) => return Err("malformed chunk size"),
            (Place::DataEnd | Place::Trailer, b'\r') => {}
            (Place::DataEnd, b'\n') => self.place = Place::Size,
            (Place::DataEnd, _) => return Err("chunk longer than its size"),
            (Place::Trailer, b'\n') => self.place = Place::Done,
            (Place::TrailerLine, b'\n') => self.place = Place::Trailer,
            (Place::Extension | Place::Trailer | Place::TrailerLine, _) => {
                if self.place == Place::Trailer {
                    self.place = Place::TrailerLine;
                }
                self.extras += 1;
                if self.extras > MAX_EXTRAS {
                    return Err("chunk extensions or trailers too long");
                }
            }
            (Place::Data | Place::Done, _) => unreachable!("feed handles both"),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(bytes: &[u8]) -> Result<(Vec<u8>, usize, bool), &'static str> {
        let mut chunked = Chunked::new();
        let mut out = Vec::new();
        let taken = chunked.feed(bytes, |data| out.extend_from_slice(data))?;
        Ok((out, taken, chunked.is_done()))
    }

    #[test]
    fn bodies_are_decoded() {
        for (bytes, body, rest, done) in [
            ("0\r\n\r\nX", "", 1, true),
            ("3\r\nabc\r\n0\r\n\r\n", "abc", 0, true),
            ("3;n=v\r\nabc\r\n00a \r\n0123456789\r\n0\r\nA: b\r\nC: d\r\n\r\n", "abc0123456789", 0, true),
            ("3\nabc\n0\n\n", "abc", 0, true),
            ("3\r\nab", "ab", 0, false),
        ] {
            let (out, taken, is_done) = decode(bytes.as_bytes()).unwrap();
            assert_eq!((out, bytes.len() - taken, is_done), (body.as_bytes().to_vec(), rest, done), "{bytes}");
        }
        for bad in ["\r\n", "g\r\n", "-1\r\n", "3\r\nabcd\r\n", "11111111111111111\r\n", ";\r\n"] {
            assert!(decode(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
