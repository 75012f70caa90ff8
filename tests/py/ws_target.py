"""A WebSocket server made with the `websockets` library: counts, pushes, closes, pings its clients.

    ws_target.py FOLDER [CERT KEY]     writes FOLDER/ports.json; on SIGTERM FOLDER/seen.json

/ echoes (`up:x` comes back as `X`, `silent` gets no answer) · /push?n=N sends N messages, then echoes ·
/close?code=N closes after the first message · /about answers what it saw of the handshake; with ?bye=1 the first says `bye` and closes.
Pings every 200 ms and drops a client that does not answer within 2 s.
"""

import asyncio, json, pathlib, signal, ssl, sys
from urllib.parse import parse_qs, urlsplit

import websockets

folder = pathlib.Path(sys.argv[1])
seen = {"opened": 0, "messages": 0, "binary": 0, "pushed": 0, "dropped": 0, "clean": 0}


async def serve(ws):
    seen["opened"] += 1
    path = urlsplit(ws.request.path)
    query = {key: values[0] for key, values in parse_qs(path.query).items()}
    try:
        for n in range(int(query.get("n", 0))):
            await ws.send(f"push {n}")
            seen["pushed"] += 1
        if query.get("bye") and seen["opened"] == 1:
            await ws.send("bye")
            await ws.close(4000)
        async for message in ws:
            seen["messages"] += 1
            seen["binary"] += isinstance(message, bytes)
            if path.path == "/close":
                await ws.close(int(query["code"]), "as you wish")
            elif path.path == "/about":
                await ws.send(json.dumps({"subprotocol": ws.subprotocol, "token": ws.request.headers.get("X-Token"),
                                          "basic": ws.request.headers.get("Authorization")}))
            elif isinstance(message, str) and message.startswith("up:"):
                await ws.send(message[3:].upper())
            elif message != "silent":
                await ws.send(message)
        seen["clean"] += 1
    except websockets.ConnectionClosed as error:
        # 1011 of our own: no pong came
        seen["dropped"] += error.sent is not None and error.sent.code == 1011


async def main():
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    context = None
    if len(sys.argv) > 2:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(sys.argv[2], sys.argv[3])
    choose = lambda ws, offered: "chat.v2" if "chat.v2" in offered else None
    options = {"subprotocols": ["chat.v2"], "select_subprotocol": choose, "ping_interval": 0.2, "ping_timeout": 2, "ssl": context}
    async with websockets.serve(serve, "127.0.0.1", 0, compression=None, max_size=None, **options) as server:
        (folder / "ports.part").write_text(json.dumps({"ws": server.sockets[0].getsockname()[1]}))
        (folder / "ports.part").rename(folder / "ports.json")
        await stop.wait()
        await asyncio.sleep(0.3)
    (folder / "seen.json").write_text(json.dumps(seen))


asyncio.run(main())
