"""Connections by the kernel's own TCP, asked for in every way there is."""

import socket
import struct
import time

from common import (
    IP_TRANSPARENT, IPPROTO_MPTCP, IPV6_TRANSPARENT, MSG_FASTOPEN, TCP_FASTOPEN_CONNECT, Scene,
)

# Long enough for a SYN to be sent again once, should the first be lost.
PATIENCE = 1.5


def opened(scene, protocol=0, family=None):
    made = socket.socket(family or scene.family, socket.SOCK_STREAM, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.settimeout(PATIENCE)
    return made


def finish(sock, to):
    with sock:
        sock.connect(to)
        return told(sock)


def told(sock):
    """One exchange: what the server says of itself and of whom it sees."""
    sock.sendall(b"who\n")
    answer = sock.recv(200)
    if not answer:
        raise ConnectionResetError("closed without an answer")
    return answer.decode().strip()


def plain(scene: Scene):
    sock = opened(scene)
    sock.bind((scene.any, scene.source_port))
    return finish(sock, (scene.to, scene.port))


def bind_first(scene: Scene):
    sock = opened(scene)
    sock.bind((scene.own, scene.source_port))
    return finish(sock, (scene.to, scene.port))


def nonblocking(scene: Scene):
    sock = opened(scene)
    sock.bind((scene.any, scene.source_port))
    sock.setblocking(False)
    with sock:
        sock.connect_ex((scene.to, scene.port))
        time.sleep(0.3)
        sock.settimeout(PATIENCE)
        return told(sock)


def mapped(scene: Scene, protocol=0):
    """An IPv6 socket to an IPv4 address."""
    sock = opened(scene, protocol, socket.AF_INET6)
    sock.bind(("::", scene.source_port))
    return finish(sock, ("::ffff:" + scene.to, scene.port))


def mptcp(scene: Scene):
    sock = opened(scene, IPPROTO_MPTCP)
    sock.bind((scene.any, scene.source_port))
    return finish(sock, (scene.to, scene.port))


def mptcp_mapped(scene: Scene):
    return mapped(scene, IPPROTO_MPTCP)


def fast_open_connect(scene: Scene):
    sock = opened(scene)
    sock.setsockopt(socket.IPPROTO_TCP, TCP_FASTOPEN_CONNECT, 1)
    sock.bind((scene.any, scene.source_port))
    return finish(sock, (scene.to, scene.port))


def fast_open_send(scene: Scene, family=None, to=None, protocol=0):
    sock = opened(scene, protocol, family)
    sock.bind(("::" if family else scene.any, scene.source_port))
    # Without a cookie of the server's yet, the call is a connect, which is to be waited for.
    sock.settimeout(None)
    for option in (socket.SO_SNDTIMEO, socket.SO_RCVTIMEO):
        sock.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", 1, 500_000))
    with sock:
        sock.sendto(b"who\n", MSG_FASTOPEN, (to or scene.to, scene.port))
        answer = sock.recv(200)
        if not answer:
            raise ConnectionResetError("closed without an answer")
        return answer.decode().strip()


def fast_open_send_mapped(scene: Scene):
    return fast_open_send(scene, socket.AF_INET6, "::ffff:" + scene.to)


def mptcp_fast_open(scene: Scene):
    return fast_open_send(scene, protocol=IPPROTO_MPTCP)


def marked(scene: Scene, mark=0x53A):
    sock = opened(scene)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
    sock.bind((scene.any, scene.source_port))
    return finish(sock, (scene.to, scene.port))


def device(scene: Scene):
    """Bound to eth0, so that the loopback interface is no way."""
    sock = opened(scene)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, scene.iface.encode())
    sock.bind((scene.any, scene.source_port))
    return finish(sock, (scene.to, scene.port))


def transparent(scene: Scene):
    """From an address that is not the pod's."""
    sock = opened(scene)
    level, option = (socket.IPPROTO_IPV6, IPV6_TRANSPARENT) if scene.six else (socket.IPPROTO_IP, IP_TRANSPARENT)
    sock.setsockopt(level, option, 1)
    sock.bind((scene.other, scene.source_port))
    return finish(sock, (scene.to, scene.port))


ALL = {
    "plain": plain,
    "bind-first": bind_first,
    "nonblocking": nonblocking,
    "mptcp": mptcp,
    "fast-open-connect": fast_open_connect,
    "fast-open-send": fast_open_send,
    "mptcp-fast-open": mptcp_fast_open,
    "marked": marked,
    "device": device,
    "transparent": transparent,
}
ONLY_4 = {"mapped": mapped, "mptcp-mapped": mptcp_mapped, "fast-open-send-mapped": fast_open_send_mapped}
