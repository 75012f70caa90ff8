//! What a connection between worker and master runs over: TCP, or a double of it in tests.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};

/// A connection.
pub trait Socket: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// [`TcpStream::set_nodelay`].
    fn set_nodelay(&self, nodelay: bool) -> io::Result<()>;
    /// [`TcpStream::peek`].
    fn peek(&mut self, buffer: &mut [u8]) -> impl Future<Output = io::Result<usize>> + Send;
}

/// Opens connections.
pub trait Connect: Clone + Send + Sync + 'static {
    /// What it opens.
    type Socket: Socket;
    /// Opens one to `HOST:PORT`.
    fn connect(&self, address: &str) -> impl Future<Output = io::Result<Self::Socket>> + Send;
}

/// Takes connections.
pub trait Listen: Send + 'static {
    /// What it takes.
    type Socket: Socket;
    /// The next one, and whose it is. Cancel safe.
    fn accept(&self) -> impl Future<Output = io::Result<(Self::Socket, SocketAddr)>> + Send;
}

/// Connections of this machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tcp;

impl Connect for Tcp {
    type Socket = TcpStream;

    async fn connect(&self, address: &str) -> io::Result<TcpStream> {
        TcpStream::connect(address).await
    }
}

impl Listen for TcpListener {
    type Socket = TcpStream;

    async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        Self::accept(self).await
    }
}

impl Socket for TcpStream {
    fn set_nodelay(&self, nodelay: bool) -> io::Result<()> {
        Self::set_nodelay(self, nodelay)
    }

    async fn peek(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        Self::peek(self, buffer).await
    }
}
