//! A target that is not ours: nginx, and its access log.

use crate::process::{Process, free_port};
use crate::wait::{PATIENCE, wait_for};
use rustix::process::Signal;
use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;

/// nginx with an access log, on a free loopback port; stopped on drop.
#[derive(Debug)]
pub struct Nginx {
    process: Process,
    /// Its port.
    pub port: u16,
    log: PathBuf,
    _folder: tempfile::TempDir,
}

impl Nginx {
    /// Starts it; `None` if it is not installed.
    pub fn start() -> Option<Self> {
        let program = ["/usr/sbin/nginx", "/usr/bin/nginx"].iter().find(|p| Path::new(p).is_file())?;
        let folder = tempfile::tempdir().expect("the temporary folder is writable");
        let (t, port) = (folder.path().display().to_string(), free_port());
        let config = format!(
            "daemon off; master_process off; pid {t}/pid; error_log {t}/error.log warn;
             events {{ worker_connections 10000; }}
             http {{
               log_format arrivals '$remote_addr $msec $status $request_uri';
               access_log {t}/access.log arrivals buffer=64k;
               client_body_temp_path {t}/b; proxy_temp_path {t}/p; fastcgi_temp_path {t}/f; uwsgi_temp_path {t}/u; scgi_temp_path {t}/s;
               keepalive_requests 1000000000; keepalive_timeout 600s;
               server {{ listen 127.0.0.1:{port}; location / {{ return 200 'ok'; }} }}
             }}"
        );
        fs::write(folder.path().join("nginx.conf"), config).expect("the temporary folder is writable");
        let mut command = Command::new(program);
        command.arg("-c").arg(folder.path().join("nginx.conf")).args(["-e", &format!("{t}/error.log")]);
        let mut process = Process::start("nginx", command);
        wait_for("nginx", PATIENCE, || {
            assert!(process.runs(), "{}", process.stderr());
            TcpStream::connect(("127.0.0.1", port)).ok()
        });
        Some(Self { process, port, log: folder.path().join("access.log"), _folder: folder })
    }

    /// Stops it and returns the lines of its log.
    pub fn lines(mut self) -> Vec<String> {
        self.process.signal(Signal::QUIT);
        self.process.wait(PATIENCE);
        fs::read_to_string(&self.log).expect("nginx made its log at start").lines().map(str::to_owned).collect()
    }
}
