"""A server of events, whose own counts are the truth.

    sse_target.py FOLDER     writes FOLDER/ports.json when it listens; on SIGTERM FOLDER/seen.json

GET /count?n=N&gap=MS     N events `data: {"n": k}` with ids, MS apart, then the end of the stream; after Last-Event-ID on from there
GET /ticks                an event `tick` each 20 ms for ever; every third is of type `third`
/echo (POST)              one event with the body, in lines, then it stays silent
/close                    the events of /count?n=3 without a length or chunks, then closes
Hostile: /truncated (chunked, broken off), /html (wrong type), /503, /stall (no answer), /silent (head only), /huge (an
endless line), /reset, /garbage, /redirect.
"""

import asyncio, collections, json, pathlib, signal, socket, struct, sys
from urllib.parse import parse_qs, urlsplit

folder = pathlib.Path(sys.argv[1])
seen = collections.Counter()
ids = []
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"


def chunk(data):
    return b"%x\r\n%s\r\n" % (len(data), data)


async def count(writer, n, gap, first, wrap):
    for k in range(first, first + n):
        if k > first:
            await asyncio.sleep(gap)
        text = b'id: %d\r\nevent: count\r\ndata: {"n": %d}\r\n\r\n' % (k, k)
        # in two writes, so that events come in pieces
        for piece in (text[:7], text[7:]):
            writer.write(wrap(piece))
            await writer.drain()
        seen["events"] += 1


async def answer(reader, writer):
    head = await reader.readuntil(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    method, target, _ = lines[0].split(" ")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines[1:] if line)}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    url = urlsplit(target)
    query = {key: float(values[0]) for key, values in parse_qs(url.query).items()}
    seen["requests"] += 1
    seen[url.path] += 1
    seen["accepts"] += headers.get("accept") == "text/event-stream"
    chunked = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
    match url.path:
        case "/count":
            after = int(headers.get("last-event-id", 0))
            ids.append(after)
            writer.write(chunked)
            await count(writer, int(query["n"]), query.get("gap", 0) / 1000, after + 1, chunk)
            writer.write(b"0\r\n\r\n")
        case "/close":
            writer.write(HEAD + b"\r\n")
            await count(writer, 3, 0, 1, bytes)
        case "/ticks":
            writer.write(chunked)
            k = 0
            while True:
                k += 1
                kind = "third" if k % 3 == 0 else "tick"
                writer.write(chunk(b": alive\n\nevent: %s\ndata: {\"at\": {\"n\": %d}}\n\n" % (kind.encode(), k)))
                await writer.drain()
                await asyncio.sleep(0.02)
        case "/echo":
            text = b"".join(b"data: %s\n" % line for line in body.split(b"\n")) + b"\n"
            writer.write(chunked + chunk(b"\xef\xbb\xbf" + text))
            await reader.read()
        case "/truncated":
            writer.write(chunked + chunk(b"data: 1\n\n") + b"40\r\ndata: 2")
        case "/html":
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 2\r\n\r\nhi")
        case "/redirect":
            writer.write(b"HTTP/1.1 302 Found\r\nLocation: /count\r\nContent-Length: 0\r\n\r\n")
        case "/503":
            writer.write(b"HTTP/1.1 503 Busy\r\nRetry-After: 1\r\nContent-Length: 4\r\n\r\nbusy")
        case "/stall":
            await reader.read()
        case "/silent":
            writer.write(chunked)
            await reader.read()
        case "/huge":
            writer.write(HEAD + b"\r\ndata: ")
            while True:
                writer.write(b"x" * 65536)
                await writer.drain()
        case "/reset":
            writer.write(chunked + chunk(b"data: 1\n\n"))
            await writer.drain()
            await asyncio.sleep(0.05)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        case "/garbage":
            writer.write(b"\x00\xff garbage\r\n\r\n")
    await writer.drain()


async def serve(reader, writer):
    try:
        await answer(reader, writer)
    except (ConnectionError, asyncio.IncompleteReadError):
        pass
    finally:
        writer.close()


async def main():
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    server = await asyncio.start_server(serve, "127.0.0.1", 0, backlog=1000)
    (folder / "ports.tmp").write_text(json.dumps({"http": server.sockets[0].getsockname()[1]}))
    (folder / "ports.tmp").rename(folder / "ports.json")
    await stop.wait()
    (folder / "seen.json").write_text(json.dumps({**seen, "ids": sorted(ids)}))
    sys.exit(0)


asyncio.run(main())
