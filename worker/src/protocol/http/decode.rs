//! Content codings: gzip, deflate, br, zstd.

use super::answer::malformed;
use ld_shared::sample::Failure;
use std::io::Read;

/// Most bytes that a decoded body may have: a small answer must not fill the memory.
const MAX_DECODED: u64 = 256 * 1024 * 1024;

/// How a body is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coding {
    Identity,
    Gzip,
    Deflate,
    Brotli,
    Zstd,
    /// Another one, or several: the body is shown as it came.
    Unknown,
}

impl Coding {
    /// From the value of `Content-Encoding`.
    pub(super) fn of(value: &[u8]) -> Self {
        match value.trim_ascii().to_ascii_lowercase().as_slice() {
            b"" | b"identity" => Self::Identity,
            b"gzip" | b"x-gzip" => Self::Gzip,
            b"deflate" => Self::Deflate,
            b"br" => Self::Brotli,
            b"zstd" => Self::Zstd,
            _ => Self::Unknown,
        }
    }

    /// The first `wanted` bytes of the decoded body, and its whole length.
    pub(super) fn decode(self, body: Vec<u8>, wanted: usize) -> Result<(Vec<u8>, u64), Failure> {
        if body.is_empty() {
            return Ok((body, 0));
        }
        let mut zlib;
        let mut raw;
        let mut gzip;
        let mut brotli;
        let mut zstd;
        let reader: &mut dyn Read = match self {
            Self::Identity | Self::Unknown => {
                let length = body.len() as u64;
                let mut body = body;
                body.truncate(wanted);
                return Ok((body, length));
            }
            Self::Gzip => {
                gzip = flate2::read::MultiGzDecoder::new(body.as_slice());
                &mut gzip
            }
            // Servers send both: zlib's form as the standard says, and the bare one.
            Self::Deflate
                if body[0] & 0x0f == 8
                    && body.get(1).is_some_and(|b| (u16::from(body[0]) << 8 | u16::from(*b)) % 31 == 0) =>
            {
                zlib = flate2::read::ZlibDecoder::new(body.as_slice());
                &mut zlib
            }
            Self::Deflate => {
                raw = flate2::read::DeflateDecoder::new(body.as_slice());
                &mut raw
            }
            Self::Brotli => {
                brotli = brotli::Decompressor::new(body.as_slice(), 4096);
                &mut brotli
            }
            Self::Zstd => {
                zstd = zstd::stream::read::Decoder::new(body.as_slice()).map_err(|_| self.corrupt())?;
                &mut zstd
            }
        };
        let mut out = Vec::new();
        (&mut *reader).take(wanted as u64).read_to_end(&mut out).map_err(|_| self.corrupt())?;
        let mut length = out.len() as u64;
        let mut rest = [0; 8 * 1024];
        loop {
            match reader.read(&mut rest).map_err(|_| self.corrupt())? {
                0 => return Ok((out, length)),
                n => length += n as u64,
            }
            if length > MAX_DECODED {
                return Err(malformed("the decoded body is longer than 256 MiB"));
            }
        }
    }

    fn corrupt(self) -> Failure {
        malformed(match self {
            Self::Gzip => "corrupt gzip body",
            Self::Deflate => "corrupt deflate body",
            Self::Brotli => "corrupt br body",
            Self::Zstd => "corrupt zstd body",
            Self::Identity | Self::Unknown => "corrupt body",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use std::io::Write;

    #[test]
    fn codings_are_undone() {
        let text = b"hello ".repeat(1_000);
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), Compression::default());
        gzip.write_all(&text).unwrap();
        let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), Compression::default());
        zlib.write_all(&text).unwrap();
        let mut raw = flate2::write::DeflateEncoder::new(Vec::new(), Compression::default());
        raw.write_all(&text).unwrap();
        let mut br = Vec::new();
        brotli::CompressorWriter::new(&mut br, 4096, 5, 22).write_all(&text).unwrap();
        for (name, bytes) in [
            ("gzip", gzip.finish().unwrap()),
            ("deflate", zlib.finish().unwrap()),
            ("Deflate", raw.finish().unwrap()),
            ("br", br),
            ("zstd", zstd::encode_all(text.as_slice(), 3).unwrap()),
            ("identity", text.clone()),
        ] {
            let coding = Coding::of(name.as_bytes());
            assert_eq!(coding.decode(bytes.clone(), 10), Ok((b"hello hell".to_vec(), 6_000)), "{name}");
            if coding != Coding::Identity {
                let cut = bytes[..bytes.len() / 2].to_vec();
                assert!(coding.decode(cut, 10_000).is_err(), "{name}");
            }
        }
    }
}
