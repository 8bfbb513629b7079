"""A process that leaves its pod's cgroup: before it makes its socket, or between that and connecting.

    python3 moves.py CGROUP before|between TO PORT

Says `past PEER` where the server saw this socket's own port, `through PEER` where it saw another, or
`error WHY`.
"""

import os
import socket
import sys

cgroup, when, to, port = sys.argv[1:]
OWN_PORT = 18100 + os.getpid() % 800


def move():
    with open(os.path.join(cgroup, "cgroup.procs"), "w", encoding="ascii") as file:
        file.write(str(os.getpid()))


def attempt():
    if when == "before":
        move()
    family = socket.AF_INET6 if ":" in to else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        sock.settimeout(2)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("", OWN_PORT))
        if when == "between":
            move()
        sock.connect((to, int(port)))
        sock.sendall(b"who\n")
        return sock.recv(200).decode().split()[1]


try:
    peer = attempt()
    print("past" if peer.endswith(f":{OWN_PORT}") else "through", peer)
except OSError as error:
    print("error", error)
