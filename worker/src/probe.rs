//! Stamps of one exchange.

use ld_shared::sample::Failure;

/// Takes the stamps of one exchange. (The engine's author replaces the body; the calls stay.)
#[derive(Debug, Default)]
pub struct Probe {}

impl Probe {
    /// The exchange begins: the last thing before its first system call (resolve, connect, write).
    /// The lease is checked on this very clock reading. `Err`: nothing may start; return it as it
    /// is, and nothing is counted.
    pub fn start(&mut self) -> Result<(), Failure> {
        Ok(())
    }

    /// A name was resolved; time since the stamp before is DNS time.
    pub fn resolved(&mut self) {}

    /// A connection stands; time since the stamp before is connect time.
    pub fn connected(&mut self) {}

    /// The TLS handshake is done; time since the stamp before is TLS time.
    pub fn secured(&mut self) {}

    /// The whole request, so many bytes, was handed to the socket.
    pub fn written(&mut self, _bytes: u64) {}

    /// The read that just returned brought the answer's first byte.
    pub fn first_byte(&mut self) {}

    /// The read that just returned brought the answer's last byte. Also called when the exchange
    /// fails. `bytes`: all that were received on the wire for this exchange.
    pub fn end(&mut self, _bytes: u64) {}

    /// A limit of this machine (EMFILE, EADDRNOTAVAIL, ENOBUFS) kept the exchange from sending a
    /// byte: the request counts as dropped, `local_error`, never as the target's failure.
    pub fn local_error(&mut self) {}

    /// Deadline of the exchange, on this node's monotonic clock in nanoseconds: set by the engine
    /// before the exchange; the engine drops the future and records a time-out when it passes.
    pub fn deadline(&self) -> u64 {
        u64::MAX
    }
}
