"""Peers of socket_user, whose own counts are the truth.

    socket_target.py FOLDER [CERT KEY]     writes FOLDER/ports.json when all listen; on SIGTERM FOLDER/seen.json

tcp, tcp6, tls, unix, udp, udp6 echo as TARGETS.md says (what begins with PING comes back with PONG in front; UDP as it is).
lines answers each line with `ok LINE`; prefix answers a frame of a 4-byte big-endian length with the same frame.
Hostile: reset, stall, truncate (two bytes, then closes), garbage, endless, once (one line, then closes); udp_silent.
"""

import asyncio, collections, json, pathlib, signal, socket, ssl, struct, sys

folder = pathlib.Path(sys.argv[1])
seen = collections.Counter()


def counted(name, talk):
    async def serve(reader, writer):
        seen[f"{name}_connections"] += 1
        try:
            await talk(name, reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            pass
        finally:
            writer.close()

    return serve


async def echo(name, reader, writer):
    while data := await reader.read(65536):
        seen[f"{name}_bytes"] += len(data)
        writer.write(b"PONG " + data if data.startswith(b"PING") else data)
        await writer.drain()


async def lines(name, reader, writer):
    while line := await reader.readline():
        seen[f"{name}_frames"] += 1
        writer.write(b"ok " + line)
        await writer.drain()


async def prefix(name, reader, writer):
    while True:
        head = await reader.readexactly(4)
        body = await reader.readexactly(int.from_bytes(head))
        seen[f"{name}_frames"] += 1
        # in pieces, so that the other side has to put them together
        for piece in (head[:3], head[3:] + body[:1], body[1:]):
            writer.write(piece)
            await writer.drain()


async def reset(name, reader, writer):
    await reader.read(100)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


async def stall(name, reader, writer):
    while await reader.read(100):
        pass


async def truncate(name, reader, writer):
    await reader.read(100)
    writer.write(b"\0\0")
    await writer.drain()


async def garbage(name, reader, writer):
    await reader.read(100)
    writer.write(b"\xff" * 64)
    await writer.drain()
    await reader.read(100)


async def endless(name, reader, writer):
    while True:
        writer.write(b"x" * 65536)
        await writer.drain()


async def once(name, reader, writer):
    line = await reader.readline()
    seen[f"{name}_frames"] += bool(line)
    writer.write(b"PONG\n" if line.startswith(b"PING") else b"ok\n")
    await writer.drain()
    if name == "once_late":
        # closes when the next request is already there
        line = await reader.readline()
        seen[f"{name}_frames"] += bool(line)


class Datagrams(asyncio.DatagramProtocol):
    def __init__(self, name, answers):
        self.name, self.answers = name, answers

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, addr):
        seen[f"{self.name}_datagrams"] += 1
        if self.answers:
            self.transport.sendto(data, addr)


async def main():
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    ports = {}
    talks = dict(tcp=echo, lines=lines, prefix=prefix, reset=reset, stall=stall, truncate=truncate, garbage=garbage,
                 endless=endless, once=once, once_late=once)
    for name, talk in talks.items():
        server = await asyncio.start_server(counted(name, talk), "127.0.0.1", 0, backlog=1000)
        ports[name] = server.sockets[0].getsockname()[1]
    server = await asyncio.start_server(counted("tcp6", echo), "::1", 0)
    ports["tcp6"] = server.sockets[0].getsockname()[1]
    await asyncio.start_unix_server(counted("unix", echo), folder / "echo.sock")
    if len(sys.argv) > 2:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(sys.argv[2], sys.argv[3])
        server = await asyncio.start_server(counted("tls", echo), "127.0.0.1", 0, ssl=context)
        ports["tls"] = server.sockets[0].getsockname()[1]
    for name, host, answers in [("udp", "127.0.0.1", True), ("udp6", "::1", True), ("udp_silent", "127.0.0.1", False)]:
        endpoint = lambda name=name, answers=answers: Datagrams(name, answers)
        transport, _ = await loop.create_datagram_endpoint(endpoint, local_addr=(host, 0))
        ports[name] = transport.get_extra_info("sockname")[1]
    (folder / "ports.tmp").write_text(json.dumps(ports))
    (folder / "ports.tmp").rename(folder / "ports.json")
    await stop.wait()
    (folder / "seen.json").write_text(json.dumps(seen))
    sys.exit(0)


asyncio.run(main())
