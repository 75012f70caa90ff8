#!/usr/bin/env python3
"""Image, compose file and chart with real containers: Docker Engine and podman of Debian, as root.

    tests/deploy/containers.py BIN_DIR             a run by compose, a killed worker, pods with exit codes 0, 1 and 2
    tests/deploy/containers.py BIN_DIR --faults    also a killed master, a cut network, 500 users in 256 MiB a worker

Binaries that need libraries get those of this machine as the image's BASE; static ones are put into `FROM scratch`.
Starts a dockerd of its own and ends it; pods are in folders of their own.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

TOP = Path(__file__).parents[2]
PROJECT = f"ldtest{os.getpid()}"
SHIM = """#!/bin/sh
# this machine may not raise limits
prev=; for a in "$@"; do case "$prev" in --bundle|-b) f="$a/config.json"; [ -f "$f" ] && jq 'del(.process.rlimits)' "$f" >"$f.n" && mv "$f.n" "$f";; esac; prev="$a"; done
exec runc "$@"
"""


def run(*command, check=True, **options):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, **options)
    if check and done.returncode:
        raise AssertionError(f"{' '.join(map(str, command))}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return done


def wait_for(what, condition, seconds=60):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        value = condition()
        if value:
            return value
        time.sleep(0.2)
    raise AssertionError(f"{what}: not within {seconds} s")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def document(**test):
    tasks = test.pop("tasks", [{"method": "get", "request_url": "/", "name": "home"}])
    test = {"user_detail_dict": {"user": "fast_http_user"}, "host": "${env.LD_TARGET}", "user_count": 20, "spawn_rate": 20,
            "test_time": "5s", "wait_time": [0.1, 0.2], "tasks": tasks, **test}
    return [["LD_start_test", test]]


def context(folder, bin_dir):
    """What the image is made from. Returns the libraries that the binaries need."""
    dist = folder / "dist"
    (dist / "data").mkdir(parents=True)
    libraries = set()
    for name in ("ld-master", "ld-worker"):
        run("strip", "-o", dist / name, bin_dir / name)
        for line in run("ldd", bin_dir / name, check=False).stdout.splitlines():
            libraries.update(word for word in line.split() if word.startswith("/"))
    shutil.copy("/etc/ssl/certs/ca-certificates.crt", dist)
    for name in ("Dockerfile", ".dockerignore", "docker-compose.yml"):
        shutil.copy(TOP / name, folder)
    shutil.copytree(TOP / "examples", folder / "examples")
    return sorted(libraries)


class Docker:
    """A Docker Engine of its own, with the image and a project folder."""

    def __init__(self, folder, bin_dir):
        self.folder = folder
        self.ports = {"LD_TARGET_PORT": str(free_port()), "LD_WEB_PORT": str(free_port())}
        self.environment = {**os.environ, **self.ports, "DOCKER_HOST": f"unix://{folder}/s", "LD_BUILD_TARGET": "prebuilt"}
        log = open(folder / "log", "wb")
        self.daemon = subprocess.Popen(["dockerd", "-H", f"unix://{folder}/s", "--data-root", folder / "d", "--exec-root", folder / "x",
                                        "-p", folder / "pid"], stdout=log, stderr=log)
        self.project = folder / "project"
        libraries = context(self.project, bin_dir)
        wait_for("dockerd", lambda: self("info", check=False).returncode == 0)
        base = []
        if libraries:
            tar = subprocess.Popen(["tar", "-C", "/", "--dereference", "-c", *(path.lstrip("/") for path in libraries)], stdout=subprocess.PIPE)
            run("docker", "import", "-", "ld-base", stdin=tar.stdout, env=self.environment)
            base = ["--build-arg", "BASE=ld-base"]
        self("build", "-q", "--target", "prebuilt", *base, "-t", "loaddensity", self.project)

    def __call__(self, *arguments, **options):
        return run("docker", *arguments, env=self.environment, **options)

    def compose(self, *arguments, **variables):
        return run("docker-compose", "-p", PROJECT, *arguments, cwd=self.project, env={**self.environment, **variables})

    def start(self, test, **variables):
        (self.project / "examples" / "test.json").write_text(json.dumps(test))
        self.compose("up", "-d", LD_DOCUMENT="test.json", **variables)

    def is_running(self):
        log = self("logs", f"{PROJECT}_master_1")
        return "starting:" in log.stdout + log.stderr

    def finish(self):
        """The exit code, the summary and what the target saw."""
        code = int(self("wait", f"{PROJECT}_master_1", timeout=120).stdout)
        counts = f"http://127.0.0.1:{self.ports['LD_TARGET_PORT']}/__counts"
        summary = json.loads((self.project / "results" / "summary.json").read_text())
        seen = json.loads(urllib.request.urlopen(counts, timeout=10).read())["total"]
        return code, summary, seen

    def down(self):
        self.compose("down", "-t", "2", "-v")
        shutil.rmtree(self.project / "results", ignore_errors=True)

    def end(self):
        self.compose("down", "-t", "2", "-v")
        self.daemon.send_signal(signal.SIGTERM)
        self.daemon.wait(60)


def check_image(docker):
    config = json.loads(docker("inspect", "loaddensity").stdout)[0]["Config"]
    assert config["User"] == "65532:65532" and config["Healthcheck"]["Test"] == ["CMD", "ld-worker", "healthcheck"], config
    for name in ("ld-master", "ld-worker"):
        assert docker("run", "--rm", "--read-only", "loaddensity", name, "--version").stdout.startswith(name)
    assert docker("run", "--rm", "loaddensity", "sh", check=False).returncode != 0, "there is a shell"
    # process 1 honours SIGTERM
    docker("run", "-d", "--name", "alone", "loaddensity", "ld-worker", "--master", "127.0.0.1:1")
    time.sleep(1)
    before = time.monotonic()
    docker("stop", "-t", "10", "alone")
    assert time.monotonic() - before < 8 and docker("inspect", "-f", "{{.State.ExitCode}}", "alone").stdout.strip() == "0"
    docker("rm", "alone")


def conserves(summary):
    return summary["conservation"]["ok"]


def check_run(docker):
    docker.start(document(), LD_WORKERS="4")
    code, summary, seen = docker.finish()
    counts = summary["conservation"]
    assert code == 0 and conserves(summary) and counts["lost"] == 0, (code, counts)
    assert len(summary["workers"]) == 4 and seen == counts["requests_started"] == counts["succeeded"] > 0, (seen, counts)
    report = docker.project / "results" / "report.html"
    assert report.stat().st_uid == 65532 and "<html" in report.read_text()[:500]
    host = json.loads(docker("inspect", f"{PROJECT}_worker_1").stdout)[0]
    assert host["HostConfig"]["ReadonlyRootfs"] and host["HostConfig"]["Memory"] == 256 << 20 and host["Config"]["User"] == "65532:65532"
    docker.down()
    print(f"compose: 4 workers, {seen} requests, as the target says; report on the host")


def check_bounds(code, summary, seen, what):
    counts = summary["conservation"]
    known = counts["succeeded"] + counts["failed"]
    assert conserves(summary), counts
    assert known <= seen <= known + counts["in_flight"] + counts["lost"], (what, seen, counts)
    print(f"{what}: exit code {code}, target saw {seen}: {known} known, {counts['in_flight']} in flight, {counts['lost']} lost; "
          f"workers {sorted(worker['state'] for worker in summary['workers'])}")


def check_killed_worker(docker):
    docker.start(document(test_time="10s", thresholds=["failure_rate < 5%"]))
    wait_for("the run", docker.is_running)
    time.sleep(3)
    docker("kill", f"{PROJECT}_worker_2")
    code, summary, seen = docker.finish()
    check_bounds(code, summary, seen, "a worker killed")
    docker.down()


def check_killed_master(docker):
    docker.start(document(test_time="20s", thresholds=["failure_rate < 5%"]))
    wait_for("the run", docker.is_running)
    time.sleep(6)
    docker("kill", f"{PROJECT}_master_1")
    time.sleep(2)
    docker("start", f"{PROJECT}_master_1")
    code, summary, seen = docker.finish()
    check_bounds(code, summary, seen, "the master killed, and started again")
    docker.down()


def check_cut(docker):
    docker.start(document(test_time="25s", thresholds=["failure_rate < 5%"]))
    wait_for("the run", docker.is_running)
    time.sleep(4)
    docker("network", "disconnect", f"{PROJECT}_default", f"{PROJECT}_worker_3")
    time.sleep(10)
    docker("network", "connect", f"{PROJECT}_default", f"{PROJECT}_worker_3")
    code, summary, seen = docker.finish()
    check_bounds(code, summary, seen, "a network cut for 10 s")
    docker.down()


def check_memory(docker):
    docker.start(document(user_count=2000, spawn_rate=500, test_time="15s", wait_time=[0.5, 1.5]))
    wait_for("the run", docker.is_running)
    time.sleep(10)
    used = docker("stats", "--no-stream", "--format", "{{.Name}} {{.MemUsage}}").stdout
    code, summary, seen = docker.finish()
    killed = [docker("inspect", "-f", "{{.State.OOMKilled}} {{.RestartCount}}", f"{PROJECT}_worker_{n}").stdout.strip() for n in range(1, 5)]
    assert killed == ["false 0"] * 4 and seen == summary["conservation"]["requests_started"], (killed, seen, summary["conservation"])
    print(f"500 users a worker in 256 MiB: exit code {code}, {seen} requests\n{used}", end="")
    docker.down()


class Podman:
    """Pods of a rendered chart, in folders of their own."""

    def __init__(self, folder, docker):
        shim = folder / "runc-nolimit"
        shim.write_text(SHIM)
        shim.chmod(0o755)
        config = folder / "containers.conf"
        config.write_text(f'[engine]\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\nruntime = "runcx"\n[engine.runtimes]\n'
                          f'runcx = ["{shim}"]\n[network]\nnetwork_config_dir = "{folder}/net"\n')
        self.folder = folder
        self.environment = {**os.environ, "CONTAINERS_CONF": str(config), "PATH": os.environ["PATH"] + ":/usr/sbin"}
        docker("save", "loaddensity", "-o", folder / "image.tar")
        self("load", "-q", "-i", folder / "image.tar")
        for image in ("localhost/loaddensity:latest", "docker.io/library/loaddensity:latest"):
            if self("image", "exists", image, check=False).returncode == 0:
                self("tag", image, "localhost/ld:test")
        self("network", "create", "ldtest")

    def __call__(self, *arguments, **options):
        return run("podman", "--root", self.folder / "root", "--runroot", self.folder / "run", *arguments, env=self.environment, **options)

    def play(self, test, workers):
        import helm_python as helm
        values = {"document": test, "run": {"as": "pod"}, "workers": {"replicas": workers}, "target": {"enabled": True},
                  "image": {"repository": "localhost/ld", "tag": "test", "pullPolicy": "Never"}, "probes": {"enabled": False}}
        with helm.Chart.load(str(TOP / "helm" / "loaddensity")) as chart:
            texts = [text for path, text in chart.render(values, name="demo", namespace="default").items()
                     if path.endswith(".yaml") and "/tests/" not in path and text.strip()]
        file = self.folder / "pods.yaml"
        file.write_text("\n---\n".join(texts))
        master = "demo-loaddensity-master-master"
        self("play", "kube", "--network", "ldtest", file)
        code = int(self("wait", master, timeout=120).stdout)
        log = self("logs", master)
        text = log.stdout + log.stderr
        for name in self("ps", "-a", "--format", "{{.Names}}").stdout.split():
            if "-worker-" in name and name.endswith("-worker"):
                worker = self("logs", name)
                text += f"\n{name}:\n{worker.stdout}{worker.stderr}"
        self("play", "kube", "--down", file)
        for secret in self("secret", "ls", "-q").stdout.split():
            self("secret", "rm", secret)
        for volume in self("volume", "ls", "-q").stdout.split():
            self("volume", "rm", volume)
        return code, text


def check_pods(podman):
    missing = {"tasks": [{"method": "get", "request_url": "/?status=404", "name": "missing"}]}
    for expected, test in [(0, document()), (1, document(test_time="2s", **missing)), (2, [["LD_start_tset", {}]])]:
        code, log = podman.play(test, workers=2)
        assert code == expected, f"exit code {code} instead of {expected}\n{log}"
        if expected == 0:
            assert "2 workers" in log and "counts add up" in log, log
    print("podman: the chart's pods end with the run's exit codes 0, 1 and 2")


def main():
    bin_dir = Path(sys.argv[1]).resolve()
    with tempfile.TemporaryDirectory(prefix="ld-deploy-") as folder:
        folder = Path(folder)
        folder.chmod(0o711)
        docker = Docker(folder, bin_dir)
        try:
            check_image(docker)
            check_run(docker)
            check_killed_worker(docker)
            if "--faults" in sys.argv:
                check_killed_master(docker)
                check_cut(docker)
                check_memory(docker)
            (folder / "podman").mkdir()
            podman = Podman(folder / "podman", docker)
            try:
                check_pods(podman)
            finally:
                podman("pod", "rm", "-f", "-a", check=False)
                podman("system", "reset", "-f", check=False)
        finally:
            docker.end()


if __name__ == "__main__":
    main()
