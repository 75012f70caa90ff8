//! The other ends of exporters, none of them ours: Prometheus, InfluxDB 1, a collector of OTLP (rotel).

use crate::binaries::python;
use crate::process::{Process, free_port, output_of};
use crate::wait::{PATIENCE, wait_for};
use rustix::process::Signal;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// Requests by name: successes, failures.
pub type Counts = BTreeMap<String, [u64; 2]>;

/// A server that can be killed and started again on its port.
#[derive(Debug)]
pub struct Server {
    name: &'static str,
    start: Vec<String>,
    /// Its port; HTTP for queries, gRPC of the collector.
    pub port: u16,
    /// Its second port: datagrams of InfluxDB, HTTP of the collector.
    pub other_port: u16,
    process: Process,
    _folder: TempDir,
}

impl Server {
    fn launch(name: &'static str, start: Vec<String>, ports: [u16; 2], folder: TempDir) -> Self {
        let process = Process::start(name, command(&start));
        let [port, other_port] = ports;
        let mut server = Self { name, start, port, other_port, process, _folder: folder };
        server.ready();
        server
    }

    fn ready(&mut self) {
        wait_for(self.name, PATIENCE, || {
            assert!(self.process.runs(), "{}{}", self.process.stdout(), self.process.stderr());
            TcpStream::connect(("127.0.0.1", self.port)).ok()
        });
    }

    /// Prometheus, that scrapes a port of this machine each second; `None`, and said so, if it is not installed.
    pub fn prometheus(scraped: u16) -> Option<Self> {
        let program = installed("prometheus")?;
        let (folder, port) = (folder(), free_port());
        let file = folder.path().join("prometheus.yml");
        let config = format!(
            "global: {{scrape_interval: 1s}}\nscrape_configs:\n  - job_name: ld\n    static_configs: \
             [{{targets: ['127.0.0.1:{scraped}']}}]\n"
        );
        fs::write(&file, config).expect("it is our folder");
        let start = vec![
            program,
            format!("--config.file={}", file.display()),
            format!("--storage.tsdb.path={}", folder.path().join("data").display()),
            format!("--web.listen-address=127.0.0.1:{port}"),
            "--log.level=warn".into(),
        ];
        Some(Self::launch("prometheus", start, [port, 0], folder))
    }

    /// The greatest values of `loaddensity_requests_total` that Prometheus has scraped.
    pub fn scraped(&self) -> Counts {
        let query = "/api/v1/query?query=max_over_time(loaddensity_requests_total%5B10m%5D)";
        let answer = get(self.port, query, "");
        let answer: Value = serde_json::from_str(&answer.body).unwrap_or_else(|_| panic!("{answer:?}"));
        let mut counts = Counts::new();
        for series in answer["data"]["result"].as_array().expect("a query gives a list") {
            let (labels, value) = (&series["metric"], series["value"][1].as_str().expect("values are texts"));
            let name = labels["name"].as_str().unwrap_or_default().to_owned();
            let place = usize::from(labels["outcome"] == "failure");
            counts.entry(name).or_default()[place] += value.parse::<u64>().expect("it counts");
        }
        counts
    }

    /// InfluxDB with the databases `http` and `udp`, the second fed by datagrams.
    pub fn influx() -> Option<Self> {
        let program = installed("influxd")?;
        let (folder, port, udp, rpc) = (folder(), free_port(), free_port(), free_port());
        let (at, file) = (folder.path().display(), folder.path().join("influx.conf"));
        let config = format!(
            "reporting-disabled = true\nbind-address = \"127.0.0.1:{rpc}\"\n[meta]\n  dir = \"{at}/meta\"\n[data]\n  \
             dir = \"{at}/data\"\n  wal-dir = \"{at}/wal\"\n[http]\n  bind-address = \"127.0.0.1:{port}\"\n[[udp]]\n  \
             enabled = true\n  bind-address = \"127.0.0.1:{udp}\"\n  database = \"udp\"\n  batch-timeout = \"100ms\"\n"
        );
        fs::write(&file, config).expect("it is our folder");
        let start = vec![program, "-config".into(), file.display().to_string()];
        let server = Self::launch("influxd", start, [port, udp], folder);
        let created = request(port, "POST /query?q=CREATE%20DATABASE%20http HTTP/1.0\r\nContent-Length: 0\r\n", "");
        assert_eq!(created.status, 200, "{created:?}");
        Some(server)
    }

    /// Sums of the points of a database of InfluxDB.
    pub fn points(&self, database: &str) -> Counts {
        let query = "SELECT%20sum(successes)%2Csum(failures)%20FROM%20loaddensity_request%20GROUP%20BY%20%22name%22";
        let answer = get(self.port, &format!("/query?db={database}&q={query}"), "");
        let answer: Value = serde_json::from_str(&answer.body).unwrap_or_else(|_| panic!("{answer:?}"));
        let series = answer["results"][0]["series"].as_array().cloned().unwrap_or_default();
        let count = |series: &Value| {
            let name = series["tags"]["name"].as_str().unwrap_or_default().to_owned();
            (name, [1, 2].map(|column| series["values"][0][column].as_u64().unwrap_or_default()))
        };
        series.iter().map(count).collect()
    }

    /// A collector that writes down what comes by gRPC and HTTP.
    pub fn collector() -> Option<Self> {
        let Some(python) = python() else {
            crate::skip("no Python environment: use tests/run");
            return None;
        };
        let script = "import os, rotel; print(os.path.join(os.path.dirname(rotel.__file__), 'rotel-agent'))";
        let program = output_of(python, &["-c", script]).trim().to_owned();
        let (grpc, http) = (free_port(), free_port());
        let mut start = vec![program, "start".into()];
        start.extend(["--otlp-grpc-endpoint".into(), format!("127.0.0.1:{grpc}")]);
        start.extend(["--otlp-http-endpoint".into(), format!("127.0.0.1:{http}")]);
        start.extend(["--exporter", "blackhole", "--debug-log", "metrics"].map(str::to_owned));
        start.extend(["--debug-log-verbosity", "detailed"].map(str::to_owned));
        Some(Self::launch("rotel", start, [grpc, http], folder()))
    }

    /// What the collector has written down so far.
    pub fn log(&self) -> String {
        self.process.stdout() + &self.process.stderr()
    }

    /// Freezes it, kills it, lets it go on.
    pub fn signal(&mut self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Kills it and waits until it is gone.
    pub fn kill(&mut self) {
        self.process.signal(Signal::KILL);
        self.process.wait(PATIENCE);
    }

    /// Starts it again, on the same port and data.
    pub fn restart(&mut self) {
        self.process = Process::start(self.name, command(&self.start));
        self.ready();
    }
}

/// What `promtool check metrics` says of a page; `None`, and said so, if it is not installed.
pub fn promtool(page: &str) -> Option<String> {
    let mut command = Command::new(installed("promtool")?);
    command.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("it is installed");
    child.stdin.take().expect("it is piped").write_all(page.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    Some(String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr))
}

/// An answer over HTTP.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Its head, as it came.
    pub head: String,
    /// Its body.
    pub body: String,
}

/// Gets a path of a port of this machine, with more lines for the head.
pub fn get(port: u16, path: &str, more: &str) -> Answer {
    request(port, &format!("GET {path} HTTP/1.0\r\n{more}"), "")
}

fn request(port: u16, head: &str, body: &str) -> Answer {
    try_request(port, head, body).unwrap_or_else(|error| panic!("port {port}: {error}"))
}

/// The same, but nobody may be there.
pub fn try_get(port: u16, path: &str) -> Option<Answer> {
    try_request(port, &format!("GET {path} HTTP/1.0\r\n"), "").ok()
}

fn try_request(port: u16, head: &str, body: &str) -> std::io::Result<Answer> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    stream.write_all(format!("{head}Host: 127.0.0.1\r\n\r\n{body}").as_bytes())?;
    let mut all = Vec::new();
    stream.read_to_end(&mut all)?;
    let all = String::from_utf8_lossy(&all).into_owned();
    let (head, body) = all.split_once("\r\n\r\n").unwrap_or((&all, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default();
    Ok(Answer { status, head: head.to_owned(), body: body.to_owned() })
}

fn command(start: &[String]) -> Command {
    let mut command = Command::new(&start[0]);
    command.args(&start[1..]);
    command
}

fn folder() -> TempDir {
    tempfile::tempdir().expect("the temporary folder is writable")
}

fn installed(name: &str) -> Option<String> {
    let found = ["/usr/bin", "/usr/sbin"].iter().map(|folder| Path::new(folder).join(name)).find(|path| path.is_file());
    if found.is_none() {
        crate::skip(&format!("{name} is not installed: apt-get install prometheus influxdb"));
    }
    found.map(|path| path.display().to_string())
}
