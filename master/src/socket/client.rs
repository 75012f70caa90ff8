//! One connection: a request, its reply, and an end that no reply is lost in.

use super::framing::{Inbox, Intake, LONGEST};
use super::protocol::{self, Request};
use super::reply::Form;
use super::{Server, Settings};
use crate::remote::Order;
use crate::script::Strictness;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long a client may take to read its reply.
const READS_WITHIN: Duration = Duration::from_secs(30);
/// How long, and how much, it may still say when it has its reply: unread bytes would make the close a
/// reset, which may overtake the reply.
const LINGER: Duration = Duration::from_secs(1);
const MOST_UNREAD: usize = 2 * LONGEST;
const CHUNK: usize = 16 * 1024;

/// Serves one client.
pub(super) async fn attend(tcp: TcpStream, from: SocketAddr, server: &Server) {
    let Settings { patience, .. } = server.settings;
    // replies are a few small writes
    drop(tcp.set_nodelay(true));
    let Some(acceptor) = &server.acceptor else {
        return converse(tcp, from, server).await;
    };
    match timeout(patience, acceptor.accept(tcp).into_fallible()).await {
        Ok(Ok(stream)) => converse(stream, from, server).await,
        Ok(Err((error, tcp))) => {
            tracing::debug!(%from, "no TLS on the control socket: {error}");
            end(tcp).await;
        }
        Err(_) => tracing::debug!(%from, "a TLS handshake on the control socket took too long"),
    }
}

/// Tells a client that there is no room for it.
pub(super) async fn turn_away(tcp: TcpStream, server: &Server) {
    let lines = Form::Python.refused(&format!("{} clients are connected already", server.settings.most_clients));
    // behind TLS nobody could read it
    let lines = if server.acceptor.is_some() { Vec::new() } else { lines };
    say(tcp, &lines, server).await;
}

async fn converse(mut stream: impl AsyncRead + AsyncWrite + Unpin, from: SocketAddr, server: &Server) {
    let lines = match request(&mut stream, server).await {
        Ok(Intake::Whole(request)) => answer(&request, from, server).await,
        // a frame that is too long gets no word, as in the seed
        Ok(Intake::TooLong) if server.settings.framing == super::Framing::Raw => {
            Form::Python.unreadable(&format!("a request has at most {LONGEST} bytes"))
        }
        Ok(Intake::TooLong | Intake::Nothing | Intake::More) => Vec::new(),
        Err(error) => {
            tracing::debug!(%from, "a client of the control socket is gone: {error}");
            return;
        }
    };
    say(stream, &lines, server).await;
}

/// What the client asks for; what there is of it when its time is over.
async fn request(stream: &mut (impl AsyncRead + Unpin), server: &Server) -> io::Result<Intake> {
    let mut inbox = Inbox::new(server.settings.framing);
    let mut chunk = vec![0; CHUNK];
    let reading = async {
        loop {
            let read = stream.read(&mut chunk).await?;
            if read == 0 {
                return io::Result::Ok(Intake::More);
            }
            let intake = inbox.push(chunk.get(..read).unwrap_or_default());
            if intake != Intake::More {
                return Ok(intake);
            }
        }
    };
    let read = tokio::select! {
        read = timeout(server.settings.patience, reading) => read.unwrap_or(Ok(Intake::More)),
        () = server.quit.cancelled() => return Ok(Intake::Nothing),
    };
    match read? {
        Intake::More => Ok(inbox.end()),
        intake => Ok(intake),
    }
}

async fn answer(request: &[u8], from: SocketAddr, server: &Server) -> Vec<String> {
    match protocol::read(request, server.settings.token.as_ref()) {
        Request::Run { document, form } => run(document, form, from, server).await,
        Request::Nothing(form) => form.nothing(),
        Request::Unreadable(why, form) => form.unreadable(&why),
        Request::Refused(why, form) => {
            tracing::warn!(%from, "refused on the control socket: {why}");
            form.refused(why)
        }
        Request::Quit(form) => {
            tracing::info!(%from, "the control socket was asked to end");
            server.quit.cancel();
            // whoever reads this may take the port at once
            server.closed.cancelled().await;
            form.bye()
        }
    }
}

/// Runs a document when its turn comes; the end of the server drains it.
async fn run(document: Vec<u8>, form: Form, from: SocketAddr, server: &Server) -> Vec<String> {
    // clients wait here in their order, so that together they leave room for others in the queue
    let place = tokio::select! {
        place = server.places.acquire() => place.ok(),
        () = server.quit.cancelled() => None,
    };
    let Some(_place) = place else {
        return form.unreadable("the control socket is ending: the document was not run");
    };
    let order = Order {
        document,
        strictness: Strictness::Lenient,
        label: Some("socket".into()),
        by: format!("socket {from}"),
        policy: server.settings.policy.clone(),
    };
    let job = match server.app.submit(order) {
        Ok(job) => job,
        Err(error) => return form.not_taken(&error),
    };
    let finished = tokio::select! {
        finished = job.finished() => finished,
        () = server.quit.cancelled() => {
            job.caller.control.stop.cancel();
            job.finished().await
        }
    };
    if finished.outcomes.is_empty() {
        return form.unreadable("ended before its turn: the document was not run");
    }
    let runs: Vec<String> = job.runs().iter().map(|run| run.measured.run.to_string()).collect();
    form.outcomes(&finished, &runs)
}

async fn say(mut stream: impl AsyncRead + AsyncWrite + Unpin, lines: &[String], server: &Server) {
    let bytes: Vec<u8> = lines.iter().flat_map(|line| server.settings.framing.wrap(line)).collect();
    let said = timeout(READS_WITHIN, async {
        stream.write_all(&bytes).await?;
        stream.flush().await
    });
    if matches!(said.await, Ok(Ok(()))) {
        end(stream).await;
    }
}

/// Ends our side, and takes a little of what the client still says.
async fn end(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    let ended = async {
        stream.shutdown().await?;
        let (mut chunk, mut unread) = (vec![0; CHUNK], 0);
        while unread < MOST_UNREAD {
            match stream.read(&mut chunk).await? {
                0 => break,
                read => unread += read,
            }
        }
        io::Result::Ok(())
    };
    // it has its reply; how it takes its leave is its own affair
    drop(timeout(LINGER, ended).await);
}
