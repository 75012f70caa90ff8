"""A worker written from `cluster.proto` alone

foreign_worker.py MASTER PROTO_FILE NAME [PROTOCOL_VERSION]

The token is in LD_TOKEN, the fingerprint of the master's certificate in LD_WORKER_CA_FINGERPRINT (without it the
first that is seen is trusted). Does one run of one open scenario with a constant rate and one GET task, over one connection, and leaves. Prints
`refused CODE RETRY TEXT` if the master does not let it in, `done REQUESTS` at the end.
"""

import hashlib, hmac, http.client, importlib, json, os, queue, ssl, sys, tempfile, threading, time
from pathlib import Path
from urllib.parse import urlsplit

import grpc
from grpc_tools import protoc


def compile_proto(path):
    out = tempfile.mkdtemp()
    folder = Path(path).resolve().parent
    if protoc.main(["", f"-I{folder}", f"--python_out={out}", f"--grpc_python_out={out}", Path(path).name]) != 0:
        raise SystemExit("the contract does not compile")
    sys.path.insert(0, out)
    return importlib.import_module("cluster_pb2"), importlib.import_module("cluster_pb2_grpc")


MASTER, PROTO, NAME = sys.argv[1:4]
VERSION = int(sys.argv[4]) if len(sys.argv) > 4 else 2
TOKEN = os.environ.get("LD_TOKEN", "").strip().encode()
PINNED = os.environ.get("LD_WORKER_CA_FINGERPRINT", "")
pb, rpc = compile_proto(PROTO)
LANES, SECOND = 16384, 1_000_000_000


def varint(value):
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def histogram(values):
    """The contract's encoding of values in µs."""
    if not values:
        return b"\0"
    counts = {}
    for value in values:
        v = min(value, 3_600_000_000)
        e = max(0, v.bit_length() - 11)
        bucket = (e << 10) + (v >> e)
        counts[bucket] = counts.get(bucket, 0) + 1
    out, before = b"".join(map(varint, (len(values), sum(values), min(values), max(values)))), 0
    for bucket in sorted(counts):
        out += varint(bucket - before) + varint(counts[bucket])
        before = bucket
    return out


def mac(key, label, worker, master, fingerprint, version):
    """The contract's proof."""
    return hmac.new(key, label + b"\0" + worker + master + fingerprint + version.to_bytes(4, "big"), "sha256").digest()


for label, vector in (
    (b"worker", "145355f32c48952d56125c0c9b1742897c0b66feee9f93d321d670baad8c81e8"),
    (b"master", "2214b2edeb5a7b8106f159704ac3781081e88f15b75bb40a9cdd8910df51783e"),
    (b"session", "4f9b34f9a19541951962d097895a18128bc6538a2acb4cde7a5fcb543f1052bd"),
):
    proof = mac(b"correct horse", label, b"\1" * 32, b"\2" * 32, b"\3" * 32, 2)
    assert proof.hex() == vector, "test vectors of the contract"


def secured(master):
    """A channel over TLS with the master's own certificate as the only root, and its fingerprint."""
    host, port = master.rsplit(":", 1)
    pem = ssl.get_server_certificate((host, int(port)))
    fingerprint = hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).digest()
    if PINNED and PINNED != "sha256:" + fingerprint.hex():
        raise SystemExit("another certificate than the pinned one")
    named = [("grpc.ssl_target_name_override", "loaddensity-master")]
    return grpc.secure_channel(master, grpc.ssl_channel_credentials(root_certificates=pem.encode()), named), fingerprint


assert histogram([1, 900, 1_000_000]).hex() == "03c58b3d01c0843d0101830701" + "9d5001", "test vector of the contract"


class Worker:
    def __init__(self):
        self.out, self.results = queue.Queue(), queue.Queue()
        self.best = None  # (round trip, offset)
        self.run, self.shard, self.plan, self.blobs = None, None, None, {}
        self.started = self.ended = 0
        self.lock = threading.Lock()
        self.left = False
        self.t0 = None
        self.users = 0

    # -- control ------------------------------------------------------------------------------
    def send(self, **message):
        self.out.put(pb.FromWorker(**message))

    def messages(self, source):
        while (message := source.get()) is not None:
            yield message

    def serve(self):
        channel, fingerprint = secured(MASTER)
        stub, nonce = rpc.ClusterStub(channel), os.urandom(32)
        self.send(hello=pb.Hello(protocol_version=VERSION, build="foreign 1", name=NAME, cores=1, nonce=nonce))
        for message in stub.Control(self.messages(self.out)):
            kind = message.WhichOneof("message")
            if kind == "refused":
                print(f"refused {message.refused.code} {message.refused.retry} {message.refused.text}", flush=True)
                return
            if kind == "challenge":
                seen = (nonce, message.challenge.nonce, fingerprint, VERSION)
                self.send(proof=pb.Proof(token=mac(TOKEN, b"worker", *seen) if TOKEN else b""))
            elif kind == "welcome":
                if TOKEN and not hmac.compare_digest(message.welcome.proof, mac(TOKEN, b"master", *seen)):
                    raise SystemExit("the master does not know the token")
                self.session = message.welcome.session
                attach = pb.Attach(session=self.session, secret=message.welcome.secret)
                self.results.put(pb.ResultsFromWorker(attach=attach))
                threading.Thread(target=self.read_acks, args=(stub,), daemon=True).start()
                threading.Thread(target=self.beat, daemon=True).start()
            elif kind == "heartbeat_reply":
                self.clock(message.heartbeat_reply)
            elif kind == "prepare":
                self.run, self.plan_digest = message.prepare.run, message.prepare.plan
                self.missing = set(message.prepare.blobs)
                self.send(need_blobs=pb.NeedBlobs(run=self.run, digests=sorted(self.missing)))
            elif kind == "blob_chunk":
                self.chunk(message.blob_chunk)
            elif kind == "arm":
                self.arm(message.arm)
            elif kind in ("stop", "abort"):
                self.stopped = True
            elif kind in ("run_closed", "goodbye"):
                break
        print(f"done {self.started}", flush=True)
        self.left = True
        self.send(goodbye=pb.Goodbye(text="the run is over"))
        self.out.put(None)
        self.results.put(None)
        time.sleep(0.2)

    def beat(self):
        number = 0
        while not self.left:
            number += 1
            beat = pb.Heartbeat(number=number, sent_at_ns=time.monotonic_ns())
            if self.best:
                beat.clock_offset_ns, beat.clock_error_ns = self.best[1], self.best[0] // 2
            if self.t0 is not None and time.monotonic_ns() >= self.t0:
                odometers = self.odometers()
                at = time.monotonic_ns() - self.t0
                beat.run.CopyFrom(pb.RunBeat(run=self.run, at_ns=at, odometers=odometers, users=1))
            self.send(heartbeat=beat)
            time.sleep(0.02 if number < 8 else 0.2)

    def clock(self, reply):
        t3 = time.monotonic_ns()
        trip = (t3 - reply.sent_at_ns) - (reply.replied_at_ns - reply.received_at_ns)
        offset = ((reply.received_at_ns - reply.sent_at_ns) + (reply.replied_at_ns - t3)) // 2
        if self.best is None or trip < self.best[0]:
            self.best = (trip, offset)

    def chunk(self, chunk):
        data = self.blobs.setdefault(chunk.digest, bytearray())
        assert chunk.offset == len(data), "chunks ascend without gaps"
        data += chunk.data
        if len(data) < chunk.total:
            return
        assert hashlib.sha256(data).hexdigest() == chunk.digest, "a blob is what its digest says"
        self.missing.discard(chunk.digest)
        if not self.missing:
            self.plan = json.loads(self.blobs[self.plan_digest])
            self.send(ready=pb.Ready(run=self.run, cores=1, capacity=1000))

    def arm(self, arm):
        first = self.t0 is None
        self.t0 = arm.t0_ns - self.best[1]
        self.lanes = {lane for lane in range(LANES) if arm.shard.lanes[lane // 8] >> lane % 8 & 1}
        self.send(armed=pb.Armed(run=self.run, attempt=arm.attempt))
        if first:
            threading.Thread(target=self.load, daemon=True).start()

    # -- load ---------------------------------------------------------------------------------
    def odometers(self):
        with self.lock:
            started, ended = self.started, self.ended
        zero = pb.PhaseOdometer(dropped=[0] * 4)
        main = pb.PhaseOdometer(
            due=started, iterations=started, dropped=[0] * 4, requests_started=started, requests_written=started,
            requests_ended=ended)
        return pb.Odometers(phases=[main, zero, zero])

    def load(self):
        scenario = self.plan["scenarios"][0]
        rate, first = scenario["load"]["open"]["rate"]["tail"], scenario["first_number"]
        task, end = scenario["tasks"][0], self.plan["test_time"]
        url = urlsplit(task["fields"]["request_url"])
        connection = http.client.HTTPConnection(url.hostname, url.port, timeout=30)
        self.key = (task["name"], "GET", scenario["name"])
        self.seq, self.skew, self.second = 0, None, 0
        self.samples, self.rows = [], {}
        number = 0
        while (due := int(number / rate * SECOND)) < end:
            if (first + number) % LANES in self.lanes:
                self.one(connection, url, due)
            number += 1
        self.roll((time.monotonic_ns() - self.t0) // SECOND + 1, last=True)

    def row(self, second):
        return self.rows.setdefault(second, {"requests_started": 0, "succeeded": 0, "failed": 0, "iterations": 0})

    def one(self, connection, url, due):
        while (wait := self.t0 + due - time.monotonic_ns()) > 0:
            time.sleep(wait / SECOND)
            self.roll((time.monotonic_ns() - self.t0) // SECOND)
        started = time.monotonic_ns() - self.t0
        if self.skew is None:
            self.skew = started
        with self.lock:
            self.started += 1
        connection.request("GET", url.path or "/")
        answer = connection.getresponse()
        answer.read()
        ended = time.monotonic_ns() - self.t0
        self.roll(ended // SECOND)
        row = self.row(started // SECOND)
        row["requests_started"] += 1
        row["iterations"] += 1
        ok = answer.status < 400
        self.row(ended // SECOND)["succeeded" if ok else "failed"] += 1
        self.samples.append((due, started, ended, ok))
        with self.lock:
            self.ended += 1

    def roll(self, second, last=False):
        """Cuts a frame when a second is over."""
        if second <= self.second and not last:
            return
        self.seq += 1
        us = lambda ns: ns // 1000
        series = pb.Series(
            name=0, request_type=1, scenario=2,
            succeeded=histogram([us(e - d) for d, s, e, ok in self.samples if ok]),
            failed=histogram([us(e - d) for d, s, e, ok in self.samples if not ok]),
            first_at_ns=min((e for _, _, e, _ in self.samples), default=2**64 - 1))
        empty = lambda: pb.Phase(service=b"\0", lag=b"\0", timing=[b"\0"] * 6)
        main = pb.Phase(
            series=[series] if self.samples else [],
            service=histogram([us(e - s) for _, s, e, _ in self.samples]),
            lag=histogram([us(s - d) for d, s, _, _ in self.samples]),
            timing=[b"\0"] * 6)
        rows = [pb.Row(second=n, dropped=[0] * 4, **row) for n, row in sorted(self.rows.items())]
        generator = pb.Generator(cores=1, scheduler_lag=b"\0", users_max=1, successes_seen=self.ended)
        if self.skew is not None:
            generator.start_skew_ns = self.skew
        self.results.put(pb.ResultsFromWorker(frame=pb.Frame(
            run=self.run, session=self.session, seq=self.seq, from_second=self.second, to_second=second,
            strings=list(self.key), phases=[main, empty(), empty()], rows=rows, odometers=self.odometers(),
            generator=generator, last=last, sealed_at_ns=time.monotonic_ns() - self.t0)))
        self.second, self.samples, self.rows = second, [], {}

    def read_acks(self, stub):
        try:
            for _ in stub.Results(self.messages(self.results)):
                pass
        except grpc.RpcError as error:
            if not self.left:
                print(f"results ended: {error}", file=sys.stderr, flush=True)


try:
    Worker().serve()
except grpc.RpcError as error:
    print(f"control ended: {error.code()} {error.details()}", flush=True)
    sys.exit(1)
