//! Sockets of the simulated network, as the shells want them, and what is seen on a worker's way to the master.

use super::truth::Shared;
use ld_shared::message::{LINK_QUEUE, ToWorker};
use ld_worker::link::grpc::GrpcDial;
use ld_worker::link::socket::{Connect, Listen, Socket};
use ld_worker::link::{Channel, Dial};
use ld_worker::membership::Unreached;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use turmoil::net::{TcpListener, TcpStream};

/// A connection. The worker's end tells when it closes.
pub(crate) struct Wire {
    stream: TcpStream,
    end_of: Option<(Shared, usize)>,
}

impl Drop for Wire {
    fn drop(&mut self) {
        if let Some((truth, worker)) = &self.end_of {
            truth.lock().disconnected(*worker);
        }
    }
}

impl Socket for Wire {
    fn set_nodelay(&self, nodelay: bool) -> io::Result<()> {
        self.stream.set_nodelay(nodelay)
    }

    async fn peek(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.peek(buffer).await
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// The master's port.
pub(crate) struct Port(pub(crate) TcpListener);

impl Listen for Port {
    type Socket = Wire;

    async fn accept(&self) -> io::Result<(Wire, SocketAddr)> {
        let (stream, address) = self.0.accept().await?;
        Ok((Wire { stream, end_of: None }, address))
    }
}

/// What opens a worker's connections.
#[derive(Clone)]
pub(crate) struct Way {
    pub(crate) truth: Shared,
    pub(crate) worker: usize,
}

impl Connect for Way {
    type Socket = Wire;

    async fn connect(&self, address: &str) -> io::Result<Wire> {
        match TcpStream::connect(address).await {
            Ok(stream) => Ok(Wire { stream, end_of: Some((self.truth.clone(), self.worker)) }),
            // turmoil refuses where the first segment is lost; in a network that loses it nobody answers. A real
            // refusal would say that the master's process is gone, and here it never is before the end
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::future::pending().await,
            Err(error) => Err(error),
        }
    }
}

/// Dials, and tells as whom the master lets the worker in.
pub(crate) struct Watched(pub(crate) GrpcDial<Way>);

impl Dial for Watched {
    async fn dial(&mut self) -> Result<Channel, Unreached> {
        let Channel { up, mut down } = self.0.dial().await?;
        let (to_link, watched) = mpsc::channel(LINK_QUEUE);
        let Way { truth, worker } = self.0.connect.clone();
        tokio::spawn(async move {
            loop {
                let message = tokio::select! {
                    message = down.recv() => message,
                    // the connection is dropped on this end: so is the other half of it
                    () = to_link.closed() => None,
                };
                let Some(message) = message else { return };
                if let Ok(ToWorker::Welcome { session, .. }) = &message {
                    truth.lock().welcome(worker, *session);
                }
                if to_link.send(message).await.is_err() {
                    return;
                }
            }
        });
        Ok(Channel { up, down: watched })
    }
}
