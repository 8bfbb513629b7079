"""Queries as applications send them: each answer comes from the server that was asked.

    python3 names.py SERVER ANSWER OTHER-SERVER ITS-ANSWER [MORE-SERVERS]
"""

import socket
import struct
import sys

from common import run, same

server, answer, other, other_answer, *more = sys.argv[1:]
FAMILY = socket.AF_INET6 if ":" in server else socket.AF_INET
PORT = 53


def query(number):
    return struct.pack("!HHHHHH", number, 0x0100, 1, 0, 0, 0) + b"\x04name\x04test\0" + struct.pack("!HH", 1, 1)


def opened(family=FAMILY):
    sock = socket.socket(family, socket.SOCK_DGRAM)
    sock.settimeout(20)
    return sock


def holds(data, number, address):
    same(struct.unpack("!H", data[:2])[0], number, "id")
    same(socket.inet_ntoa(data[-4:]), address, "answer")


def unconnected():
    with opened() as sock:
        sock.sendto(query(1), (server, PORT))
        data, sender = sock.recvfrom(2000)
        same(sender[:2], (server, PORT))
        holds(data, 1, answer)


def connected():
    with opened() as sock:
        sock.connect((server, PORT))
        same(sock.getpeername()[:2], (server, PORT))
        sock.send(query(2))
        data, sender = sock.recvfrom(2000)
        same(sender[:2], (server, PORT))
        holds(data, 2, answer)


def two_servers_on_one_socket():
    with opened() as sock:
        for number, address in ((3, server), (4, other), (5, server)):
            sock.sendto(query(number), (address, PORT))
        found = {}
        for _ in range(3):
            data, sender = sock.recvfrom(2000)
            found[struct.unpack("!H", data[:2])[0]] = (sender[0], socket.inet_ntoa(data[-4:]))
        same(found, {3: (server, answer), 4: (other, other_answer), 5: (server, answer)})


def connected_to_one_after_another():
    with opened() as sock:
        for number, address, expected in ((6, server, answer), (7, other, other_answer)):
            sock.connect((address, PORT))
            same(sock.getpeername()[:2], (address, PORT))
            sock.send(query(number))
            holds(sock.recv(2000), number, expected)


def mapped():
    with opened(socket.AF_INET6) as sock:
        sock.sendto(query(8), ("::ffff:" + server, PORT))
        data, sender = sock.recvfrom(2000)
        same(sender[:2], ("::ffff:" + server, PORT))
        holds(data, 8, answer)


def mapped_connected():
    with opened(socket.AF_INET6) as sock:
        sock.connect(("::ffff:" + server, PORT))
        same(sock.getpeername()[:2], ("::ffff:" + server, PORT))
        sock.send(query(9))
        holds(sock.recv(2000), 9, answer)


def by_tcp():
    with socket.create_connection((server, PORT), timeout=20) as sock:
        text = query(10)
        sock.sendall(struct.pack("!H", len(text)) + text)
        data = b""
        while len(data) < 2 or len(data) < 2 + struct.unpack("!H", data[:2])[0]:
            part = sock.recv(2000)
            if not part:
                raise AssertionError(f"closed after {data!r}")
            data += part
        holds(data[2:], 10, answer)


def many_at_once():
    socks = [opened() for _ in range(200)]
    for number, sock in enumerate(socks):
        sock.sendto(query(1000 + number), (server, PORT))
    for number, sock in enumerate(socks):
        holds(sock.recv(2000), 1000 + number, answer)
        sock.close()


def a_fifth_server_is_refused():
    with opened() as sock:
        for address in [server, other, *more]:
            sock.sendto(query(11), (address, PORT))
        try:
            sock.sendto(query(11), ("2001:db8::5" if ":" in server else "192.0.2.55", PORT))
        except PermissionError:
            return
        raise AssertionError("it was let through")


CHECKS = [
    unconnected, connected, two_servers_on_one_socket, connected_to_one_after_another, by_tcp, many_at_once,
    a_fifth_server_is_refused,
]
if ":" not in server:
    CHECKS += [mapped, mapped_connected]
run({check.__name__: check for check in CHECKS})
