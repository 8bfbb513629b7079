"""What an application sees of a captured connection: what it would see of any other.

    python3 views.py TO PORT OWN AS-SEEN-BY-THE-SERVER proxied|direct
"""

import ipaddress
import select
import socket
import struct
import sys

from common import run, same

to, port, own, client_seen = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
SIX = ":" in to
FAMILY = socket.AF_INET6 if SIX else socket.AF_INET
BANNER = port + 2
CLOSED = port + 99
MANY = 8 << 20


def pattern(length):
    """As the server makes it: the byte is (index ^ index >> 8 ^ index >> 16)."""
    block = bytearray()
    for high in range(0, length, 256):
        mask = (high >> 8 ^ high >> 16) & 0xFF
        block += bytes(low ^ mask for low in range(256))
    return bytes(block[:length])


def connected(family=FAMILY, address=to, number=port):
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.settimeout(60)
    sock.connect((address, number))
    return sock


def line(sock):
    text = b""
    while not text.endswith(b"\n"):
        more = sock.recv(4096)
        if not more:
            raise AssertionError(f"closed after {text!r}")
        text += more
    return text.decode().strip()


def rest(sock):
    parts = []
    while part := sock.recv(1 << 16):
        parts.append(part)
    return b"".join(parts)


def host(text):
    """The address of `1.2.3.4:5` or `[::1]:5`."""
    return str(ipaddress.ip_address(text.rsplit(":", 1)[0].strip("[]")))


def peer():
    with connected() as sock:
        same(sock.getpeername()[:2], (to, port))
        sock.sendall(b"who\n")
        line(sock)
        same(sock.getpeername()[:2], (to, port), "after an exchange")


def own_name():
    with connected() as sock:
        same(sock.getsockname()[0], own)


def seen():
    with connected() as sock:
        sock.sendall(b"who\n")
        _, client, server = line(sock).split()
        same(host(client), client_seen, "the server's peer")
        same(server, f"[{to}]:{port}" if SIX else f"{to}:{port}", "where it was reached")


def bound():
    with socket.socket(FAMILY, socket.SOCK_STREAM) as sock:
        sock.settimeout(60)
        sock.bind((own, 0))
        sock.connect((to, port))
        same(sock.getpeername()[:2], (to, port))
        same(sock.getsockname()[0], own)
        sock.sendall(b"who\n")
        same(host(line(sock).split()[1]), client_seen)


def mapped():
    with connected(socket.AF_INET6, "::ffff:" + to) as sock:
        same(sock.getpeername()[:2], ("::ffff:" + to, port))
        same(sock.getsockname()[0], "::ffff:" + own)
        sock.sendall(b"who\n")
        line(sock)


def nonblocking():
    with socket.socket(FAMILY, socket.SOCK_STREAM) as sock:
        sock.setblocking(False)
        sock.connect_ex((to, port))
        select.select([], [sock], [], 60)
        same(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR), 0)
        same(sock.getpeername()[:2], (to, port))
        sock.setblocking(True)
        sock.settimeout(60)
        sock.sendall(b"who\n")
        line(sock)


def mptcp():
    with socket.socket(FAMILY, socket.SOCK_STREAM, 262) as sock:
        sock.settimeout(60)
        sock.connect((to, port))
        sock.sendall(b"who\n")
        line(sock)


def half_close():
    with connected() as sock:
        sock.sendall(b"count\n")
        sock.sendall(pattern(1000))
        sock.shutdown(socket.SHUT_WR)
        same(rest(sock), b"count 1000 ok\n")


def large_writes():
    with connected() as sock:
        sock.sendall(b"count\n")
        sock.sendall(pattern(MANY))
        sock.shutdown(socket.SHUT_WR)
        same(rest(sock), f"count {MANY} ok\n".encode())


def tiny_writes():
    with connected() as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.sendall(b"count\n")
        for byte in pattern(2000):
            sock.send(bytes([byte]))
        sock.shutdown(socket.SHUT_WR)
        same(rest(sock), b"count 2000 ok\n")


def large_reads():
    with connected() as sock:
        sock.sendall(f"source {MANY}\n".encode())
        same(rest(sock) == pattern(MANY), True, "every byte as it was sent")


def reset():
    with connected() as sock:
        sock.sendall(b"reset\n")
        try:
            same(sock.recv(10), "a reset")
        except ConnectionResetError:
            pass


def reset_by_us():
    """The server's side of it: nothing is to be left of the connection there."""
    sock = connected()
    sock.sendall(b"who\n")
    line(sock)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def closed_port():
    try:
        with connected(number=CLOSED) as sock:
            sock.sendall(b"who\n")
            same(sock.recv(10), "a refusal")
    except ConnectionError:
        pass


def urgent():
    """Delivered in its place, as with SO_OOBINLINE: lost is worse than not urgent. (Without a proxy, a
    server that does not ask for it does not read it.)"""
    with connected() as sock:
        sock.sendall(b"who\n")
        line(sock)
        sock.sendall(b"ab")
        sock.send(b"c", socket.MSG_OOB)
        sock.sendall(b"d\n")
        same(line(sock), "abcd")


def keep_alive():
    with connected() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1)
        sock.sendall(b"who\n")
        line(sock)
        select.select([sock], [], [], 3)
        sock.sendall(b"who\n")
        line(sock)


def server_first():
    with connected(number=BANNER) as sock:
        same(line(sock).split()[0], "hello")


def one_after_another():
    for _ in range(100):
        with connected() as sock:
            sock.sendall(b"who\n")
            line(sock)


CHECKS = [
    peer, own_name, seen, bound, nonblocking, mptcp, half_close, large_writes, tiny_writes, large_reads, reset,
    reset_by_us, closed_port, keep_alive, server_first, one_after_another,
]
if sys.argv[5] == "proxied":
    CHECKS.append(urgent)
if not SIX:
    CHECKS.append(mapped)
run({check.__name__: check for check in CHECKS})
