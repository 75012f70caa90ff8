//! Several hosts on one machine: network namespaces on one bridge, and a link with a delay.

use crate::binaries::{python, test_file};
use crate::process::{Process, output_of};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs::File;
use std::net::TcpListener;
use std::os::fd::AsFd as _;
use std::process::Command;
use std::thread;

/// A namespace `hub` with the bridge, where master and target run, and one namespace a worker.
///
/// Addresses: hub 10.231.20.254, worker *n* (from 1) 10.231.20.n. Namespaces are deleted on drop.
#[derive(Debug)]
pub struct Hosts {
    prefix: String,
    workers: usize,
    relays: Vec<Process>,
}

/// The hub's address on every network.
pub const HUB: &str = "10.231.20.254";

fn ip(args: &str) {
    output_of("ip", &args.split_whitespace().collect::<Vec<_>>());
}

impl Hosts {
    /// Makes `workers` hosts. `tag` keeps tests apart.
    pub fn new(tag: &str, workers: usize) -> Self {
        let prefix = format!("ld{}{tag}", std::process::id());
        let hosts = Self { prefix, workers, relays: Vec::new() };
        let hub = hosts.hub();
        ip(&format!("netns add {hub}"));
        ip(&format!("-n {hub} link set lo up"));
        ip(&format!("-n {hub} link add br0 type bridge"));
        ip(&format!("-n {hub} addr add {HUB}/24 dev br0"));
        ip(&format!("-n {hub} link set br0 up"));
        for n in 1..=workers {
            let host = hosts.worker(n);
            ip(&format!("netns add {host}"));
            ip(&format!("-n {host} link set lo up"));
            ip(&format!("link add e0 netns {host} type veth peer name p{n} netns {hub}"));
            ip(&format!("-n {hub} link set p{n} master br0 up"));
            ip(&format!("-n {host} addr add {}/24 dev e0", Self::address(n)));
            ip(&format!("-n {host} link set e0 up"));
        }
        hosts
    }

    /// Namespace of master and target.
    pub fn hub(&self) -> String {
        format!("{}h", self.prefix)
    }

    /// Namespace of worker `n`, from 1.
    pub fn worker(&self, n: usize) -> String {
        format!("{}w{n}", self.prefix)
    }

    /// Address of worker `n` on the bridge.
    pub fn address(n: usize) -> String {
        format!("10.231.20.{n}")
    }

    /// A listener on a port of the hub, for a server in this process: a socket stays in the namespace in
    /// which it was made.
    pub fn listen(&self, port: u16) -> TcpListener {
        let namespace = File::open(format!("/run/netns/{}", self.hub())).expect("it was made");
        let bind = move || {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).expect("we are root");
            TcpListener::bind((HUB, port)).expect("nobody else is there")
        };
        thread::spawn(bind).join().expect("a thread of its own, which nobody else has to leave")
    }

    /// Cuts worker `n` off from a port: packets vanish in both directions, as on a broken path.
    pub fn cut(&self, n: usize, port: u16) {
        let rules = format!(
            "table inet cut {{
                chain out {{ type filter hook output priority 0; tcp dport {port} drop; }}
                chain in {{ type filter hook input priority 0; tcp sport {port} drop; }}
            }}"
        );
        output_of("ip", &["netns", "exec", &self.worker(n), "nft", &rules]);
    }

    /// Undoes [`Self::cut`].
    pub fn heal(&self, n: usize) {
        output_of("ip", &["netns", "exec", &self.worker(n), "nft", "delete table inet cut"]);
    }

    /// Takes worker `n` off the bridge, and links it by a tunnel that adds `round_trip_ms` to every
    /// round trip. Its address becomes 10.231.30.n.
    pub fn delay(&mut self, n: usize, round_trip_ms: u64) {
        let (hub, host) = (self.hub(), self.worker(n));
        ip(&format!("-n {host} link del e0"));
        let mut command = Command::new(python().expect("tests/run makes a Python environment"));
        command.arg(test_file("py/tun_delay.py")).args([&hub, &host, &(round_trip_ms / 2).to_string()]);
        let mut relay = Process::start("tun_delay.py", command);
        relay.line_with("ready");
        self.relays.push(relay);
        for (name, address, peer) in
            [(&hub, HUB.to_owned(), Self::delayed_address(n)), (&host, Self::delayed_address(n), HUB.to_owned())]
        {
            // the hub has its address on the bridge already; the tunnel borrows it
            if *name == host {
                ip(&format!("-n {name} addr add {address}/32 dev ldtun"));
            }
            ip(&format!("-n {name} link set ldtun up mtu 1400"));
            ip(&format!("-n {name} route add {peer}/32 dev ldtun src {address}"));
        }
    }

    /// Address of a worker behind a delay.
    pub fn delayed_address(n: usize) -> String {
        format!("10.231.30.{n}")
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        self.relays.clear();
        let names = (1..=self.workers).map(|n| self.worker(n)).chain([self.hub()]);
        for name in names {
            // one that was never made is as good as deleted
            drop(Command::new("ip").args(["netns", "del", &name]).output());
        }
    }
}
