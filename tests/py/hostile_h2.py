"""HTTP/2 servers without TLS, made with the `h2` library, that misbehave as the path or the port asks.

    hostile_h2.py FOLDER     writes FOLDER/ports.json; on SIGTERM FOLDER/seen.json: requests by path,
                             connections, the most streams open at a time, streams reset by clients

Ports: h2 · few (3 streams at a time, each 20 ms) · http1 · noise · mute · settings (malformed SETTINGS)
"""

import asyncio, gzip, json, pathlib, signal, socket, struct, sys

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import DataReceived, RequestReceived, StreamEnded, StreamReset, WindowUpdated
from h2.settings import SettingCodes, Settings

folder = pathlib.Path(sys.argv[1])
seen = {"paths": {}, "connections": 0, "most": 0, "resets": 0}
BIG = 2 << 20


class Server(asyncio.Protocol):
    def __init__(self, few):
        self.few = few
        self.h2 = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
        self.requests, self.open, self.unsent = {}, set(), {}

    def connection_made(self, transport):
        seen["connections"] += 1
        self.transport = transport
        if self.few:
            self.h2.local_settings = Settings(client=False, initial_values={SettingCodes.MAX_CONCURRENT_STREAMS: 3})
        self.h2.initiate_connection()
        self.flush()

    def flush(self):
        self.transport.write(self.h2.data_to_send())

    def data_received(self, data):
        for event in self.h2.receive_data(data):
            if isinstance(event, RequestReceived):
                self.open.add(event.stream_id)
                seen["most"] = max(seen["most"], len(self.open))
                self.requests[event.stream_id] = (dict(event.headers), b"")
            elif isinstance(event, DataReceived):
                headers, body = self.requests[event.stream_id]
                self.requests[event.stream_id] = (headers, body + event.data)
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, StreamEnded):
                headers, body = self.requests.pop(event.stream_id)
                if self.few:
                    asyncio.get_running_loop().call_later(0.02, self.answer, event.stream_id, headers, body)
                else:
                    self.answer(event.stream_id, headers, body)
            elif isinstance(event, StreamReset):
                seen["resets"] += 1
                self.open.discard(event.stream_id)
                self.unsent.pop(event.stream_id, None)
            elif isinstance(event, WindowUpdated):
                self.send_more()
        self.flush()

    def send_more(self):
        for stream, left in list(self.unsent.items()):
            while left and (room := min(self.h2.local_flow_control_window(stream), 16_384, left)):
                self.h2.send_data(stream, bytes(room), end_stream=room == left)
                left -= room
            self.unsent[stream] = left
            if not left:
                del self.unsent[stream]
                self.open.discard(stream)

    def reply(self, stream, body, *headers, status="200"):
        self.h2.send_headers(stream, [(":status", status), *headers], end_stream=not body)
        if body:
            self.h2.send_data(stream, body, end_stream=True)
        self.open.discard(stream)

    def answer(self, stream, headers, body):
        path = headers[":path"]
        seen["paths"][path] = seen["paths"].get(path, 0) + 1
        close = False
        if path == "/refused":
            self.h2.reset_stream(stream, ErrorCodes.REFUSED_STREAM)
            self.open.discard(stream)
        elif path in ("/goaway", "/graceful", "/unseen"):
            kind = ErrorCodes.ENHANCE_YOUR_CALM if path == "/goaway" else ErrorCodes.NO_ERROR
            if path == "/graceful":
                self.reply(stream, b"ok")
            self.h2.close_connection(kind, last_stream_id=stream if path == "/graceful" else 0)
            close = path != "/graceful"
        elif path == "/short":
            self.reply(stream, b"hi", ("content-length", "10"))
        elif path in ("/cut", "/half-stall"):
            self.h2.send_headers(stream, [(":status", "200")])
            self.h2.send_data(stream, b"part")
            close = path == "/cut"
        elif path == "/cut-before":
            close = True
        elif path == "/reset":
            raw = self.transport.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.transport.abort()
            return
        elif path == "/noise":
            self.flush()
            self.transport.write(bytes(range(255, 0, -3)) * 4)
        elif path == "/redirect":
            self.reply(stream, b"", ("location", "/cookie"), ("set-cookie", "seen=yes"), status="302")
        elif path == "/cookie":
            self.reply(stream, headers.get("cookie", "none").encode())
        elif path == "/gzip":
            self.reply(stream, gzip.compress(b"hello " * 100), ("content-encoding", "gzip"))
        elif path == "/big":
            self.h2.send_headers(stream, [(":status", "200"), ("content-length", str(BIG))])
            self.unsent[stream] = BIG
            self.send_more()
        elif path == "/echo":
            self.reply(stream, body[:1000] + b" %d" % len(body))
        elif path == "/hints":
            self.h2.send_headers(stream, [(":status", "103"), ("link", "</a>")])
            self.reply(stream, b"ok")
        elif path == "/404":
            self.reply(stream, b"no", status="404")
        elif path != "/silent":
            self.reply(stream, b"ok" if headers[":method"] != "HEAD" else b"", ("content-length", "2"))
        self.flush()
        if close:
            # not at once: data that nobody reads any more would make it a reset
            self.transport.write_eof()
            asyncio.get_running_loop().call_later(0.5, self.transport.close)


class Rude(asyncio.Protocol):
    def __init__(self, what):
        self.what = what

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, _):
        if self.what:
            self.transport.write(self.what)
            self.transport.close()


HTTP1 = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 3\r\nConnection: close\r\n\r\nno\n"
NOISE = b"\0\0\x06\x04" + bytes(range(255, 0, -3)) * 4
# SETTINGS of an initial window beyond 2^31 - 1
SETTINGS = b"\0\0\x06\x04\0\0\0\0\0" + struct.pack(">HI", 4, 0xFFFFFFFF)
SERVERS = {
    "h2": lambda: Server(False), "few": lambda: Server(True), "http1": lambda: Rude(HTTP1),
    "noise": lambda: Rude(NOISE), "mute": lambda: Rude(b""), "settings": lambda: Rude(SETTINGS),
}


async def main():
    loop, stop, ports = asyncio.get_running_loop(), asyncio.Event(), {}
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    for name, make in SERVERS.items():
        server = await loop.create_server(make, "127.0.0.1", 0)
        ports[name] = server.sockets[0].getsockname()[1]
    (folder / "ports.part").write_text(json.dumps(ports))
    (folder / "ports.part").rename(folder / "ports.json")
    await stop.wait()
    (folder / "seen.json").write_text(json.dumps(seen))


asyncio.run(main())
