//! `healthcheck` of both binaries: asks a running one how it is. An image without a shell needs nothing else.

use clap::Args;
use ld_shared::boot::clock;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// One question, from the name look-up to the last byte of the answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// Between questions, if the first answer is not waited for in vain.
const AGAIN_EVERY: Duration = Duration::from_millis(200);
/// More of an answer is not read.
const MOST_BYTES: u64 = 64 * 1024;

/// What is asked.
#[derive(Args, Clone, Debug)]
pub struct Question {
    /// Whom to ask: HOST:PORT [default: where --web serves]
    #[arg(value_name = "HOST:PORT", value_parser = crate::cli::address)]
    pub address: Option<String>,
    /// What to ask: /healthz (it lives), /readyz (it does its work)
    #[arg(long, value_name = "PATH", default_value = "/healthz")]
    pub path: String,
    /// Asks until the answer is good, for so long: 30s, 500ms, 2m
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = crate::cli::duration)]
    pub wait: Duration,
}

impl Question {
    /// Asks; `web` is where --web serves, `None` is off. Either way a sentence that says how it is.
    pub fn ask(&self, web: Option<SocketAddr>) -> Result<String, String> {
        let address = self.address.clone().or_else(|| web.map(|web| reachable(web).to_string()));
        let address = address.ok_or("unhealthy: --web is off, so there is nothing to ask")?;
        ask(&address, &self.path, self.wait)
    }
}

/// Where somebody on this machine reaches what listens on `web`.
fn reachable(mut web: SocketAddr) -> SocketAddr {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
    if web.ip().is_unspecified() {
        web.set_ip(if web.is_ipv4() { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { IpAddr::V6(Ipv6Addr::LOCALHOST) });
    }
    web
}

/// Asks `http://address/path` until the answer is good or `wait` is over, once at least.
pub fn ask(address: &str, path: &str, wait: Duration) -> Result<String, String> {
    let name = format!("http://{address}{path}");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("cannot ask {name}: {error}"))?;
    let until = clock::mono().after(wait);
    let answer = runtime.block_on(async {
        loop {
            let answer = match tokio::time::timeout(ANSWER_WITHIN, get(address, path)).await {
                Ok(Ok(answer)) => judge(&answer),
                Ok(Err(error)) => Err(format!("cannot be asked: {error}")),
                Err(_) => Err(format!("did not answer within {} s", ANSWER_WITHIN.as_secs())),
            };
            if answer.is_ok() || clock::mono() >= until {
                return answer;
            }
            tokio::time::sleep(AGAIN_EVERY).await;
        }
    });
    // a name look-up that hangs must not hold the process
    runtime.shutdown_background();
    answer.map(|status| format!("healthy: {name} answered {status}")).map_err(|why| format!("unhealthy: {name} {why}"))
}

async fn get(address: &str, path: &str) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(MOST_BYTES).read_to_end(&mut answer).await?;
    Ok(answer)
}

/// The status of a good answer; what is wrong with another.
fn judge(answer: &[u8]) -> Result<u16, String> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut head = httparse::Response::new(&mut headers);
    let (Ok(httparse::Status::Complete(length)), Some(status)) = (head.parse(answer), head.code) else {
        return Err("does not speak HTTP".into());
    };
    if (200..300).contains(&status) {
        return Ok(status);
    }
    let body = String::from_utf8_lossy(answer.get(length..).unwrap_or_default());
    let reason = body.lines().next().map(|line| format!(": {line}")).unwrap_or_default();
    Err(format!("answered {status}{reason}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn answers_are_judged() {
        assert_eq!(judge(b"HTTP/1.1 204 No Content\r\n\r\n"), Ok(204));
        assert_eq!(judge(b"HTTP/1.1 503 X\r\nA: b\r\n\r\nno master\nmore"), Err("answered 503: no master".into()));
        assert_eq!(judge(b"HTTP/1.1 302 Found\r\n\r\n"), Err("answered 302".into()));
        for garbage in [&b""[..], b"HTTP/1.1", b"SSH-2.0-x\r\n\r\n"] {
            assert_eq!(judge(garbage), Err("does not speak HTTP".into()));
        }
    }

    #[test]
    fn nobody_and_the_silent_are_unhealthy() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        // it accepts, by its backlog, and never answers
        let why = ask(&address, "/healthz", Duration::ZERO).unwrap_err();
        assert!(why.ends_with("did not answer within 2 s"), "{why}");
        drop(listener);
        let why = ask(&address, "/healthz", Duration::from_millis(300)).unwrap_err();
        assert!(why.starts_with(&format!("unhealthy: http://{address}/healthz cannot be asked: ")), "{why}");
    }

    #[test]
    fn who_listens_everywhere_is_asked_at_home() {
        for (web, asked) in [("0.0.0.0:1", "127.0.0.1:1"), ("[::]:1", "[::1]:1"), ("10.0.0.9:1", "10.0.0.9:1")] {
            assert_eq!(reachable(web.parse().unwrap()).to_string(), asked);
        }
    }
}
