//! Clients of the control socket, and the sessions of the seed's that are replayed.

use crate::process::{Process, command};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Longest wait for a reply.
const LIMIT: Duration = Duration::from_mins(1);

/// A running `ld-master serve` on a free port.
#[derive(Debug)]
pub struct Served {
    /// The process.
    pub process: Process,
    /// Its port.
    pub port: u16,
}

impl Served {
    /// Starts it in `folder`.
    pub fn start(folder: &Path, flags: &[&str], env: &[(&str, &str)]) -> Self {
        let mut command = command("ld-master", folder);
        command.args(["serve", "--port", "0"]).args(flags).envs(env.iter().copied());
        let mut process = Process::start("ld-master serve", command);
        let line = process.line_with("control socket on");
        let address = line.split_whitespace().nth(3).expect("the address stands fourth");
        let port = address.rsplit(':').next().and_then(|port| port.parse().ok());
        Self { process, port: port.expect("an address ends with its port") }
    }

    /// A connection to it.
    pub fn connect(&self) -> TcpStream {
        connect(self.port)
    }

    /// The reply to a request of a client that then waits, up to the end of the connection.
    pub fn ask(&self, request: &[u8]) -> Vec<u8> {
        reply(self.connect(), request).expect("the connection ends without an error")
    }
}

/// A connection to a port of this machine, with time limits.
pub fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).expect("somebody listens");
    stream.set_read_timeout(Some(LIMIT)).expect("a limit of more than nothing");
    stream.set_write_timeout(Some(LIMIT)).expect("a limit of more than nothing");
    stream
}

/// Sends, and reads to the end of the connection.
pub fn reply(mut stream: impl Read + Write, request: &[u8]) -> io::Result<Vec<u8>> {
    stream.write_all(request)?;
    stream.flush()?;
    let mut reply = Vec::new();
    stream.read_to_end(&mut reply)?;
    Ok(reply)
}

/// The same, but the client says first that it says no more.
pub fn last_reply(mut stream: TcpStream, request: &[u8]) -> io::Result<Vec<u8>> {
    stream.write_all(request)?;
    stream.shutdown(Shutdown::Write)?;
    reply(stream, b"")
}

/// The request with its length before it.
pub fn framed(body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).expect("short requests");
    [&length.to_be_bytes()[..], body].concat()
}

/// TLS to a server whose certificate `ca` signed.
pub fn secured(stream: TcpStream, ca: &Path) -> StreamOwned<ClientConnection, TcpStream> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca).expect("a certificate")).expect("a certificate");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.expect("known versions").with_root_certificates(roots).with_no_client_auth();
    let name = ServerName::try_from("localhost").expect("a name");
    StreamOwned::new(ClientConnection::new(Arc::new(config), name).expect("good settings"), stream)
}

/// The hello of a client that speaks nothing newer than TLS 1.0.
pub fn tls10_hello() -> Vec<u8> {
    let body = [&[3, 1][..], &[7; 32], &[0, 0, 2, 0, 0x2f, 1, 0]].concat();
    let length = u8::try_from(body.len()).expect("short");
    [&[0x16, 3, 1, 0, length + 4, 1, 0, 0, length][..], &body].concat()
}

/// An exchange of a session that was captured from the seed.
#[derive(Clone, Debug)]
pub struct Exchange {
    /// Heading of its part of the session.
    pub part: String,
    /// What it shows.
    pub name: String,
    /// What the client sent; what is long was cut when it was captured.
    pub sent: Vec<u8>,
    /// What it got up to the end of the connection.
    pub got: Vec<u8>,
}

/// The exchanges of a captured session.
pub fn session(text: &str) -> Vec<Exchange> {
    let (mut part, mut before, mut sent) = (String::new(), "", None);
    let mut exchanges = Vec::new();
    for line in text.lines() {
        if let Some(heading) = line.strip_prefix("== ") {
            heading.clone_into(&mut part);
        } else if let Some(bytes) = line.strip_prefix("  > ") {
            sent = Some(literal(bytes));
        } else if let Some((bytes, sent)) = line.strip_prefix("  < ").zip(sent.take()) {
            let mut got = literal(bytes);
            let end = b"<EOF>";
            // without it the connection was reset
            if got.ends_with(end) {
                got.truncate(got.len() - end.len());
                exchanges.push(Exchange { part: part.clone(), name: before.to_owned(), sent, got });
            }
        } else {
            before = line;
        }
    }
    exchanges
}

/// The bytes of Python's `b'…'`.
fn literal(text: &str) -> Vec<u8> {
    let inner = text.get(2..text.len() - 1).unwrap_or_default();
    let (mut bytes, mut rest) = (Vec::new(), inner.as_bytes());
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        let (&escaped, after) = rest.split_first().expect("Python closes what it opens");
        rest = after;
        match escaped {
            b'n' => bytes.push(b'\n'),
            b'r' => bytes.push(b'\r'),
            b't' => bytes.push(b'\t'),
            b'x' => {
                let (digits, after) = rest.split_at(2);
                rest = after;
                let digits = std::str::from_utf8(digits).expect("two digits");
                bytes.push(u8::from_str_radix(digits, 16).expect("two digits"));
            }
            other => bytes.push(other),
        }
    }
    bytes
}
