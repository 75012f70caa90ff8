//! A wire tap: relays TCP and keeps every byte that passes.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// A relay on a free loopback port, to one address. Lives until the process ends.
#[derive(Clone, Debug)]
pub struct Tap {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<u8>>>,
}

impl Tap {
    /// Relays to `target`, which need not be there yet.
    pub fn start(target: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has free ports");
        let address = listener.local_addr().expect("a bound socket has an address");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&seen);
        thread::spawn(move || {
            for near in listener.incoming().flatten() {
                // who knocks before the target is there is turned away
                let Ok(far) = TcpStream::connect(&target) else { continue };
                let (Ok(from_near), Ok(from_far)) = (near.try_clone(), far.try_clone()) else { continue };
                let (up, down) = (Arc::clone(&kept), Arc::clone(&kept));
                thread::spawn(move || copy(from_near, far, &up));
                thread::spawn(move || copy(from_far, near, &down));
            }
        });
        Self { address, seen }
    }

    /// `HOST:PORT` of its near side.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Every byte that passed, both ways, in the order of passing.
    pub fn seen(&self) -> Vec<u8> {
        self.seen.lock().expect("no thread panics while it holds this").clone()
    }

    /// Whether these bytes passed in one piece.
    pub fn saw(&self, needle: &[u8]) -> bool {
        self.seen().windows(needle.len()).any(|window| window == needle)
    }
}

fn copy(mut from: TcpStream, mut to: TcpStream, seen: &Mutex<Vec<u8>>) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(n) = from.read(&mut buffer) {
        if n == 0 {
            break;
        }
        seen.lock().expect("no thread panics while it holds this").extend_from_slice(&buffer[..n]);
        if to.write_all(&buffer[..n]).is_err() {
            break;
        }
    }
    // the other side may be gone already
    drop(to.shutdown(Shutdown::Write));
}
