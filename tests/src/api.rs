//! A client of the HTTP API that has nothing in common with it: bytes over a socket.

use crate::process::{Process, command, free_port};
use crate::wait::{PATIENCE, wait_for};
use serde_json::Value;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use tempfile::TempDir;

/// Where the API is, and what is sent with every request.
#[derive(Clone, Debug)]
pub struct Api {
    /// Its port on loopback.
    pub port: u16,
    /// Lines of every request's head: `Authorization: Bearer x`.
    pub headers: Vec<String>,
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Its head.
    pub head: String,
    /// Its body.
    pub body: Vec<u8>,
}

impl Answer {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// The body as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    /// The answer, which has this status.
    #[track_caller]
    #[expect(clippy::return_self_not_must_use, reason = "to expect is enough")]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}\n{}", self.head, String::from_utf8_lossy(&self.body));
        self
    }

    /// The `code` of a refusal that is one by the rules.
    #[track_caller]
    pub fn code(&self) -> String {
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        let json = self.json();
        assert_eq!(json["status"], self.status, "{json}");
        json["code"].as_str().expect("problems have a code").to_owned()
    }
}

impl Api {
    /// The same with one more header.
    #[must_use]
    pub fn with(&self, header: &str) -> Self {
        let mut headers = self.headers.clone();
        headers.push(header.to_owned());
        Self { headers, ..self.clone() }
    }

    /// Sends a request; `None`: the connection was closed without an answer.
    pub fn try_send(&self, method: &str, path: &str, body: &[u8]) -> Option<Answer> {
        let mut stream = self.open("HTTP/1.1", method, path, Some(body.len()))?;
        // whoever refuses a body may close while it is sent
        drop(stream.write_all(body));
        let mut bytes = Vec::new();
        drop(stream.read_to_end(&mut bytes));
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let status = head.split(' ').nth(1)?.parse().ok()?;
        Some(Answer { status, head, body: bytes.split_off(end + 4) })
    }

    /// Sends a request.
    #[track_caller]
    pub fn send(&self, method: &str, path: &str, body: &[u8]) -> Answer {
        self.try_send(method, path, body).unwrap_or_else(|| panic!("no answer to {method} {path}"))
    }

    /// A GET.
    #[track_caller]
    pub fn get(&self, path: &str) -> Answer {
        self.send("GET", path, b"")
    }

    /// A POST of JSON.
    #[track_caller]
    pub fn post(&self, path: &str, body: &Value) -> Answer {
        self.with("Content-Type: application/json").send("POST", path, body.to_string().as_bytes())
    }

    /// A POST without a body.
    #[track_caller]
    pub fn poke(&self, path: &str) -> Answer {
        self.send("POST", path, b"")
    }

    /// Opens a stream of events.
    #[track_caller]
    pub fn events(&self, path: &str) -> Events {
        // of an older version, so that the body is sent as it is
        let stream = self.open("HTTP/1.0", "GET", path, None).expect("the server takes connections");
        let mut reader = BufReader::new(stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert!(reader.read_line(&mut head).expect("the head of a stream comes at once") > 0, "{head}");
        }
        assert!(head.contains(" 200 ") && head.contains("text/event-stream"), "{head}");
        Events { reader }
    }

    fn open(&self, version: &str, method: &str, path: &str, length: Option<usize>) -> Option<TcpStream> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).expect("it is not zero");
        let length = length.map(|length| format!("Content-Length: {length}\r\n")).unwrap_or_default();
        let own = |header: &&String| header.starts_with("Host:");
        let host = if self.headers.iter().any(|h| own(&h)) {
            String::new()
        } else {
            format!("Host: 127.0.0.1:{}\r\n", self.port)
        };
        let headers: String = self.headers.iter().flat_map(|header| [header, "\r\n"]).collect();
        let head = format!("{method} {path} {version}\r\n{host}Connection: close\r\n{length}{headers}\r\n");
        stream.write_all(head.as_bytes()).ok()?;
        Some(stream)
    }
}

/// An event.
#[derive(Clone, Debug, Default)]
pub struct Event {
    /// Its id; empty: it has none.
    pub id: String,
    /// Its name.
    pub name: String,
    /// What it says.
    pub data: Value,
}

/// A stream of events; dropped, its connection is closed.
#[derive(Debug)]
pub struct Events {
    reader: BufReader<TcpStream>,
}

/// Events until the stream ends. Comments are left out.
impl Iterator for Events {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        let mut event = Event::default();
        loop {
            let mut line = String::new();
            if self.reader.read_line(&mut line).expect("a stream says something within a minute") == 0 {
                return None;
            }
            match line.trim_end().split_once(": ") {
                Some(("id", id)) => id.clone_into(&mut event.id),
                Some(("event", name)) => name.clone_into(&mut event.name),
                Some(("data", data)) => event.data = serde_json::from_str(data).expect("data is JSON"),
                _ if line.trim_end().is_empty() && !event.name.is_empty() => return Some(event),
                _ => {}
            }
        }
    }
}

/// A master that stays up, with its workers.
#[derive(Debug)]
pub struct Service {
    /// The master.
    pub master: Process,
    /// The workers.
    pub workers: Vec<Process>,
    /// Its API.
    pub api: Api,
    /// Folder of its state.
    pub folder: TempDir,
}

impl Service {
    /// Starts it; returns when its workers are there.
    pub fn start(workers: usize, flags: &[&str], environment: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("the temporary folder is writable");
        let (bind, port) = (format!("127.0.0.1:{}", free_port()), free_port());
        let mut master = command("ld-master", folder.path());
        master.args(["--bind", &bind, "--web", &format!("127.0.0.1:{port}")]);
        master.args(["--expected-workers", &workers.to_string()]).args(flags).envs(environment.iter().copied());
        let mut master = Process::start("ld-master", master);
        let workers = (1..=workers)
            .map(|n| {
                let mut worker = command("ld-worker", folder.path());
                worker.args(["--master", &bind, "--name", &format!("w{n}"), "--cores", "1"]);
                worker.envs(environment.iter().copied());
                Process::start(&format!("w{n}"), worker)
            })
            .collect();
        let api = Api { port, headers: Vec::new() };
        wait_for("the API", PATIENCE, || {
            assert!(master.runs(), "{}", master.stderr());
            api.try_send("GET", "/readyz", b"").filter(|answer| answer.status == 200)
        });
        Self { master, workers, api, folder }
    }
}
