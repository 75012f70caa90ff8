//! Ways out of the process: datagrams, HTTP posts, TLS.

use super::push::{Batch, Deliver, Undelivered};
use super::tally::Tally;
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HOST, HeaderMap, HeaderValue, USER_AGENT};
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use ld_shared::boot::task;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UdpSocket, lookup_host};
use tokio_rustls::TlsConnector;

/// What an answer may hold: nobody reads more of it than its beginning.
const ANSWER: usize = 64 << 10;
/// UDP's payload over IPv4.
const LONGEST_DATAGRAM: usize = 65_507;
/// Datagrams that are sent at a stretch: a receiver's buffer holds some hundred.
const STRETCH: u32 = 32;
const STRETCH_PAUSE: Duration = Duration::from_millis(1);
/// When a system has said of a datagram that nobody took it, it has done so by then.
const REFUSED_WITHIN: Duration = Duration::from_millis(50);

/// A stream, plain or not.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// How a peer's certificate is checked.
pub(super) fn tls(authority: Option<&Path>, alpn: &[&str]) -> Result<Arc<ClientConfig>, String> {
    let mut roots = RootCertStore::empty();
    if let Some(file) = authority {
        let certificates = CertificateDer::pem_file_iter(file).map_err(|e| format!("{}: {e}", file.display()))?;
        for certificate in certificates {
            let certificate = certificate.map_err(|e| format!("{}: {e}", file.display()))?;
            roots.add(certificate).map_err(|e| format!("{}: {e}", file.display()))?;
        }
        if roots.is_empty() {
            return Err(format!("{} holds no certificate", file.display()));
        }
    } else {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let mut config = builder.map_err(|e| e.to_string())?.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    Ok(Arc::new(config))
}

/// Connects to the authority of a URL.
pub(super) async fn connect(uri: &Uri, tls: Option<&Arc<ClientConfig>>) -> io::Result<Box<dyn Stream>> {
    let refuse = |why: &str| io::Error::new(io::ErrorKind::InvalidInput, why.to_owned());
    let host = uri.host().ok_or_else(|| refuse("no host"))?.trim_matches(['[', ']']);
    let default = if tls.is_some() { 443 } else { 80 };
    let stream = TcpStream::connect((host, uri.port_u16().unwrap_or(default))).await?;
    stream.set_nodelay(true)?;
    let Some(config) = tls else { return Ok(Box::new(stream)) };
    let name = ServerName::try_from(host.to_owned()).map_err(|_| refuse("not a valid server name"))?;
    Ok(Box::new(TlsConnector::from(Arc::clone(config)).connect(name, stream).await?))
}

/// Posts to one URL, over one connection as long as it lasts.
pub(super) struct Post {
    uri: Uri,
    tls: Option<Arc<ClientConfig>>,
    headers: HeaderMap,
    timeout: Duration,
    open: Option<SendRequest<Full<Bytes>>>,
}

impl Post {
    /// Posts with these headers. `https` needs `tls`.
    pub(super) fn new(uri: Uri, tls: Option<Arc<ClientConfig>>, mut headers: HeaderMap, timeout: Duration) -> Self {
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        let host = authority.rsplit('@').next().unwrap_or_default();
        if let Ok(host) = HeaderValue::from_str(host) {
            headers.insert(HOST, host);
        }
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("loaddensity/", env!("CARGO_PKG_VERSION"))));
        Self { uri, tls, headers, timeout, open: None }
    }

    async fn send(&mut self, body: &Bytes) -> Result<(StatusCode, Bytes), String> {
        let mut sender = match self.open.take() {
            Some(sender) if sender.is_ready() => sender,
            _ => self.dial().await?,
        };
        let path = self.uri.path_and_query().map_or("/", |path| path.as_str());
        let mut request = Request::post(path).body(Full::new(body.clone())).map_err(|e| e.to_string())?;
        *request.headers_mut() = self.headers.clone();
        request.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
        let answer = sender.send_request(request).await.map_err(|e| shown(&e))?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), ANSWER).collect().await.map_err(|e| shown(&*e))?.to_bytes();
        if sender.ready().await.is_ok() {
            self.open = Some(sender);
        }
        Ok((status, body))
    }

    async fn dial(&self) -> Result<SendRequest<Full<Bytes>>, String> {
        let stream = connect(&self.uri, self.tls.as_ref()).await.map_err(|e| shown(&e))?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(|e| shown(&e))?;
        // ends with its sender
        task::spawn("connection of an exporter", async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection of an exporter ended");
            }
        });
        Ok(sender)
    }
}

/// An error with its causes.
pub(super) fn shown(error: &(dyn std::error::Error + 'static)) -> String {
    crate::command::with_causes(error)
}

impl Deliver for Post {
    async fn deliver(&mut self, batch: &Batch) -> Result<(), Undelivered> {
        let sent = tokio::time::timeout(self.timeout, self.send(&batch.body)).await;
        let (status, body) = match sent {
            Err(_) => {
                self.open = None;
                return Err(Undelivered::again(format!("no answer within {} s", self.timeout.as_secs_f64())));
            }
            Ok(Err(why)) => return Err(Undelivered::again(why)),
            Ok(Ok(answer)) => answer,
        };
        if status.is_success() {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&body);
        let why = format!("answered {status} {}", super::names::cut(text.trim(), 300));
        let again =
            status.is_server_error() || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT);
        Err(Undelivered { why, again })
    }
}

/// Sends datagrams to one place.
pub(super) struct Datagrams {
    place: String,
    tally: Arc<Tally>,
    socket: Option<UdpSocket>,
    /// What the datagram before was worth, which a system may yet say nobody took.
    before: u64,
    sent: u32,
}

impl Datagrams {
    /// Datagrams to `HOST:PORT`.
    pub(super) fn new(place: String, tally: Arc<Tally>) -> Self {
        Self { place, tally, socket: None, before: 0, sent: 0 }
    }

    async fn open(&mut self) -> io::Result<()> {
        let mut found = lookup_host(&self.place).await?;
        let address = found.next().ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no address of that name"))?;
        let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = UdpSocket::bind(any).await?;
        socket.connect(address).await?;
        self.socket = Some(socket);
        Ok(())
    }

    /// What became of the datagrams before, if the system tells.
    fn refused(&mut self) -> Option<io::Error> {
        self.socket.as_ref().and_then(|socket| socket.take_error().transpose()?.ok())
    }
}

impl Deliver for Datagrams {
    async fn deliver(&mut self, batch: &Batch) -> Result<(), Undelivered> {
        if self.socket.is_none() {
            self.open().await.map_err(|e| Undelivered::again(shown(&e)))?;
        }
        if let Some(error) = self.refused() {
            self.tally.take_back(std::mem::take(&mut self.before), &shown(&error));
        }
        let Some(socket) = &self.socket else { return Err(Undelivered::again("no socket")) };
        if let Err(error) = socket.send(&batch.body).await {
            // too long for a datagram, now and later
            return Err(match batch.body.len() {
                ..=LONGEST_DATAGRAM => Undelivered::again(shown(&error)),
                _ => Undelivered::for_good(shown(&error)),
            });
        }
        // on this machine the refusal is there at once
        if let Some(error) = self.refused() {
            return Err(Undelivered::again(shown(&error)));
        }
        self.before = batch.units;
        self.sent += 1;
        if self.sent.is_multiple_of(STRETCH) {
            tokio::time::sleep(STRETCH_PAUSE).await;
        }
        Ok(())
    }

    async fn settle(&mut self) {
        tokio::time::sleep(REFUSED_WITHIN).await;
        if let Some(error) = self.refused() {
            self.tally.take_back(std::mem::take(&mut self.before), &shown(&error));
        }
    }
}
