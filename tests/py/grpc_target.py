"""A gRPC target that counts: hello.v1.Greeter of fixtures/grpc/hello.proto.

    grpc_target.py FOLDER [--seed | --twice] [--reflection] [--streams N] [--tls CERT KEY [CA]]

Writes FOLDER/ports.json; on SIGTERM FOLDER/seen.json: calls by method, messages in and out, and how
many channels (addresses of clients) called. --seed serves the seed's greeter.Greeter instead,
--twice also hello.v2.Greeter. A channel carries N calls at once. With a CA clients must show a
certificate.
"""
import base64
import json
import os
import signal
import sys
import tempfile
import threading
import time
from concurrent import futures

import grpc
import grpc_tools
from grpc_reflection.v1alpha import reflection
from grpc_tools import protoc

PROTOS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "fixtures", "grpc")
# as the seed's TARGETS.md describes it
SEED = """syntax = "proto3";
package greeter;
service Greeter {
  rpc SayHello (HelloRequest) returns (HelloReply);
  rpc SayMany (HelloRequest) returns (stream HelloReply);
  rpc Collect (stream HelloRequest) returns (HelloReply);
  rpc Chat (stream HelloRequest) returns (stream HelloReply);
}
message HelloRequest { string name = 1; int32 times = 2; }
message HelloReply { string message = 1; }
"""

lock = threading.Lock()
calls, peers, moved = {}, set(), {"in": 0, "out": 0}


def generate(folder, *files):
    """Python modules of .proto files, in `folder`."""
    known = os.path.join(os.path.dirname(grpc_tools.__file__), "_proto")
    paths = [f"-I{PROTOS}", f"-I{folder}", f"-I{known}", f"--python_out={folder}", f"--grpc_python_out={folder}"]
    assert protoc.main(["protoc", *paths, *files]) == 0


def begin(name, context):
    with lock:
        calls[name] = calls.get(name, 0) + 1
        peers.add(context.peer())
        return calls[name]


def move(way):
    with lock:
        moved[way] += 1


def take(request, context):
    move("in")
    if request.name == "boom":
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, "boom arg")
    if request.name == "slow":
        time.sleep(2)
    while request.name == "stall" and context.is_active():
        time.sleep(0.02)


def text(value):
    return base64.b64encode(value).decode() if isinstance(value, bytes) else value


def hello(pb, base):
    def reply(message, number=0, metadata=()):
        move("out")
        return pb.HelloReply(message=message, number=number, metadata={k: text(v) for k, v in metadata})

    class Greeter(base):
        def SayHello(self, request, context):
            number = begin("SayHello", context)
            take(request, context)
            context.send_initial_metadata((("x-initial", "first"),))
            context.set_trailing_metadata((("x-trailing", "last"),))
            if request.name.startswith("size:"):
                return reply("x" * int(request.name[5:]))
            return reply(f"Hello {request.name}{request.person.name}", number, context.invocation_metadata())

        def SayMany(self, request, context):
            begin("SayMany", context)
            take(request, context)
            for i in range(request.times or 3):
                time.sleep(request.pause / 1000)
                yield reply(f"{request.name}{i}", i)

        def Collect(self, requests, context):
            begin("Collect", context)
            names = []
            for request in requests:
                take(request, context)
                names.append(request.name)
            return reply(",".join(names))

        def Chat(self, requests, context):
            begin("Chat", context)
            for i, request in enumerate(requests):
                take(request, context)
                yield reply(request.name, i)

    return Greeter()


def seed(pb, base):
    class Greeter(base):
        def SayHello(self, request, context):
            begin("SayHello", context)
            take(request, context)
            token = dict(context.invocation_metadata()).get("x-token", "")
            return pb.HelloReply(message=f"Hello {request.name}{token}")

    return Greeter()


def main(folder, *flags):
    options = [("grpc.so_reuseport", 0)]
    if "--streams" in flags:
        options.append(("grpc.max_concurrent_streams", int(flags[flags.index("--streams") + 1])))
    server = grpc.server(futures.ThreadPoolExecutor(64), options=options)
    names = [reflection.SERVICE_NAME]
    with tempfile.TemporaryDirectory() as modules:
        sys.path.insert(0, modules)
        if "--seed" in flags:
            with open(os.path.join(modules, "greeter.proto"), "w") as file:
                file.write(SEED)
            generate(modules, "greeter.proto")
            import greeter_pb2
            import greeter_pb2_grpc
            greeter_pb2_grpc.add_GreeterServicer_to_server(seed(greeter_pb2, greeter_pb2_grpc.GreeterServicer), server)
            names.append("greeter.Greeter")
        else:
            generate(modules, "common.proto", "hello.proto", "second.proto")
            import hello_pb2
            import hello_pb2_grpc
            import second_pb2_grpc
            hello_pb2_grpc.add_GreeterServicer_to_server(hello(hello_pb2, hello_pb2_grpc.GreeterServicer), server)
            names.append("hello.v1.Greeter")
            if "--twice" in flags:
                second_pb2_grpc.add_GreeterServicer_to_server(second_pb2_grpc.GreeterServicer(), server)
                names.append("hello.v2.Greeter")
    if "--reflection" in flags:
        reflection.enable_server_reflection(names, server)
    address = "127.0.0.1:0"
    if "--tls" in flags:
        files = []
        for path in flags[flags.index("--tls") + 1:]:
            with open(path, "rb") as file:
                files.append(file.read())
        certificate, key, *ca = files
        ca = ca[0] if ca else None
        port = server.add_secure_port(address, grpc.ssl_server_credentials([(key, certificate)], ca, ca is not None))
    else:
        port = server.add_insecure_port(address)
    over = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: over.set())
    server.start()
    write(folder, "ports", {"grpc": port})
    over.wait()
    with lock:
        write(folder, "seen", {"calls": calls, "in": moved["in"], "out": moved["out"], "channels": len(peers)})
    # threads of calls that were given up may still wait
    os._exit(0)


def write(folder, name, value):
    part = os.path.join(folder, name + ".part")
    with open(part, "w") as file:
        json.dump(value, file)
    os.rename(part, os.path.join(folder, name + ".json"))


main(*sys.argv[1:])
