//! Where a test runs: `runner_mode` and the keys that go with it, and `web_ui_dict`.

use crate::script::reader::Reader;
use ld_shared::fault::Seed;

/// Where workers join a master, unless the document says otherwise.
const PORT: u16 = 5557;
const BIND: &str = "*";
const MASTER: &str = "127.0.0.1";

/// Where the HTTP API is served, unless `web_ui_dict` says.
const WEB: (&str, u16) = ("127.0.0.1", 8089);

/// Where a test runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Runner {
    /// As the process was started.
    #[default]
    Local,
    /// On workers that join here, for this test.
    Master {
        /// Host and port to listen on.
        bind: (String, u16),
        /// Workers that are waited for.
        workers: u32,
    },
    /// As a worker of the master there: its plan counts.
    Worker {
        /// Host and port.
        master: (String, u16),
    },
}

/// Keys of a master, and of a worker.
const OF_MASTER: [&str; 3] = ["master_bind_host", "master_bind_port", "expected_workers"];
const OF_WORKER: [&str; 2] = ["master_host", "master_port"];

/// Reads where a test runs.
pub(super) fn read(reader: &mut Reader<'_>, warnings: &mut Vec<String>) -> Runner {
    let raises = Seed::Raises("ValueError", "runner_mode must be local, master or worker".into());
    let mode = reader.with_seed(&raises, |reader| reader.choice("runner_mode", &["local", "master", "worker"]));
    let bind = place(reader, ["master_bind_host", "master_bind_port"], BIND);
    let workers = reader.whole("expected_workers", 0, "workers that are waited for before the test starts");
    let master = place(reader, OF_WORKER, MASTER);
    let mut idle = |keys: &[&str], goes_with: &str| {
        for key in keys.iter().filter(|key| reader.value(key).is_some()) {
            warnings.push(format!("`{key}` has no effect: it goes with `runner_mode` `{goes_with}`"));
        }
    };
    if mode != Some("master") {
        idle(&OF_MASTER, "master");
    }
    if mode != Some("worker") {
        idle(&OF_WORKER, "worker");
    }
    match mode {
        Some("master") => {
            let (host, port) = bind;
            let host = if host == BIND { "0.0.0.0".to_owned() } else { host };
            // 0 waits for one: without any nothing would ever start
            let workers = u32::try_from(workers.unwrap_or(0)).unwrap_or(u32::MAX).max(1);
            Runner::Master { bind: (host, port), workers }
        }
        Some("worker") => Runner::Worker { master },
        _ => Runner::Local,
    }
}

fn place(reader: &mut Reader<'_>, [host, port]: [&str; 2], default: &str) -> (String, u16) {
    let name = reader.text(host).unwrap_or(default).to_owned();
    (name, port_of(reader, port).unwrap_or(PORT))
}

fn port_of(reader: &mut Reader<'_>, key: &str) -> Option<u16> {
    let number = reader.whole(key, 1, "a port is 1 to 65535")?;
    let port = u16::try_from(number);
    if port.is_err() {
        reader.refuse(key, "a port, 1 to 65535", "");
    }
    port.ok()
}

/// Where the HTTP API is served while the test runs.
pub(super) fn web_ui(reader: &mut Reader<'_>) -> Option<(String, u16)> {
    // the checker refuses whatever is no object
    reader.value("web_ui_dict").filter(|value| value.is_object())?;
    let mut page = reader.object("web_ui_dict")?;
    page.only(&["host", "port"], &[]);
    let host = page.text("host").unwrap_or(WEB.0).to_owned();
    Some((host, port_of(&mut page, "port").unwrap_or(WEB.1)))
}
