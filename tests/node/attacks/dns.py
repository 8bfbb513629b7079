"""Queries to a name server that are to go past the proxy."""

import socket
import struct

import common
import packets
import raw
import uring
from common import Scene

PATIENCE = 1.5


def opened(scene: Scene, family=None):
    sock = socket.socket(family or scene.family, socket.SOCK_DGRAM)
    sock.settimeout(PATIENCE)
    sock.bind(("::" if family else scene.any, scene.source_port))
    return sock


def unconnected(scene: Scene):
    with opened(scene) as sock:
        sock.sendto(common.query(), (scene.to, scene.port))
        return answer(sock)


def connected(scene: Scene):
    with opened(scene) as sock:
        sock.connect((scene.to, scene.port))
        sock.send(common.query())
        return answer(sock)


def mapped(scene: Scene):
    with opened(scene, socket.AF_INET6) as sock:
        sock.sendto(common.query(), ("::ffff:" + scene.to, scene.port))
        return answer(sock)


def mapped_connected(scene: Scene):
    with opened(scene, socket.AF_INET6) as sock:
        sock.connect(("::ffff:" + scene.to, scene.port))
        sock.send(common.query())
        return answer(sock)


def connected_elsewhere(scene: Scene):
    """A connected socket may still name another receiver."""
    with opened(scene) as sock:
        sock.connect((scene.gateway, 9))
        sock.sendto(common.query(), (scene.to, scene.port))
        return answer(sock)


def connected_again(scene: Scene):
    """First where no redirection is due, then to the name server."""
    with opened(scene) as sock:
        sock.connect((scene.gateway, 9))
        sock.connect((scene.to, scene.port))
        sock.send(common.query())
        return answer(sock)


def with_source(scene: Scene):
    """The sender's address as ancillary data (ip(7), ipv6(7))."""
    with opened(scene) as sock:
        index = socket.if_nametoindex(scene.iface)
        if scene.six:
            source = (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, common.packed(scene.own) + struct.pack("I", index))
        else:
            source = (socket.IPPROTO_IP, 8, struct.pack("I", index) + common.packed(scene.own) + b"\0" * 4)
        sock.sendmsg([common.query()], [source], 0, (scene.to, scene.port))
        return answer(sock)


def device(scene: Scene):
    with opened(scene) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, scene.iface.encode())
        sock.sendto(common.query(), (scene.to, scene.port))
        return answer(sock)


def marked(scene: Scene):
    with opened(scene) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, 0x53A)
        sock.sendto(common.query(), (scene.to, scene.port))
        return answer(sock)


def corked(scene: Scene):
    """MSG_MORE leaves the packet open between two calls."""
    with opened(scene) as sock:
        data = common.query()
        sock.sendto(data[:4], socket.MSG_MORE, (scene.to, scene.port))
        sock.sendto(data[4:], 0, (scene.to, scene.port))
        return answer(sock)


def answer(sock):
    data, sender = sock.recvfrom(2000)
    return f"{sender[0]} {sender[1]}: {data[12:].decode(errors='replace')}"


def by_raw_socket(scene: Scene):
    body = common.udp(scene, common.query())
    return raw.send(scene, common.ip(scene, body, socket.IPPROTO_UDP))


def by_frame(bypass):
    def attack(scene: Scene):
        body = common.ip(scene, common.udp(scene, common.query()), socket.IPPROTO_UDP)
        return packets.send(scene, packets.frame(scene, body=body), packets.ethertype(scene), bypass=bypass)

    return attack


ALL = {
    "dns-unconnected": unconnected,
    "dns-connected": connected,
    "dns-connected-elsewhere": connected_elsewhere,
    "dns-connected-again": connected_again,
    "dns-with-source": with_source,
    "dns-device": device,
    "dns-marked": marked,
    "dns-corked": corked,
    "dns-raw": by_raw_socket,
    "dns-packet": by_frame(False),
    "dns-packet-bypass": by_frame(True),
    **uring.DATAGRAMS,
}
ONLY_4 = {"dns-mapped": mapped, "dns-mapped-connected": mapped_connected}
