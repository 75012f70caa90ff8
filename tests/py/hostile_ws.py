"""A WebSocket server that misbehaves as the path asks, written on bare sockets.

    hostile_ws.py FOLDER     writes FOLDER/ports.json, and counts handshakes in FOLDER/seen.json on SIGTERM
"""

import asyncio, base64, hashlib, json, pathlib, signal, socket, struct, sys

folder = pathlib.Path(sys.argv[1])
seen = {}


def frame(opcode, payload, fin=True, mask=False):
    head = bytes([(0x80 if fin else 0) | opcode])
    flag = 0x80 if mask else 0
    head += bytes([flag | len(payload)]) if len(payload) < 126 else bytes([flag | 126]) + struct.pack(">H", len(payload))
    return head + (b"\0\0\0\0" if mask else b"") + payload


FRAMES = {
    # a fragmented text with a ping in its middle
    "/fragments": frame(1, b"hel", fin=False) + frame(9, b"?") + frame(0, b"lo"),
    "/oversized": bytes([0x81, 127]) + struct.pack(">Q", 1 << 40) + b"x",
    "/utf8": frame(1, b"\xff\xfe"),
    "/masked": frame(1, b"hello", mask=True),
    "/opcode": frame(3, b"hello"),
    "/reserved": bytes([0xF1, 1]) + b"x",
    "/1011": frame(8, struct.pack(">H", 1011) + b"boom"),
    "/half": bytes([0x81, 100]) + b"only a part",
    "/noise": bytes(range(255, 0, -3)) * 4,
}


async def serve(reader, writer):
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        path = head.split(b" ")[1].decode()
        seen[path] = seen.get(path, 0) + 1
        if path == "/stalled-handshake":
            await reader.read()
            return
        if path == "/garbage":
            writer.write(b"\x00\x01\x02 what?\r\n\r\n")
        elif path == "/403":
            writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
        elif path == "/wrong-key":
            writer.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                         b"Sec-WebSocket-Accept: AAAA\r\n\r\n")
        elif path != "/cut-handshake":
            key = next(line.split(b": ")[1] for line in head.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key"))
            accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
            writer.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                         b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n")
            await writer.drain()
            await reader.readexactly(2)
            if path == "/stall":
                await reader.read()
                return
            if path == "/reset":
                raw = writer.get_extra_info("socket")
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                writer.transport.abort()
                return
            writer.write(FRAMES.get(path, b""))
            if path in FRAMES and path != "/half":
                await writer.drain()
                await reader.read()
        await writer.drain()
        writer.close()
    except (OSError, asyncio.IncompleteReadError):
        pass


async def main():
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    (folder / "ports.part").write_text(json.dumps({"ws": server.sockets[0].getsockname()[1]}))
    (folder / "ports.part").rename(folder / "ports.json")
    await stop.wait()
    (folder / "seen.json").write_text(json.dumps(seen))


asyncio.run(main())
