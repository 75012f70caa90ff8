//! Bare loops over the libraries that protocols stand on, and servers that answer them: what
//! `tests/bench protocols` holds ld-master against. One core, no statistics, no checks.
//!
//! ```text
//! bare serve ws|tcp|udp|grpc ADDRESS                     answers until it is ended
//! bare load ws|tcp|udp|grpc|mqtt|h2|h3 ADDRESS USERS SECONDS   prints how many exchanges there were
//! ```

#![expect(clippy::print_stdout, reason = "the number of exchanges is what it is for")]
#![expect(clippy::disallowed_methods, reason = "a bare loop stands on nothing of ours, its clock included")]

use bytes::{Buf as _, Bytes};
use futures_util::{SinkExt as _, StreamExt as _};
use std::cell::Cell;
use std::error::Error;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::runtime::{Builder, LocalOptions};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

const TEXT: &str = "hello, hello";

fn main() -> Outcome {
    // only the first of a process takes effect, and this is it
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
    match words.as_slice() {
        ["serve", protocol, address] => runtime.block_on(serve(protocol, address.parse()?)),
        ["load", protocol, address, users, seconds] => {
            let end = Instant::now() + Duration::from_secs_f64(seconds.parse()?);
            let work = load(protocol, address.parse()?, users.parse()?, end);
            println!("{}", runtime.block_on(work)?);
            Ok(())
        }
        _ => Err("usage: bare serve|load PROTOCOL ADDRESS [USERS SECONDS]".into()),
    }
}

async fn serve(protocol: &str, address: SocketAddr) -> Outcome {
    if protocol == "udp" {
        let socket = UdpSocket::bind(address).await?;
        let mut buffer = [0; 2_048];
        loop {
            let (length, peer) = socket.recv_from(&mut buffer).await?;
            socket.send_to(&buffer[..length], peer).await?;
        }
    }
    let listener = TcpListener::bind(address).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        match protocol {
            "ws" => spawn(echo_messages(stream)),
            "tcp" => spawn(echo_bytes(stream)),
            "grpc" => spawn(answer_calls(stream)),
            other => return Err(format!("no server for {other}").into()),
        }
    }
}

/// Peers come and go: how one of them ends is of no interest.
fn spawn(work: impl Future<Output = Outcome> + 'static) {
    tokio::task::spawn_local(async move { drop(work.await) });
}

/// Echoes, pings every ten seconds, and lets go of a client that has not answered by the next time.
async fn echo_messages(stream: TcpStream) -> Outcome {
    let config = WebSocketConfig::default().read_buffer_size(4_096).write_buffer_size(0);
    let mut socket = tokio_tungstenite::accept_async_with_config(stream, Some(config)).await?;
    let mut beat = tokio::time::interval(Duration::from_secs(10));
    let mut is_owed = false;
    loop {
        tokio::select! {
            message = socket.next() => match message {
                Some(Ok(message)) if message.is_text() || message.is_binary() => socket.send(message).await?,
                Some(Ok(message)) => is_owed &= !message.is_pong(),
                Some(Err(error)) => return Err(error.into()),
                None => return Ok(()),
            },
            _ = beat.tick() => {
                if is_owed {
                    return Err("no pong".into());
                }
                socket.send(Message::Ping(Bytes::new())).await?;
                is_owed = true;
            }
        }
    }
}

async fn echo_bytes(mut stream: TcpStream) -> Outcome {
    let mut buffer = [0; 2_048];
    loop {
        match stream.read(&mut buffer).await? {
            0 => return Ok(()),
            length => stream.write_all(&buffer[..length]).await?,
        }
    }
}

/// Sends each call's message back.
async fn answer_calls(stream: TcpStream) -> Outcome {
    let mut connection = h2::server::handshake(stream).await?;
    while let Some(call) = connection.accept().await {
        let (request, mut respond) = call?;
        spawn(async move {
            let mut body = request.into_body();
            let mut message = Vec::new();
            while let Some(part) = body.data().await {
                let part = part?;
                body.flow_control().release_capacity(part.len())?;
                message.extend_from_slice(&part);
            }
            let head = http::Response::builder().header("content-type", "application/grpc").body(())?;
            let mut stream = respond.send_response(head, false)?;
            stream.send_data(message.into(), false)?;
            stream.send_trailers(http::HeaderMap::from_iter([("grpc-status".parse()?, "0".parse()?)]))?;
            Ok(())
        });
    }
    Ok(())
}

async fn load(protocol: &str, address: SocketAddr, users: usize, end: Instant) -> Outcome<u64> {
    let count = Rc::new(Cell::new(0));
    let endpoint = (protocol == "h3").then(quic).transpose()?;
    let mut all = tokio::task::JoinSet::new();
    for user in 0..users {
        let turns = Turns { end, count: Rc::clone(&count) };
        let endpoint = endpoint.clone();
        let protocol = protocol.to_owned();
        all.spawn_local(async move {
            match protocol.as_str() {
                "ws" => messages(address, turns).await,
                "tcp" => bytes(address, turns).await,
                "udp" => datagrams(address, turns).await,
                "grpc" => calls(address, turns).await,
                "h2" => pages(address, turns).await,
                "h3" => pages_over_quic(endpoint.expect("it was made for this protocol"), address, turns).await,
                "mqtt" => publishes(address, user, turns).await,
                other => Err(format!("no load for {other}").into()),
            }
            .map_err(|error| error.to_string())
        });
    }
    while let Some(ended) = all.join_next().await {
        ended??;
    }
    Ok(count.get())
}

/// Exchange after exchange until the end.
struct Turns {
    end: Instant,
    count: Rc<Cell<u64>>,
}

impl Turns {
    fn next(&self) -> bool {
        Instant::now() < self.end
    }

    fn done(&self) {
        self.count.set(self.count.get() + 1);
    }
}

async fn messages(address: SocketAddr, turns: Turns) -> Outcome {
    let stream = connect(address).await?;
    let (mut socket, _) = tokio_tungstenite::client_async(format!("ws://{address}/"), stream).await?;
    while turns.next() {
        socket.send(Message::text(TEXT)).await?;
        socket.next().await.ok_or("closed")??;
        turns.done();
    }
    Ok(())
}

async fn bytes(address: SocketAddr, turns: Turns) -> Outcome {
    let mut stream = connect(address).await?;
    let mut buffer = [0; TEXT.len()];
    while turns.next() {
        stream.write_all(TEXT.as_bytes()).await?;
        stream.read_exact(&mut buffer).await?;
        turns.done();
    }
    Ok(())
}

async fn datagrams(address: SocketAddr, turns: Turns) -> Outcome {
    let socket = UdpSocket::bind("127.0.0.1:0").await?;
    socket.connect(address).await?;
    let mut buffer = [0; 2_048];
    while turns.next() {
        socket.send(TEXT.as_bytes()).await?;
        socket.recv(&mut buffer).await?;
        turns.done();
    }
    Ok(())
}

/// A `CONNECT`, then a `PUBLISH` of quality 1 and its `PUBACK` each turn (MQTT 3.1.1).
async fn publishes(address: SocketAddr, user: usize, turns: Turns) -> Outcome {
    let mut stream = connect(address).await?;
    let id = format!("bare-{user:08}");
    let mut hello = vec![0x10, 12 + id.len() as u8, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 60, 0, id.len() as u8];
    hello.extend_from_slice(id.as_bytes());
    stream.write_all(&hello).await?;
    let mut acknowledged = [0; 4];
    stream.read_exact(&mut acknowledged).await?;
    let topic = "bench";
    let mut packet = vec![0x32, (4 + topic.len() + TEXT.len()) as u8, 0, topic.len() as u8];
    packet.extend_from_slice(topic.as_bytes());
    let number_at = packet.len();
    packet.extend_from_slice(&[0, 0]);
    packet.extend_from_slice(TEXT.as_bytes());
    let mut number = 0_u16;
    while turns.next() {
        number = number.checked_add(1).unwrap_or(1);
        packet[number_at..number_at + 2].copy_from_slice(&number.to_be_bytes());
        stream.write_all(&packet).await?;
        stream.read_exact(&mut acknowledged).await?;
        turns.done();
    }
    Ok(())
}

async fn http2(address: SocketAddr) -> Outcome<h2::client::SendRequest<Bytes>> {
    let (requests, connection) = h2::client::handshake(connect(address).await?).await?;
    spawn(async move { Ok(connection.await?) });
    Ok(requests)
}

async fn pages(address: SocketAddr, turns: Turns) -> Outcome {
    let mut requests = http2(address).await?;
    let url: http::Uri = format!("http://{address}/").parse()?;
    while turns.next() {
        poll_fn(|context| requests.poll_ready(context)).await?;
        let request = http::Request::get(url.clone()).version(http::Version::HTTP_2).body(())?;
        read(requests.send_request(request, true)?.0.await?.into_body()).await?;
        turns.done();
    }
    Ok(())
}

async fn calls(address: SocketAddr, turns: Turns) -> Outcome {
    let mut requests = http2(address).await?;
    let url: http::Uri = format!("http://{address}/greeter.Greeter/SayHello").parse()?;
    // field 1, a text, in a frame of its own
    let mut message = vec![0, 0, 0, 0, 2 + TEXT.len() as u8, 0x0a, TEXT.len() as u8];
    message.extend_from_slice(TEXT.as_bytes());
    let message = Bytes::from(message);
    while turns.next() {
        poll_fn(|context| requests.poll_ready(context)).await?;
        let request = http::Request::post(url.clone())
            .version(http::Version::HTTP_2)
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())?;
        let (answer, mut stream) = requests.send_request(request, false)?;
        stream.send_data(message.clone(), true)?;
        let mut body = answer.await?.into_body();
        while let Some(part) = body.data().await {
            body.flow_control().release_capacity(part?.len())?;
        }
        let trailers = body.trailers().await?.ok_or("no trailers")?;
        assert_eq!(trailers["grpc-status"], "0");
        turns.done();
    }
    Ok(())
}

async fn read(mut body: h2::RecvStream) -> Outcome {
    while let Some(part) = body.data().await {
        body.flow_control().release_capacity(part?.len())?;
    }
    Ok(())
}

/// An endpoint that trusts the authority in the file that `BARE_CA` names.
fn quic() -> Outcome<quinn::Endpoint> {
    use rustls::pki_types::{CertificateDer, pem::PemObject as _};
    let path = std::env::var("BARE_CA").map_err(|_| "BARE_CA names no file")?;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(path)?)?;
    let mut tls = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    tls.alpn_protocols = vec![b"h3".to_vec()];
    let tls = quinn::crypto::rustls::QuicClientConfig::try_from(tls)?;
    let mut endpoint = quinn::Endpoint::client("127.0.0.1:0".parse()?)?;
    endpoint.set_default_client_config(quinn::ClientConfig::new(Arc::new(tls)));
    Ok(endpoint)
}

async fn pages_over_quic(endpoint: quinn::Endpoint, address: SocketAddr, turns: Turns) -> Outcome {
    let connection = endpoint.connect(address, "localhost")?.await?;
    let (mut driver, mut requests) = h3::client::new(h3_quinn::Connection::new(connection)).await?;
    tokio::task::spawn_local(async move { drop(poll_fn(|context| driver.poll_close(context)).await) });
    let url: http::Uri = format!("https://localhost:{}/", address.port()).parse()?;
    while turns.next() {
        let mut stream = requests.send_request(http::Request::get(url.clone()).body(())?).await?;
        stream.finish().await?;
        stream.recv_response().await?;
        while let Some(mut part) = stream.recv_data().await? {
            part.advance(part.remaining());
        }
        turns.done();
    }
    Ok(())
}

async fn connect(address: SocketAddr) -> Outcome<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}
