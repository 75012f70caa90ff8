//! Web servers that are not ours and speak newer versions of HTTP: nginx (HTTP/2) and Caddy (HTTP/3),
//! each with a log of its requests.

use crate::certificates::Certificates;
use crate::process::{Process, free_port};
use crate::wait::{PATIENCE, wait_for};
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Requests by version of HTTP.
pub type Versions = BTreeMap<String, u64>;

/// A running server; stopped on drop.
#[derive(Debug)]
pub struct Web {
    process: Process,
    /// TLS with HTTP/2 (nginx), or with everything up to HTTP/3 (Caddy).
    pub port: u16,
    /// nginx: HTTP/2 without TLS.
    pub plain: u16,
    /// nginx: TLS with HTTP/1.1 only.
    pub old: u16,
    log: PathBuf,
    count: fn(&str) -> Versions,
    folder: tempfile::TempDir,
}

impl Web {
    /// nginx, whose connections end after so many requests; `None`, and said so, if it is not installed.
    pub fn nginx(certificates: &Certificates, requests: u64) -> Option<Self> {
        let Some(program) = installed("nginx") else {
            crate::skip("nginx is not installed");
            return None;
        };
        let folder = tempfile::tempdir().expect("the temporary folder is writable");
        let (t, port, plain, old) = (folder.path().display().to_string(), free_port(), free_port(), free_port());
        let (cert, key) = (certificates.cert.display(), certificates.key.display());
        let config = format!(
            "daemon off; master_process off; pid {t}/pid; error_log {t}/error.log warn;
             events {{ worker_connections 10000; }}
             http {{
               log_format versions '$server_protocol';
               access_log {t}/access.log versions buffer=64k;
               client_body_temp_path {t}/b; proxy_temp_path {t}/p; fastcgi_temp_path {t}/f; uwsgi_temp_path {t}/u; scgi_temp_path {t}/s;
               keepalive_requests {requests}; ssl_certificate {cert}; ssl_certificate_key {key};
               server {{ listen 127.0.0.1:{port} ssl http2; location / {{ return 200 'ok'; }} }}
               server {{ listen 127.0.0.1:{plain} http2; location / {{ return 200 'ok'; }} }}
               server {{ listen 127.0.0.1:{old} ssl; location / {{ return 200 'ok'; }} }}
             }}"
        );
        fs::write(folder.path().join("nginx.conf"), config).expect("the temporary folder is writable");
        let mut command = Command::new(program);
        command.arg("-c").arg(folder.path().join("nginx.conf")).args(["-e", &format!("{t}/error.log")]);
        let log = folder.path().join("access.log");
        let count = |text: &str| tally(text.lines().map(str::to_owned));
        let process = Process::start("nginx", command);
        Some(Self { process, port, plain, old, log, count, folder }.ready())
    }

    /// Caddy; `None`, and said so, if it is not installed.
    pub fn caddy(certificates: &Certificates) -> Option<Self> {
        let Some(program) = installed("caddy") else {
            crate::skip("caddy is not installed");
            return None;
        };
        let folder = tempfile::tempdir().expect("the temporary folder is writable");
        let (t, port) = (folder.path().display().to_string(), free_port());
        let (cert, key) = (certificates.cert.display(), certificates.key.display());
        let config = format!(
            "{{\n\tadmin off\n\tauto_https off\n\tservers {{\n\t\tprotocols h1 h2 h3\n\t}}\n}}\n\
             https://localhost:{port} {{\n\tbind 127.0.0.1\n\ttls {cert} {key}\n\
             \tlog {{\n\t\toutput file {t}/access.log\n\t\tformat json\n\t}}\n\trespond \"hello\"\n}}\n"
        );
        fs::write(folder.path().join("Caddyfile"), config).expect("the temporary folder is writable");
        let mut command = Command::new(program);
        command.arg("run").arg("--config").arg(folder.path().join("Caddyfile"));
        command.env("XDG_DATA_HOME", folder.path()).env("XDG_CONFIG_HOME", folder.path());
        let log = folder.path().join("access.log");
        let count = |text: &str| {
            let lines = text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
            tally(lines.filter_map(|line| Some(line["request"]["proto"].as_str()?.to_owned())))
        };
        let process = Process::start("caddy", command);
        Some(Self { process, port, plain: 0, old: 0, log, count, folder }.ready())
    }

    fn ready(mut self) -> Self {
        wait_for("the web server", PATIENCE, || {
            assert!(self.process.runs(), "{}", self.process.stderr());
            TcpStream::connect(("127.0.0.1", self.port)).ok()
        });
        self
    }

    /// `https://localhost:PORT/`.
    pub fn url(&self) -> String {
        format!("https://localhost:{}/", self.port)
    }

    /// Stops it; the requests of its log by version.
    pub fn stop(mut self) -> Versions {
        self.process.signal(if self.plain > 0 { Signal::QUIT } else { Signal::TERM });
        self.process.wait(PATIENCE);
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        drop(self.folder);
        (self.count)(&log)
    }
}

fn installed(name: &str) -> Option<PathBuf> {
    ["/usr/sbin", "/usr/bin"].iter().map(|folder| Path::new(folder).join(name)).find(|path| path.is_file())
}

fn tally(versions: impl Iterator<Item = String>) -> Versions {
    let mut all = Versions::new();
    for version in versions {
        *all.entry(version).or_default() += 1;
    }
    all
}
