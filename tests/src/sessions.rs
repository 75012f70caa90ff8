//! A server with log-ins: it counts sessions, log-ins and rows for itself.
//!
//! `/login` begins a session on its connection and answers with its token. The session lives until its
//! connection ends or `/logout` comes; every other request must carry the token of a session that
//! lives on the same connection. Only `/logout` may come over another one, once its own has ended.
//! `/row/X` says that row X was used.

use ld_shared::boot::clock;
use ld_shared::time::Mono;
use std::collections::{HashMap, HashSet};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

/// A running server; ends when dropped.
#[derive(Debug)]
pub struct Sessions {
    address: SocketAddr,
    book: Arc<Mutex<Book>>,
    _stop: oneshot::Sender<()>,
}

/// What it counted.
#[derive(Clone, Debug, Default)]
pub struct Book {
    /// Sessions that live.
    pub live: u64,
    /// The same whenever it changed.
    pub history: Vec<(Mono, u64)>,
    /// Log-ins so far.
    pub log_ins: u64,
    /// Log-outs of sessions that had begun, once each.
    pub log_outs: u64,
    logged_out: HashSet<u64>,
    /// Log-ins on a connection whose session lived.
    pub twice: u64,
    /// Requests without the token of a session on their connection.
    pub strangers: u64,
    /// Requests that were neither log-in nor log-out.
    pub pages: u64,
    /// How often each row was used.
    pub rows: HashMap<String, u64>,
}

impl Book {
    fn change(&mut self, by: i64) {
        self.live = self.live.saturating_add_signed(by);
        self.history.push((clock::mono(), self.live));
    }

    /// Most sessions that ever lived at once.
    pub fn most(&self) -> u64 {
        self.history.iter().map(|(_, live)| *live).max().unwrap_or(0)
    }

    /// Most sessions that lived at once since then.
    pub fn most_since(&self, since: Mono) -> u64 {
        let before = self.history.iter().take_while(|(at, _)| *at < since).last().map_or(0, |(_, live)| *live);
        self.history.iter().filter(|(at, _)| *at >= since).map(|(_, live)| *live).max().unwrap_or(0).max(before)
    }

    /// Requests of every kind.
    pub fn requests(&self) -> u64 {
        self.log_ins + self.log_outs + self.pages
    }
}

impl Sessions {
    /// Serves on a free port of 127.0.0.1; `latency` passes before each answer.
    pub fn start(latency: Duration) -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").expect("loopback has free ports"), latency)
    }

    /// Serves on a listener, which may be one of another network namespace.
    pub fn on(listener: TcpListener, latency: Duration) -> Self {
        let address = listener.local_addr().expect("a bound socket has an address");
        listener.set_nonblocking(true).expect("a socket can be told not to block");
        // all users come at once: who finds no room in the queue dials again a second later
        socket2::SockRef::from(&listener).listen(1024).expect("it listens already");
        let book = Arc::new(Mutex::new(Book::default()));
        let (stop, stopped) = oneshot::channel::<()>();
        let shared = Arc::clone(&book);
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.expect("a runtime needs nothing that is not there");
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener).expect("it does not block");
                let accepting = async {
                    while let Ok((stream, _)) = listener.accept().await {
                        serve_apart(stream, Arc::clone(&shared), latency);
                    }
                };
                tokio::select! {
                    () = accepting => {}
                    // dropped: nobody looks any more
                    _ = stopped => {}
                }
            });
        });
        Self { address, book, _stop: stop }
    }

    /// `http://ADDRESS:PORT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What was counted so far.
    pub fn book(&self) -> Book {
        lock(&self.book).clone()
    }

    /// Sessions that live now.
    pub fn live(&self) -> u64 {
        lock(&self.book).live
    }

    /// Requests that were neither log-in nor log-out, so far.
    pub fn pages(&self) -> u64 {
        lock(&self.book).pages
    }
}

fn serve_apart(stream: TcpStream, book: Arc<Mutex<Book>>, latency: Duration) {
    tokio::spawn(async move {
        let mut session = Session { token: None, book };
        // however the connection ends, the session does with it
        serve(stream, &mut session, latency).await.ok();
    });
}

fn lock(book: &Mutex<Book>) -> MutexGuard<'_, Book> {
    book.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What lives on a connection.
struct Session {
    token: Option<u64>,
    book: Arc<Mutex<Book>>,
}

impl Session {
    fn begin(&mut self) -> String {
        let mut book = lock(&self.book);
        book.log_ins += 1;
        let token = book.log_ins;
        if self.token.replace(token).is_some() {
            book.twice += 1;
        } else {
            book.change(1);
        }
        format!("{{\"token\":\"t{token}\"}}")
    }

    fn end(&mut self) {
        if self.token.take().is_some() {
            lock(&self.book).change(-1);
        }
    }

    /// The session of a token is told to end, whether its connection still lives or not.
    fn log_out(&mut self, token: Option<&str>) -> bool {
        let number = token.and_then(|token| token.strip_prefix("Bearer t")?.parse().ok());
        let mut book = lock(&self.book);
        let known = number.is_some_and(|number: u64| number <= book.log_ins && book.logged_out.insert(number));
        book.log_outs += u64::from(known);
        drop(book);
        if known && self.token == number {
            self.end();
        }
        known
    }

    /// Whether a request that carries `token` is one of this session.
    fn is_mine(&self, token: Option<&str>) -> bool {
        self.token.is_some_and(|mine| token == Some(&format!("Bearer t{mine}")))
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.end();
    }
}

async fn serve(stream: TcpStream, session: &mut Session, latency: Duration) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = BufReader::new(stream);
    while let Some((path, token)) = head(&mut stream).await? {
        let known = session.is_mine(token.as_deref());
        let mut status = "200 OK";
        let mut body = "ok".to_owned();
        if path == "/login" {
            body = session.begin();
        } else if path == "/logout" && session.log_out(token.as_deref()) {
            "bye".clone_into(&mut body);
        } else if !known {
            status = "401 Unauthorized";
            let mut book = lock(&session.book);
            book.pages += 1;
            book.strangers += 1;
        } else {
            let mut book = lock(&session.book);
            book.pages += 1;
            if let Some(row) = path.strip_prefix("/row/") {
                *book.rows.entry(row.to_owned()).or_default() += 1;
            }
        }
        tokio::time::sleep(latency).await;
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        stream.write_all(answer.as_bytes()).await?;
    }
    Ok(())
}

/// Path and `Authorization` of the next request, which must have no body.
async fn head(stream: &mut BufReader<TcpStream>) -> io::Result<Option<(String, Option<String>)>> {
    let (mut path, mut token) = (None, None);
    let mut line = String::new();
    loop {
        line.clear();
        if stream.read_line(&mut line).await? == 0 {
            return Ok(None);
        }
        let text = line.trim_end();
        match (&path, text.split_once(": ")) {
            (None, _) => path = Some(text.split(' ').nth(1).unwrap_or_default().to_owned()),
            (Some(path), _) if text.is_empty() => return Ok(Some((path.clone(), token))),
            (Some(_), Some((name, value))) if name.eq_ignore_ascii_case("authorization") => {
                token = Some(value.to_owned());
            }
            (Some(_), _) => {}
        }
    }
}
