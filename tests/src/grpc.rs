//! A gRPC server that breaks the rules, byte by byte.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

/// What a [`RawServer`] does with a call.
#[derive(Clone, Debug)]
pub enum Step {
    /// Sends these bytes.
    Send(Vec<u8>),
    /// Sends these again and again, until nobody takes them.
    Flood(Vec<u8>),
    /// Closes the connection in order.
    Close,
    /// Breaks the connection off.
    Reset,
}

/// An HTTP/2 server made of bytes, on a free loopback port, one thread a connection.
#[derive(Debug)]
pub struct RawServer {
    port: u16,
    calls: Arc<AtomicU64>,
    connections: Arc<AtomicU64>,
}

impl RawServer {
    /// Answers each call with the steps that `answer` gives for the number of its connection, from 0,
    /// and its stream. Lives until the process ends.
    pub fn start(answer: impl Fn(u64, u32) -> Vec<Step> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has free ports");
        let port = listener.local_addr().expect("a bound socket has an address").port();
        let (calls, connections) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let (count, number, answer) = (Arc::clone(&calls), Arc::clone(&connections), Arc::new(answer));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (count, answer) = (Arc::clone(&count), Arc::clone(&answer));
                let number = number.fetch_add(1, Ordering::SeqCst);
                thread::spawn(move || serve(stream, number, &count, &*answer));
            }
        });
        Self { port, calls, connections }
    }

    /// `127.0.0.1:PORT`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Calls that came in whole.
    pub fn calls(&self) -> u64 {
        self.calls.load(Ordering::SeqCst)
    }

    /// Connections that came.
    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::SeqCst)
    }
}

/// Reads frames; plays the steps of each call that has come in whole. Ends when the peer does.
fn serve(mut stream: TcpStream, number: u64, calls: &AtomicU64, answer: &dyn Fn(u64, u32) -> Vec<Step>) {
    let mut preface = [0; 24];
    if stream.read_exact(&mut preface).is_err() || stream.write_all(&frame(4, 0, 0, &[])).is_err() {
        return;
    }
    let mut head = [0; 9];
    while stream.read_exact(&mut head).is_ok() {
        let [l2, l1, l0, kind, flags, s3, s2, s1, s0] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, l2, l1, l0]) as usize];
        if stream.read_exact(&mut payload).is_err() {
            return;
        }
        // DATA or HEADERS that end their stream
        if kind > 1 || flags & 1 == 0 {
            continue;
        }
        calls.fetch_add(1, Ordering::SeqCst);
        for step in answer(number, u32::from_be_bytes([s3, s2, s1, s0])) {
            match step {
                Step::Send(bytes) => {
                    if stream.write_all(&bytes).is_err() {
                        return;
                    }
                }
                Step::Flood(bytes) => while stream.write_all(&bytes).is_ok() {},
                Step::Close => {
                    // what came and was not read would make a reset of it
                    drop(stream.shutdown(std::net::Shutdown::Write));
                    drop(std::io::copy(&mut stream, &mut std::io::sink()));
                    return;
                }
                Step::Reset => {
                    let linger = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
                    return linger.expect("a socket may linger");
                }
            }
        }
    }
}

/// A frame of HTTP/2.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [_, l2, l1, l0] = u32::try_from(payload.len()).expect("frames of tests are small").to_be_bytes();
    [&[l2, l1, l0, kind, flags], &stream.to_be_bytes()[..], payload].concat()
}

/// A HEADERS frame of these headers; `end`: the stream ends with it.
pub fn headers(stream: u32, headers: &[(&str, &str)], end: bool) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in headers {
        // a literal that is not to be remembered
        block.push(0);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).ok().filter(|len| *len < 127).expect("headers of tests are short"));
            block.extend_from_slice(text.as_bytes());
        }
    }
    frame(1, 4 | u8::from(end), stream, &block)
}

/// The headers of an answer that is in order so far.
pub fn answer_head(stream: u32) -> Vec<u8> {
    headers(stream, &[(":status", "200"), ("content-type", "application/grpc")], false)
}

/// A DATA frame with one message.
pub fn message(stream: u32, message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).expect("messages of tests are small").to_be_bytes();
    frame(0, 0, stream, &[&[0][..], &length, message].concat())
}

/// Trailers with this status.
pub fn trailers(stream: u32, status: &str) -> Vec<u8> {
    headers(stream, &[("grpc-status", status)], true)
}
