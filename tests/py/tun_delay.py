"""Links two network namespaces by a tunnel with a delay each way: tun_delay.py NS_A NS_B MS

Opens a TUN device `ldtun` in each namespace and relays packets between them MS milliseconds later.
Stands in for `tc netem`, which not every kernel has. Prints `ready` when the devices are there.
"""

import ctypes, fcntl, heapq, os, select, struct, sys, time

CLONE_NEWNET, TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x40000000, 0x400454CA, 0x0001, 0x1000
libc = ctypes.CDLL(None, use_errno=True)


def tun(namespace):
    with open(f"/var/run/netns/{namespace}") as ns:
        if libc.setns(ns.fileno(), CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), f"cannot enter namespace {namespace}")
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH22x", b"ldtun", IFF_TUN | IFF_NO_PI))
    return device


def main():
    a, b = tun(sys.argv[1]), tun(sys.argv[2])
    delay = float(sys.argv[3]) / 1000
    other = {a: b, b: a}
    waiting, order = [], 0
    print("ready", flush=True)
    while True:
        rest = max(0.0, waiting[0][0] - time.monotonic()) if waiting else None
        for device in select.select([a, b], [], [], rest)[0]:
            try:
                while True:
                    packet = os.read(device, 2048)
                    order += 1
                    heapq.heappush(waiting, (time.monotonic() + delay, order, other[device], packet))
            except BlockingIOError:
                pass
            except OSError:  # the device is down: not configured yet
                time.sleep(0.01)
        now = time.monotonic()
        while waiting and waiting[0][0] <= now:
            _, _, device, packet = heapq.heappop(waiting)
            try:
                os.write(device, packet)
            except OSError:  # full or down: a network drops packets
                pass


main()
