"""A process of the pod that listens where the proxy does, to have the pod's connections or queries.

    python3 squat.py tcp TO PORT [TO PORT]   connects there while it squats on port 15001
    python3 squat.py udp SERVER              asks the server while it squats on every UDP port in use

Says `bound WHERE` for each place it got, `taken NUMBER` for what came to it, and `asked NUMBER`.
"""

import select
import socket
import struct
import sys

SO_REUSEPORT = socket.SO_REUSEPORT
PROXY_PORT = 15001
TIMES = 30


def squatters(kind, ports):
    found = []
    for port in ports:
        for family, address in (
            (socket.AF_INET, "127.0.0.1"), (socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::1"), (socket.AF_INET6, "::"),
        ):
            sock = socket.socket(family, kind)
            for option in (socket.SO_REUSEADDR, SO_REUSEPORT):
                sock.setsockopt(socket.SOL_SOCKET, option, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            try:
                sock.bind((address, port))
                if kind == socket.SOCK_STREAM:
                    sock.listen(128)
                sock.setblocking(False)
                found.append(sock)
                print("bound", address, port)
            except OSError as error:
                sock.close()
                print("refused", address, port, error)
    return found


def came(socks):
    number = 0
    for sock in select.select(socks, [], [], 0.5)[0] if socks else []:
        while True:
            try:
                sock.accept() if sock.type == socket.SOCK_STREAM else sock.recvfrom(2000)
                number += 1
            except BlockingIOError:
                break
    return number


def connect(to, port):
    with socket.socket(socket.AF_INET6 if ":" in to else socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.settimeout(10)
        sock.connect((to, port))
        sock.sendall(b"who\n")
        return sock.recv(200)


def tcp(places):
    socks, asked = squatters(socket.SOCK_STREAM, [PROXY_PORT]), 0
    for to, port in places:
        for _ in range(TIMES):
            try:
                asked += bool(connect(to, port))
            except OSError:
                pass
    print("asked", asked)
    print("taken", came(socks))


def ports_in_use():
    found = set()
    for table in ("udp", "udp6"):
        with open(f"/proc/self/net/{table}", encoding="ascii") as file:
            found.update(int(line.split()[1].rsplit(":", 1)[1], 16) for line in file.readlines()[1:])
    return sorted(found)


def udp(server):
    query = struct.pack("!HHHHHH", 7, 0x0100, 1, 0, 0, 0) + b"\x04name\x04test\0" + struct.pack("!HH", 1, 1)
    ports = ports_in_use()
    print("ports", len(ports))
    socks, asked = squatters(socket.SOCK_DGRAM, ports), 0
    for _ in range(TIMES):
        with socket.socket(socket.AF_INET6 if ":" in server else socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(5)
            sock.sendto(query, (server, 53))
            try:
                asked += bool(sock.recvfrom(2000))
            except OSError:
                pass
    print("asked", asked)
    print("taken", came(socks))


if sys.argv[1] == "tcp":
    words = sys.argv[2:]
    tcp([(words[index], int(words[index + 1])) for index in range(0, len(words), 2)])
else:
    udp(sys.argv[2])
