"""Peers of the mixed user: each checks that the token that comes with an id is the one that was given out for it.

    mixed_target.py FOLDER MQTT_PORT     writes FOLDER/ports.json when all listen; on SIGTERM FOLDER/seen.json

POST /login gives {"id": "u7", "token": "…"}: a new pair each time. WebSocket: ?id= and `Authorization: Bearer`, answers
`welcome ID TOKEN`. gRPC greeter.Greeter/SayHello: name = id, metadata x-token. MQTT: topic mixed/ID, payload the token.
"""

import asyncio, json, pathlib, secrets, signal, sys, threading
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import grpc
import paho.mqtt.client as mqtt
import websockets
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from grpc_reflection.v1alpha import reflection

folder, mqtt_port = pathlib.Path(sys.argv[1]), int(sys.argv[2])
lock = threading.Lock()
tokens = {}
seen = {"logins": 0, "ws": 0, "grpc": 0, "mqtt": 0, "crossed": []}


def check(kind, who, token):
    with lock:
        seen[kind] += 1
        if tokens.get(who) != token:
            seen["crossed"].append([kind, who, token])
            return False
        return True


class Login(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        with lock:
            seen["logins"] += 1
            who, token = f"u{seen['logins']}", secrets.token_hex(8)
            tokens[who] = token
        body = json.dumps({"id": who, "token": token}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


async def socket(ws):
    who = parse_qs(urlsplit(ws.request.path).query)["id"][0]
    token = ws.request.headers["Authorization"].removeprefix("Bearer ")
    async for message in ws:
        ok = check("ws", who, token) and message == token
        await ws.send(f"welcome {who} {token}" if ok else "crossed")


def messages():
    """greeter.proto, made by hand: no generated code lies here."""
    file = descriptor_pb2.FileDescriptorProto(name="greeter.proto", package="greeter", syntax="proto3")
    string = descriptor_pb2.FieldDescriptorProto.TYPE_STRING
    for name, field in [("HelloRequest", "name"), ("HelloReply", "message")]:
        message = file.message_type.add(name=name)
        message.field.add(name=field, number=1, type=string, label=1)
    service = file.service.add(name="Greeter")
    service.method.add(name="SayHello", input_type=".greeter.HelloRequest", output_type=".greeter.HelloReply")
    pool = descriptor_pool.Default()
    pool.Add(file)
    of = lambda name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"greeter.{name}"))
    return of("HelloRequest"), of("HelloReply")


def greeter():
    request, reply = messages()

    def say_hello(hello, context):
        token = dict(context.invocation_metadata()).get("x-token")
        return reply(message=f"Hello {hello.name}" if check("grpc", hello.name, token) else "crossed")

    server = grpc.server(futures.ThreadPoolExecutor(16))
    handler = grpc.unary_unary_rpc_method_handler(say_hello, request.FromString, reply.SerializeToString)
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("greeter.Greeter", {"SayHello": handler})])
    reflection.enable_server_reflection(["greeter.Greeter", reflection.SERVICE_NAME], server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    return server, port


async def main():
    ThreadingHTTPServer.request_queue_size = 1024  # all users come at once
    http = ThreadingHTTPServer(("127.0.0.1", 0), Login)
    threading.Thread(target=http.serve_forever, daemon=True).start()
    server, grpc_port = greeter()
    subscriber = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id="mixed-target")
    subscribed = threading.Event()
    subscriber.on_subscribe = lambda *_: subscribed.set()
    subscriber.on_message = lambda _c, _u, m: check("mqtt", m.topic.split("/")[1], m.payload.decode())
    subscriber.connect("127.0.0.1", mqtt_port)
    subscriber.loop_start()
    subscriber.subscribe("mixed/+", qos=1)
    subscribed.wait(10)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with websockets.serve(socket, "127.0.0.1", 0) as ws:
        ports = {"http": http.server_address[1], "grpc": grpc_port, "ws": ws.sockets[0].getsockname()[1]}
        (folder / "ports.part").write_text(json.dumps(ports))
        (folder / "ports.part").rename(folder / "ports.json")
        await stop.wait()
        await asyncio.sleep(0.5)  # deliveries that are under way
        with lock:
            (folder / "seen.json").write_text(json.dumps(seen))
    subscriber.loop_stop()
    server.stop(None)


asyncio.run(main())
