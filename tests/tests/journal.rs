//! The journal of a run: what is left of it when its master is killed, and what a disk that is slow or
//! full does to a run.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use ld_master::target::{Law, Options, Target};
use ld_tests::document::{and, open, test};
use ld_tests::process::{Cluster, Finished, Process, command};
use ld_tests::summary::Summary;
use ld_tests::wait::{pause, under_load};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

const LIMIT: Duration = Duration::from_mins(2);

fn target() -> (Target, String) {
    let latency = Law::Fixed(Duration::from_millis(20));
    let target = Target::start(Options { latency, ..Options::default() }).expect("loopback has free ports");
    let url = format!("http://{}/", target.addr());
    (target, url)
}

fn total(target: Target) -> u64 {
    target.stop().expect("no log was asked for").total
}

/// Runs `ld-master --data-dir DATA runs WORDS` to its end.
fn runs(state: &Path, data: &Path, words: &[&str]) -> Finished {
    let mut command = command("ld-master", state);
    command.arg("--data-dir").arg(data).arg("runs").args(words);
    Process::start("ld-master runs", command).wait(LIMIT)
}

/// The folders of journals that are there.
fn journals(data: &Path) -> Vec<PathBuf> {
    fs::read_dir(data.join("runs")).into_iter().flatten().map(|entry| entry.expect("it is readable").path()).collect()
}

fn size_of(folder: &Path) -> u64 {
    let files = fs::read_dir(folder).into_iter().flatten().flatten();
    files.filter_map(|file| file.metadata().ok()).map(|meta| meta.len()).sum()
}

fn said(summary: &Summary, text: &str) -> bool {
    summary.list("/events").iter().any(|event| event["what"].as_str().is_some_and(|what| what.contains(text)))
}

#[test]
fn a_local_run_that_was_killed_has_a_result_all_the_same() {
    let (target, url) = target();
    let data = tempfile::tempdir().unwrap();
    let flags = ["--data-dir", data.path().to_str().unwrap(), "--cores", "1"];
    let mut cluster = Cluster::start(&test(&url, &open(200.0, 60.0)), 0, &flags);
    under_load(&target, 1_000);
    cluster.master.signal(Signal::KILL);
    cluster.master.wait(LIMIT);
    let state = cluster.folder.path();
    runs(state, data.path(), &["rescue"]).expect_code(0).expect_said(" s ago");
    let rescued = runs(state, data.path(), &["rescue", "latest", "--summary", "rescued.json", "--html", "r.html"]);
    rescued.expect_code(0).expect_said("hit").expect_said("the master ended before the run did");
    let summary = Summary::read(&state.join("rescued.json")).unwrap();
    summary.check_conservation();
    assert_eq!(summary.0["verdict"]["outcome"], "error", "{}", summary.0["verdict"]);
    let (seen, counted) = (total(target), summary.ended());
    // a frame a second, on the disk half a second later: most of five seconds is there
    assert!(counted <= seen && counted * 2 >= seen, "{counted} of {seen}");
    let rows: u64 = summary.list("/timeline").iter().map(|row| row["succeeded"].as_u64().unwrap()).sum();
    assert_eq!(rows, counted);
    assert_eq!(summary.list("/workers")[0]["state"], "lost");
    assert!(fs::metadata(state.join("r.html")).unwrap().len() > 1_000);
    // kept like any other, and nothing is left of its journal
    assert_eq!(journals(data.path()), [] as [PathBuf; 0]);
    runs(state, data.path(), &["list"]).expect_code(0).expect_said("error");
    runs(state, data.path(), &["rescue"]).expect_code(0).expect_said("no run is left without its master");
    runs(state, data.path(), &["rescue", "latest"]).expect_code(2);
}

#[test]
fn a_run_under_way_is_left_alone_and_leaves_nothing() {
    let (target, url) = target();
    let data = tempfile::tempdir().unwrap();
    let flags = ["--data-dir", data.path().to_str().unwrap()];
    let mut cluster = Cluster::start(&test(&url, &open(100.0, 6.0)), 2, &flags);
    under_load(&target, 100);
    let state = cluster.folder.path().to_owned();
    runs(&state, data.path(), &["rescue"]).expect_code(0).expect_said("under way");
    let [journal] = &journals(data.path())[..] else { panic!("one run, one journal") };
    let id = journal.file_name().unwrap().to_str().unwrap().to_owned();
    runs(&state, data.path(), &["rescue", &id]).expect_code(2).expect_said("its master lives");
    let (finished, summary) = cluster.finish(LIMIT);
    finished.expect_code(0);
    summary.check_conservation();
    assert_eq!(summary.ended(), total(target));
    assert_eq!(summary.0["run"]["id"], id.as_str());
    assert_eq!(journals(data.path()), [] as [PathBuf; 0]);
}

/// A small file system of its own.
struct Disk {
    folder: TempDir,
}

impl Disk {
    /// `None`: it cannot be made here, which is said.
    fn new(kind: &[&str]) -> Option<Self> {
        if !ld_tests::root_or_skip() {
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let disk = Self { folder };
        fs::create_dir(disk.path()).unwrap();
        let image = disk.folder.path().join("image");
        if kind.contains(&"loop") {
            fs::File::create(&image).unwrap().set_len(64 << 20).unwrap();
            let made = Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&image).status();
            if !made.is_ok_and(|status| status.success()) {
                ld_tests::skip("no mkfs.ext4");
                return None;
            }
        }
        let mounted = Command::new("mount").args(kind).arg(&image).arg(disk.path()).status().unwrap();
        if !mounted.success() {
            ld_tests::skip("nothing can be mounted");
            return None;
        }
        Some(disk)
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("disk")
    }

    fn freeze(&self, flag: &str) {
        let status = Command::new("fsfreeze").arg(flag).arg(self.path()).status().unwrap();
        assert!(status.success(), "fsfreeze {flag}");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // thawed already unless the test failed
        drop(Command::new("fsfreeze").arg("-u").arg(self.path()).stderr(std::process::Stdio::null()).status());
        drop(Command::new("umount").arg("-l").arg(self.path()).status());
    }
}

#[test]
fn a_slow_disk_slows_no_user() {
    let Some(disk) = Disk::new(&["-o", "loop"]) else { return };
    let (target, url) = target();
    let data = disk.path();
    let flags = ["--data-dir", data.to_str().unwrap()];
    let mut cluster = Cluster::start(&test(&url, &open(200.0, 9.0)), 2, &flags);
    under_load(&target, 400);
    disk.freeze("-f");
    let frozen = target.counts().total;
    pause(Duration::from_millis(4_500));
    let thawed = target.counts().total;
    disk.freeze("-u");
    let (finished, summary) = cluster.finish(LIMIT);
    finished.expect_code(0);
    summary.check_conservation();
    assert!(thawed - frozen > 500, "{} requests while the disk took nothing", thawed - frozen);
    assert_eq!(summary.ended(), total(target));
    assert_eq!(summary.count("/conservation/lost"), 0);
    assert_eq!(summary.count("/conservation/dropped"), 0);
    assert!(said(&summary, "s behind") && said(&summary, "up to date again"), "{:#}", summary.0["events"]);
    assert!(summary.list("/workers").iter().all(|worker| worker["state"] == "ok"));
    assert_eq!(journals(&data), [] as [PathBuf; 0]);
}

#[test]
fn a_full_disk_ends_the_journal_and_not_the_run() {
    let Some(disk) = Disk::new(&["-t", "tmpfs", "-o", "size=2m"]) else { return };
    let (target, url) = target();
    let data = disk.path();
    let flags = ["--data-dir", data.to_str().unwrap()];
    let mut cluster = Cluster::start(&test(&url, &open(200.0, 6.0)), 2, &flags);
    under_load(&target, 400);
    // all that is left of it
    let filler = vec![0; 4 << 20];
    let full = fs::write(data.join("filler"), filler);
    assert!(full.is_err());
    let (finished, summary) = cluster.finish(LIMIT);
    finished.expect_code(0).expect_said("the run is not kept for later");
    summary.check_conservation();
    assert_eq!(summary.ended(), total(target));
    assert_eq!(summary.count("/conservation/lost"), 0);
    assert!(said(&summary, "journal failed"), "{:#}", summary.0["events"]);
    assert_eq!(journals(&data), [] as [PathBuf; 0]);
}

#[test]
fn a_journal_does_not_grow_with_time() {
    let (target, url) = target();
    let data = tempfile::tempdir().unwrap();
    let flags = ["--data-dir", data.path().to_str().unwrap(), "--cores", "1"];
    let tasks: Vec<Value> = (0..200)
        .map(|n| json!({"method": "get", "request_url": format!("{url}?{n}"), "name": format!("page {n}")}))
        .collect();
    let load = and(open(10.0, 20.0), &json!({"tasks": tasks, "records": {"keep": 100}}));
    let mut cluster = Cluster::start(&test(&url, &load), 0, &flags);
    under_load(&target, 1);
    let [journal] = &journals(data.path())[..] else { panic!("one run, one journal") };
    let mut sizes = Vec::new();
    while cluster.master.runs() && sizes.len() < 50 {
        sizes.push(size_of(journal));
        pause(Duration::from_millis(500));
    }
    let (finished, summary) = cluster.finish(LIMIT);
    finished.expect_code(0);
    assert_eq!(summary.ended(), total(target));
    // both halves hold a whole ledger with the groups before and after it
    let (first, second) = sizes.split_at(sizes.len() / 2);
    let [first, second] = [first, second].map(|half| half.iter().max().copied().unwrap_or(0));
    assert!(second <= first * 3 / 2 + (1 << 20), "{sizes:?}");
}
