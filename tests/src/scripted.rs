//! A server that answers with given bytes: for what no real server does on purpose.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

/// What a connection does, one step a request: bytes to answer with, then whether to close.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Written as they are.
    pub bytes: Vec<u8>,
    /// Close the connection afterwards.
    pub close: bool,
}

/// Raw answers on a free loopback port, one thread a connection. Requests must have no body.
#[derive(Debug)]
pub struct ScriptedServer {
    address: SocketAddr,
    requests: Arc<AtomicU64>,
}

impl ScriptedServer {
    /// Answers the n-th request (over all connections) with `answer(n)`. Lives until the process ends.
    pub fn start(answer: impl Fn(u64) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has free ports");
        let address = listener.local_addr().expect("a bound socket has an address");
        let requests = Arc::new(AtomicU64::new(0));
        let (counter, answer) = (Arc::clone(&requests), Arc::new(answer));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (counter, answer) = (Arc::clone(&counter), Arc::clone(&answer));
                thread::spawn(move || {
                    let mut stream = stream;
                    while read_head(&mut stream) {
                        let step = answer(counter.fetch_add(1, Ordering::SeqCst));
                        if stream.write_all(&step.bytes).is_err() || step.close {
                            return;
                        }
                    }
                });
            }
        });
        Self { address, requests }
    }

    /// `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Requests that arrived.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::SeqCst)
    }
}

fn read_head(stream: &mut std::net::TcpStream) -> bool {
    let mut last = [0; 4];
    let mut byte = [0];
    while stream.read_exact(&mut byte).is_ok() {
        last.rotate_left(1);
        last[3] = byte[0];
        if &last == b"\r\n\r\n" {
            return true;
        }
    }
    false
}
