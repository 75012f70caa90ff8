//! A broker that is not ours: Mosquitto, its `$SYS` counters and its command-line clients.

use crate::process::{Process, free_port, output_of};
use crate::wait::{PATIENCE, wait_for};
use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Mosquitto on a free loopback port; killed on drop.
#[derive(Debug)]
pub struct Broker {
    /// Its port.
    pub port: u16,
    /// The authority that its certificate is signed by, if it speaks TLS.
    pub ca: Option<PathBuf>,
    folder: tempfile::TempDir,
    _process: Process,
}

/// A `mosquitto_sub` that counts.
#[derive(Debug)]
pub struct Listener(Process);

/// What a listener hears first, whatever it listens to.
const MARKER: &str = "ld-test/marker";

impl Broker {
    /// A plain listener without login; `None`, and said so, if Mosquitto is not installed.
    pub fn start() -> Option<Self> {
        Self::launch("allow_anonymous true\n", tempfile::tempdir().expect("the temporary folder is writable"), None)
    }

    /// A broker that lets in this user only.
    pub fn with_password(user: &str, password: &str) -> Option<Self> {
        let folder = tempfile::tempdir().expect("the temporary folder is writable");
        let file = folder.path().join("passwords");
        fs::write(&file, format!("{user}:{password}\n")).expect("it is our folder");
        if program().is_some() {
            output_of("mosquitto_passwd", &["-U", &file.display().to_string()]);
        }
        let config = format!("allow_anonymous false\npassword_file {}\n", file.display());
        Self::launch(&config, folder, None)
    }

    /// A broker that speaks TLS, with a certificate of its own authority for 127.0.0.1.
    pub fn with_tls() -> Option<Self> {
        let folder = tempfile::tempdir().expect("the temporary folder is writable");
        let at = |name: &str| folder.path().join(name).display().to_string();
        fs::write(at("san"), "subjectAltName=IP:127.0.0.1\n").expect("it is our folder");
        let ec = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
        let request = |key: &str, more: &[&str]| {
            let mut arguments = vec!["req"];
            arguments.extend(ec);
            arguments.extend(["-keyout", key]);
            arguments.extend(more);
            output_of("openssl", &arguments);
        };
        request(&at("ca.key"), &["-x509", "-days", "9", "-subj", "/CN=authority", "-out", &at("ca.pem")]);
        request(&at("key"), &["-subj", "/CN=broker", "-out", &at("csr")]);
        let (csr, ca, ca_key) = (at("csr"), at("ca.pem"), at("ca.key"));
        let (certificate, san) = (at("pem"), at("san"));
        output_of(
            "openssl",
            &[
                "x509",
                "-req",
                "-in",
                &csr,
                "-CA",
                &ca,
                "-CAkey",
                &ca_key,
                "-CAcreateserial",
                "-days",
                "9",
                "-extfile",
                &san,
                "-out",
                &certificate,
            ],
        );
        let config = format!("allow_anonymous true\ncafile {ca}\ncertfile {certificate}\nkeyfile {}\n", at("key"));
        Self::launch(&config, folder, Some(PathBuf::from(ca)))
    }

    fn launch(config: &str, folder: tempfile::TempDir, ca: Option<PathBuf>) -> Option<Self> {
        let Some(program) = program() else {
            crate::skip("no mosquitto: apt-get install mosquitto mosquitto-clients");
            return None;
        };
        let port = free_port();
        // started by root it would become another user, who cannot read the folder
        let root = if rustix::process::geteuid().is_root() { "user root\n" } else { "" };
        let file = folder.path().join("mosquitto.conf");
        let config = format!(
            "listener {port} 127.0.0.1\n{config}{root}persistence false\nset_tcp_nodelay true\nsys_interval 1\n\
             max_inflight_messages 0\nmax_queued_messages 100000\n"
        );
        fs::write(&file, config).expect("it is our folder");
        let mut command = Command::new(program);
        command.arg("-c").arg(&file);
        let mut process = Process::start("mosquitto", command);
        wait_for("mosquitto", PATIENCE, || {
            assert!(process.runs(), "{}", process.stderr());
            TcpStream::connect(("127.0.0.1", port)).ok()
        });
        Some(Self { port, ca, folder, _process: process })
    }

    /// Its address, as steps name it.
    pub fn address(&self) -> String {
        format!("{}127.0.0.1:{}", if self.ca.is_some() { "mqtts://" } else { "" }, self.port)
    }

    /// A file of the broker's folder.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The counter `$SYS/broker/NAME`, renewed each second.
    pub fn sys(&self, name: &str) -> u64 {
        let topic = format!("$SYS/broker/{name}");
        let text = output_of("mosquitto_sub", &["-p", &self.port.to_string(), "-t", &topic, "-C", "1", "-W", "10"]);
        text.trim().parse().unwrap_or_else(|_| panic!("{topic} is {text:?}"))
    }

    /// Waits until a counter is as it should be.
    #[track_caller]
    pub fn expect_sys(&self, name: &str, wanted: u64) {
        let mut last = 0;
        for _ in 0..40 {
            last = self.sys(name);
            if last == wanted {
                return;
            }
            crate::wait::pause(std::time::Duration::from_millis(250));
        }
        panic!("$SYS/broker/{name} is {last}, not {wanted}");
    }

    /// Publishes with `mosquitto_pub`.
    pub fn publish(&self, topic: &str, payload: &str, flags: &[&str]) {
        let port = self.port.to_string();
        let mut arguments = vec!["-p", &port, "-t", topic, "-m", payload];
        arguments.extend(flags);
        output_of("mosquitto_pub", &arguments);
    }

    /// A second subscriber, to `filter`, which is subscribed when this returns. Publishes one message,
    /// its marker.
    pub fn listen(&self, filter: &str) -> Listener {
        self.publish(MARKER, "here", &["-r"]);
        let mut command = Command::new("mosquitto_sub");
        // what it is subscribed to last answers when all is
        command.args(["-p", &self.port.to_string(), "-q", "2", "-F", "%t %p", "-t", filter, "-t", MARKER]);
        let listener = Listener(Process::start("mosquitto_sub", command));
        wait_for("mosquitto_sub", PATIENCE, || listener.0.stdout().contains(MARKER).then_some(()));
        listener
    }
}

impl Listener {
    /// How many messages came under this topic.
    pub fn count(&self, topic: &str) -> u64 {
        let text = self.0.stdout();
        text.lines().filter(|line| line.split(' ').next() == Some(topic)).count() as u64
    }

    /// Waits until so many have come, and sees that no more do.
    #[track_caller]
    pub fn expect(&self, topic: &str, wanted: u64) {
        wait_for(&format!("{wanted} messages of {topic}"), PATIENCE, || (self.count(topic) >= wanted).then_some(()));
        assert_eq!(self.count(topic), wanted, "{topic}");
    }
}

fn program() -> Option<&'static str> {
    ["/usr/sbin/mosquitto", "/usr/bin/mosquitto"].into_iter().find(|path| Path::new(path).is_file())
}
