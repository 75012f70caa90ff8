"""A broker that misbehaves, each time as the client id asks. Prints each CONNECT's mode, a line each.

usage: mqtt_hostile.py PORT
"""

import socket
import struct
import sys
import threading


def packet(stream):
    """One packet: its first byte and its body."""
    first = stream.read(1)
    if not first:
        raise EOFError
    length, shift = 0, 0
    while True:
        byte = stream.read(1)[0]
        length |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            break
    return first[0], stream.read(length)


def text(body, at):
    (length,) = struct.unpack_from(">H", body, at)
    return body[at + 2 : at + 2 + length], at + 2 + length


def serve(client):
    stream = client.makefile("rb")
    _, body = packet(stream)
    level = body[6]
    at = 10 if level == 4 else 11 + body[10]
    mode = text(body, at)[0].decode()
    print(mode, flush=True)
    connack = b"\x20\x02\x00\x00" if level == 4 else b"\x20\x03\x00\x00\x00"
    if mode == "reset":
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        return
    if mode == "close":
        return
    if mode == "garbage":
        client.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    elif mode == "early":
        client.sendall(b"\x30\x05\x00\x01axx" + connack)
    elif mode == "giant-connack":
        client.sendall(b"\x20\xff\xff\xff\x7f" + b"x" * 100000)
    elif mode == "refused":
        client.sendall(b"\x20\x02\x00\x03")
    elif mode != "stall":
        client.sendall(connack)
    while True:
        first, body = packet(stream)
        if first >> 4 != 3 or not first & 6:
            continue
        _, after = text(body, 0)
        ident = body[after : after + 2]
        if mode == "ok":
            client.sendall(b"\x40\x02" + ident)
        elif mode == "truncated":
            client.sendall(b"\x40\x02" + ident[:1])
            return
        elif mode == "wrong-id":
            client.sendall(b"\x40\x02" + struct.pack(">H", struct.unpack(">H", ident)[0] ^ 0x5555))
        elif mode == "wrong-kind":
            client.sendall(b"\x70\x02" + ident)
        elif mode == "zero-id":
            client.sendall(b"\x40\x02\x00\x00")
        elif mode == "giant":
            client.sendall(b"\x30\xff\xff\xff\x7f" + b"x" * 100000)
        elif mode == "endless":
            client.sendall(b"\x40\xff\xff\xff\xff\xff\xff")
        elif mode == "goodbye":
            client.sendall(b"\xe0\x02\x8b\x00")
        elif mode == "quota":
            client.sendall(b"\x40\x04" + ident + b"\x97\x00")
        elif mode == "bytewise":
            for byte in b"\x40\x02" + ident:
                client.sendall(bytes([byte]))


def attend(client):
    try:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        serve(client)
    except (EOFError, OSError, IndexError):
        pass
    finally:
        client.close()


def main():
    listener = socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=512)
    while True:
        client, _ = listener.accept()
        threading.Thread(target=attend, args=(client,), daemon=True).start()


main()
