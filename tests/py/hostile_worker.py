"""Everything that a worker must not do, against a master that runs a test meanwhile

hostile_worker.py MASTER PROTO_FILE

The token is in LD_TOKEN. Prints one line `NAME OUTCOME` for each attack, and `end`.
"""

import hashlib, hmac, importlib, os, queue, random, resource, socket, ssl, sys, tempfile, threading, time
from pathlib import Path

import grpc
from grpc_tools import protoc

MASTER, PROTO = sys.argv[1:3]
HOST, PORT = MASTER.rsplit(":", 1)
PORT = int(PORT)
TOKEN = os.environ["LD_TOKEN"].encode()
VERSION = 2

out = tempfile.mkdtemp()
folder = Path(PROTO).resolve().parent
assert protoc.main(["", f"-I{folder}", f"--python_out={out}", f"--grpc_python_out={out}", Path(PROTO).name]) == 0
sys.path.insert(0, out)
pb, rpc = importlib.import_module("cluster_pb2"), importlib.import_module("cluster_pb2_grpc")

PEM = ssl.get_server_certificate((HOST, PORT))
FINGERPRINT = hashlib.sha256(ssl.PEM_cert_to_DER_cert(PEM)).digest()
CREDENTIALS = grpc.ssl_channel_credentials(root_certificates=PEM.encode())


def said(name, outcome):
    # one write: two threads speak
    sys.stdout.write(f"{name} {outcome}\n")
    sys.stdout.flush()


def mac(key, label, worker, master):
    return hmac.new(key, label + b"\0" + worker + master + FINGERPRINT + VERSION.to_bytes(4, "big"), "sha256").digest()


def channel():
    options = [("grpc.ssl_target_name_override", "loaddensity-master"), ("grpc.use_local_subchannel_pool", 1),
               ("grpc.max_send_message_length", 64 << 20)]
    return grpc.secure_channel(MASTER, CREDENTIALS, options)


class Link:
    """One connection, whose messages the caller chooses."""

    def __init__(self):
        self.channel = channel()
        self.stub = rpc.ClusterStub(self.channel)
        self.out = queue.Queue()
        self.calls = []

    def feed(self, source):
        while (message := source.get()) is not None:
            yield message

    def open(self):
        self.control = self.stub.Control(self.feed(self.out), timeout=20)
        return self

    def send(self, **message):
        self.out.put(pb.FromWorker(**message))

    def next(self):
        """The next message of the master, or how the stream ended."""
        try:
            message = next(self.control)
            return message.WhichOneof("message"), message
        except StopIteration:
            return "closed", None
        except grpc.RpcError as error:
            return "closed", error

    def until(self, *kinds):
        while True:
            kind, message = self.next()
            if kind in kinds or kind == "closed":
                return kind, message

    def join(self, name, returning=None, session_proof=b"", cores=1):
        nonce = os.urandom(32)
        hello = pb.Hello(protocol_version=VERSION, build="hostile", name=name, cores=cores, nonce=nonce)
        if returning is not None:
            hello.returning = returning
        self.open().send(hello=hello)
        kind, message = self.next()
        assert kind == "challenge", (kind, message)
        self.hello = hello
        self.proof = pb.Proof(token=mac(TOKEN, b"worker", nonce, message.challenge.nonce), session=session_proof)
        self.send(proof=self.proof)
        kind, message = self.next()
        assert kind == "welcome", (kind, message)
        self.welcome = message.welcome
        return self

    def attach(self, session, secret):
        results = queue.Queue()
        results.put(pb.ResultsFromWorker(attach=pb.Attach(session=session, secret=secret)))
        call = self.stub.Results(self.feed(results), timeout=10)
        return results, call

    def close(self):
        self.out.put(None)
        self.channel.close()


def outcome(kind, message):
    return f"refused {message.refused.code}" if kind == "refused" else kind


def first(*messages):
    """What comes of these messages, sent one after another whatever the master says."""
    link = Link().open()
    for message in messages:
        link.out.put(message)
    result = outcome(*link.until("refused", "welcome"))
    link.close()
    return result


def hello(**more):
    fields = dict(protocol_version=VERSION, build="h", name="h", cores=1, nonce=os.urandom(32))
    return pb.FromWorker(hello=pb.Hello(**{**fields, **more}))


def series(**more):
    fields = dict(name=0, request_type=1, scenario=2, succeeded=b"\x01\x05\x05\x05\x05\x01", failed=b"\0")
    return pb.Series(**{**fields, **more})


def frame(run, session, seq=1, spoil=None):
    zero = lambda: pb.PhaseOdometer(dropped=[0] * 4)
    empty = lambda: pb.Phase(service=b"\0", lag=b"\0", timing=[b"\0"] * 6)
    main = empty()
    main.series.append(series())
    made = pb.Frame(
        run=run, session=session, seq=seq, from_second=0, to_second=1, strings=["n", "GET", "s"],
        phases=[main, empty(), empty()], odometers=pb.Odometers(phases=[zero(), zero(), zero()]),
        generator=pb.Generator(cores=1, scheduler_lag=b"\0"))
    if spoil:
        spoil(made)
    return pb.ResultsFromWorker(frame=made)


def handshakes():
    link = Link().join("honest")
    said("joined", "welcome")
    said("replayed", first(pb.FromWorker(hello=link.hello), pb.FromWorker(proof=link.proof)))
    said("no_proof", first(hello(), pb.FromWorker(proof=pb.Proof())))
    said("wrong_proof", first(hello(), pb.FromWorker(proof=pb.Proof(token=os.urandom(32)))))
    said("long_proof", first(hello(), pb.FromWorker(proof=pb.Proof(token=os.urandom(4096)))))
    said("no_nonce", first(hello(nonce=b"")))
    said("short_nonce", first(hello(nonce=b"x" * 31)))
    said("beat_first", first(pb.FromWorker(heartbeat=pb.Heartbeat(number=1))))
    said("proof_first", first(pb.FromWorker(proof=pb.Proof())))
    said("hello_twice", first(hello(), hello()))
    said("nothing", first(pb.FromWorker()))
    # another's identity
    thief = Link().join("thief", returning=link.welcome.session, session_proof=os.urandom(32))
    said("stolen_session", "same" if thief.welcome.session == link.welcome.session else "other")
    for name, secret in (("attach_wrong", os.urandom(32)), ("attach_empty", b"")):
        _, call = thief.attach(link.welcome.session, secret)
        try:
            next(call)
            said(name, "attached")
        except grpc.RpcError as error:
            said(name, error.code().name)
    lone = Link()
    _, call = lone.attach(link.welcome.session, link.welcome.secret)
    try:
        next(call)
        said("attach_alone", "attached")
    except grpc.RpcError as error:
        said("attach_alone", error.code().name)
    lone.close()
    # the real one proves who it is
    for one in (thief, link):
        one.send(goodbye=pb.Goodbye(text="done"))
        one.close()


def frames():
    """Forged measurements of a worker that may join."""
    many = lambda f: f.phases[0].series.extend(series(name=0) for _ in range(1200))
    wide = lambda f: f.strings.append("x" * 10_000_000)
    spoils = {
        "sum": lambda f: setattr(f.phases[0].series[0], "succeeded", b"\x02\x0a\x05\x05\x05\x01"),
        "bucket": lambda f: setattr(f.phases[0].series[0], "succeeded", b"\x01\x05\x05\x05\x80\xb8\x01\x01"),
        "overflow": lambda f: setattr(f.phases[0].series[0], "succeeded", b"\xff" * 9 + b"\x01\x05\x05\x05\x05\x01"),
        "absurd": lambda f: setattr(f.phases[0].series[0], "succeeded", os.urandom(10_000)),
        "names": many,
        "text": wide,
        "index": lambda f: setattr(f.phases[0].series[0], "name", 4_000_000_000),
        "phases": lambda f: f.phases.pop(),
        "seconds": lambda f: (setattr(f, "from_second", 7), setattr(f, "to_second", 3)),
        "future": lambda f: (setattr(f, "from_second", 100_000), setattr(f, "to_second", 4_000_000_000)),
        "foreign_session": lambda f: setattr(f, "session", 1),
        "other_run": lambda f: setattr(f, "run", "x"),
        "far_seq": lambda f: setattr(f, "seq", 2**63),
        "odometers": lambda f: f.odometers.phases.pop(),
        # 2^63 samples in a detail: two of these would overflow whoever adds them
        "detail": lambda f: setattr(f.phases[0], "service", b"\x80" * 9 + b"\x01" + b"\0" * 4 + b"\x80" * 9 + b"\x01"),
        "reasons": lambda f: f.phases[0].failures.add(kind=1, count=2**40),
    }
    for name, spoil in spoils.items():
        link = Link().join("forger")
        results, call = link.attach(link.welcome.session, link.welcome.secret)
        kind, message = link.until("prepare")
        assert kind == "prepare", "a worker that joins in mid-run is asked to prepare"
        results.put(frame(message.prepare.run, link.welcome.session, spoil=spoil))
        try:
            ack = next(call)
            said("frame_" + name, ack.WhichOneof("message"))
        except StopIteration:
            said("frame_" + name, "ended")
        except grpc.RpcError as error:
            said("frame_" + name, "ended" if error.code() != grpc.StatusCode.DEADLINE_EXCEEDED else "ignored")
        link.send(goodbye=pb.Goodbye(text="done"))
        link.close()


def beats():
    """Numbers that would put every deadline of the cluster off for decades."""
    for name, beat in (("error", dict(clock_error_ns=1 << 62)), ("run", dict(run=pb.RunBeat(run="x", at_ns=2**64 - 1)))):
        link = Link().join("liar")
        link.send(heartbeat=pb.Heartbeat(number=1, sent_at_ns=1, clock_offset_ns=0, **beat))
        said("beat_" + name, link.until()[0])
        link.close()


def giants():
    said("giant_hello", first(hello(build="x" * (20 << 20))))
    said("large_hello", first(hello(build="x" * (1 << 20))))
    link = Link().join("giant")
    link.send(cannot_prepare=pb.CannotPrepare(run="x", text="y" * (20 << 20)))
    said("giant_message", link.until()[0])
    link.close()


def raw(tls=True):
    tcp = socket.create_connection((HOST, PORT), timeout=30)
    if not tls:
        return tcp
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    return context.wrap_socket(tcp)


def ends(sock, within=25):
    """Whether the master closes it."""
    sock.settimeout(within)
    try:
        while sock.recv(65536):
            pass
        return "cut"
    except (TimeoutError, socket.timeout):
        return "open"
    except OSError:
        return "cut"


def garbage():
    random.seed(5557)
    for tls in (False, True):
        for n in range(20):
            try:
                sock = raw(tls)
                sock.sendall(random.randbytes(random.choice((1, 9, 200, 5000))))
                if n % 2:
                    sock.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + random.randbytes(500))
                sock.close()
            except OSError:
                pass
    # a frame that promises more than it brings
    try:
        sock = raw()
        sock.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([255, 255, 255, 0, 0, 0, 0, 0, 1]) + b"x" * 100)
        said("half_frame", ends(sock))
    except OSError:
        said("half_frame", "cut")


def slow():
    """One that says nothing, one that begins TLS and stops, one that begins HTTP/2 and stops, one that dribbles."""
    silent, begun, preface = raw(False), raw(False), raw()
    begun.sendall(b"\x16\x03\x01\x02\x00\x01")
    preface.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
    drip = raw(False)

    def dribble():
        try:
            for byte in b"\x16\x03\x01\x02\x00" + b"\x01" * 600:
                drip.sendall(bytes([byte]))
                time.sleep(0.2)
        except OSError:
            pass

    threading.Thread(target=dribble, daemon=True).start()
    time.sleep(0.1)
    for name, sock in (("silent", silent), ("half_tls", begun), ("dribble", drip), ("half_http", preface)):
        said("slow_" + name, ends(sock))


def crowd():
    """More connections than there is room for; an honest worker still gets in."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 4096), most))
    socks = []
    for _ in range(3000):
        try:
            socks.append(socket.create_connection((HOST, PORT), timeout=5))
        except OSError:
            pass
    said("crowd", "enough" if len(socks) >= 1000 else str(len(socks)))
    link = Link().join("late")
    said("joined_in_crowd", "welcome")
    link.send(goodbye=pb.Goodbye(text="done"))
    link.close()
    for sock in socks:
        sock.close()


waiting = threading.Thread(target=slow)
waiting.start()
for attack in (handshakes, frames, beats, giants, garbage):
    attack()
waiting.join()
crowd()
said("end", "")
os._exit(0)
