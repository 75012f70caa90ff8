"""An HTTP/3 server made with aioquic, well-behaved or not as the path asks, and UDP ports that are no server.

    http3_target.py FOLDER CERT KEY     writes FOLDER/ports.json; on SIGTERM FOLDER/seen.json: requests by
                                        path, connections, the most streams open at a time, resets

Ports: h3 · other (QUIC that speaks another protocol) · noise (answers each datagram with garbage) ·
mute (answers nothing) · closed (nobody listens)
"""

import asyncio, gzip, json, os, pathlib, signal, socket, sys

from aioquic.asyncio import QuicConnectionProtocol, serve
from aioquic.h3.connection import H3Connection
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import HandshakeCompleted, StopSendingReceived, StreamReset

folder = pathlib.Path(sys.argv[1])
seen = {"paths": {}, "connections": 0, "most": 0, "resets": 0}
BIG = 2 << 20
REQUEST_REJECTED, EXCESSIVE_LOAD = 0x10B, 0x107


class Server(QuicConnectionProtocol):
    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.http, self.requests, self.open = H3Connection(self._quic), {}, set()

    def quic_event_received(self, event):
        if isinstance(event, HandshakeCompleted):
            seen["connections"] += 1
        elif isinstance(event, (StreamReset, StopSendingReceived)):
            seen["resets"] += isinstance(event, StopSendingReceived)
        for event in self.http.handle_event(event):
            if isinstance(event, HeadersReceived):
                self.open.add(event.stream_id)
                seen["most"] = max(seen["most"], len(self.open))
                self.requests[event.stream_id] = ({k.decode(): v.decode() for k, v in event.headers}, b"")
            elif isinstance(event, DataReceived):
                headers, body = self.requests[event.stream_id]
                self.requests[event.stream_id] = (headers, body + event.data)
            else:
                continue
            if event.stream_ended and event.stream_id in self.requests:
                self.answer(event.stream_id, *self.requests.pop(event.stream_id))
        self.transmit()

    def reply(self, stream, body, *headers, status="200"):
        headers = [(b":status", status.encode()), *((k.encode(), v.encode()) for k, v in headers)]
        self.http.send_headers(stream, headers, end_stream=not body)
        if body:
            self.http.send_data(stream, body, end_stream=True)
        self.open.discard(stream)

    def answer(self, stream, headers, body):
        path = headers[":path"]
        seen["paths"][path] = seen["paths"].get(path, 0) + 1
        if path == "/rejected":
            self._quic.reset_stream(stream, REQUEST_REJECTED)
        elif path == "/close":
            self._quic.close(error_code=EXCESSIVE_LOAD)
        elif path == "/short":
            self.reply(stream, b"hi", ("content-length", "10"))
        elif path == "/half-stall":
            self.http.send_headers(stream, [(b":status", b"200")])
            self.http.send_data(stream, b"part", end_stream=False)
        elif path == "/half-reset":
            self.http.send_headers(stream, [(b":status", b"200")])
            self._quic.reset_stream(stream, 0x102)
        elif path == "/noise":
            self._quic.send_stream_data(stream, b"\x00\x05hello", end_stream=True)
        elif path == "/redirect":
            self.reply(stream, b"", ("location", "/cookie"), ("set-cookie", "seen=yes"), status="302")
        elif path == "/cookie":
            self.reply(stream, headers.get("cookie", "none").encode())
        elif path == "/gzip":
            self.reply(stream, gzip.compress(b"hello " * 100), ("content-encoding", "gzip"))
        elif path == "/big":
            self.reply(stream, bytes(BIG), ("content-length", str(BIG)))
        elif path == "/echo":
            self.reply(stream, body[:1000] + b" %d" % len(body))
        elif path == "/404":
            self.reply(stream, b"no", status="404")
        elif path != "/silent":
            self.reply(stream, b"ok" if headers[":method"] != "HEAD" else b"", ("content-length", "2"))


class Datagrams(asyncio.DatagramProtocol):
    def __init__(self, makes_noise):
        self.makes_noise = makes_noise

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, _, address):
        if self.makes_noise:
            self.transport.sendto(os.urandom(200), address)


def free():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind(("127.0.0.1", 0))
        return udp.getsockname()[1]


async def main():
    loop, stop, ports = asyncio.get_running_loop(), asyncio.Event(), {}
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    for name, alpn in (("h3", "h3"), ("other", "doq")):
        configuration = QuicConfiguration(is_client=False, alpn_protocols=[alpn])
        configuration.load_cert_chain(sys.argv[2], sys.argv[3])
        ports[name] = free()
        await serve("127.0.0.1", ports[name], configuration=configuration, create_protocol=Server)
    for name, makes_noise in (("noise", True), ("mute", False)):
        transport, _ = await loop.create_datagram_endpoint(lambda: Datagrams(makes_noise), ("127.0.0.1", 0))
        ports[name] = transport.get_extra_info("sockname")[1]
    ports["closed"] = free()
    (folder / "ports.part").write_text(json.dumps(ports))
    (folder / "ports.part").rename(folder / "ports.json")
    await stop.wait()
    (folder / "seen.json").write_text(json.dumps(seen))


asyncio.run(main())
