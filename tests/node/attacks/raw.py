"""Packets by raw sockets: the kernel's TCP knows nothing of them."""

import socket
import struct

import common
from common import Scene

MORE = 0x2000


def send(scene: Scene, packet, mark=None):
    """With the IP header made by hand."""
    with socket.socket(scene.family, socket.SOCK_RAW, socket.IPPROTO_RAW) as sock:
        if scene.six:
            sock.setsockopt(socket.IPPROTO_IPV6, common.IPV6_HDRINCL, 1)
        if mark is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
        sock.sendto(packet, (scene.to, 0))
    return "sent"


def syn(scene: Scene):
    return send(scene, common.ip(scene, common.tcp(scene)))


def syn_marked(scene: Scene):
    return send(scene, common.ip(scene, common.tcp(scene)), mark=0x53A)


def flags(bits):
    return lambda scene: send(scene, common.ip(scene, common.tcp(scene, bits)))


def kernel_header(scene: Scene):
    """Only the TCP header made by hand."""
    with socket.socket(scene.family, socket.SOCK_RAW, socket.IPPROTO_TCP) as sock:
        sock.sendto(common.tcp(scene), (scene.to, 0))
    return "sent"


def from_other(scene: Scene):
    """In the name of another address."""
    return send(scene, common.ip(scene, common.tcp(scene, source=scene.other), source=scene.other))


def from_gateway(scene: Scene):
    """In the name of the node."""
    return send(scene, common.ip(scene, common.tcp(scene, source=scene.gateway), source=scene.gateway))


def from_loopback(scene: Scene):
    source = "::1" if scene.six else "127.0.0.6"
    return send(scene, common.ip(scene, common.tcp(scene, source=source), source=source))


def to_itself(scene: Scene):
    """Source and destination alike, as a connection of the pod to itself has."""
    return send(scene, common.ip(scene, common.tcp(scene, source=scene.to), source=scene.to))


def options(scene: Scene):
    """IP options move the TCP header."""
    return send(scene, common.ip4(scene, common.tcp(scene), options=b"\x01" * 4))


def extension(following, body):
    return bytes([following, 0]) + body


def extensions(scene: Scene):
    """Hop-by-hop, destination and routing headers in front of TCP."""
    body = common.tcp(scene)
    padding = b"\x01\x04\0\0\0\0"
    body = extension(socket.IPPROTO_TCP, padding) + body
    body = extension(socket.IPPROTO_DSTOPTS, padding) + body
    return send(scene, common.ip6(scene, body, socket.IPPROTO_HOPOPTS))


def many_extensions(scene: Scene):
    """More extension headers than anyone follows."""
    body, following = common.tcp(scene), socket.IPPROTO_TCP
    for _ in range(24):
        body, following = extension(following, b"\x01\x04\0\0\0\0") + body, socket.IPPROTO_DSTOPTS
    return send(scene, common.ip6(scene, body, following))


def tiny_fragment(scene: Scene):
    """RFC 3128, section 2: the flags stand in the second fragment."""
    whole = common.tcp(scene)
    if scene.six:
        first = struct.pack("!BBHI", socket.IPPROTO_TCP, 0, 1, 0x46484952) + whole[:8]
        return send(scene, common.ip6(scene, first, socket.IPPROTO_FRAGMENT))
    return send(scene, common.ip4(scene, whole[:8], fragment=MORE))


def overlapping_fragment(scene: Scene):
    """RFC 3128, section 3: a fragment at offset 8 writes the flags over."""
    rest = common.tcp(scene)[8:] + scene.mark
    if scene.six:
        fragment = struct.pack("!BBHI", socket.IPPROTO_TCP, 0, 1 << 3, 0x46484952) + rest
        return send(scene, common.ip6(scene, fragment, socket.IPPROTO_FRAGMENT))
    return send(scene, common.ip4(scene, rest, fragment=1))


def whole_fragment(scene: Scene):
    """A first fragment that holds the whole TCP header."""
    whole = common.tcp(scene) + b"x" * 4
    if scene.six:
        first = struct.pack("!BBHI", socket.IPPROTO_TCP, 0, 1, 0x46484952) + whole
        return send(scene, common.ip6(scene, first, socket.IPPROTO_FRAGMENT))
    return send(scene, common.ip4(scene, whole, fragment=MORE))


def tunnelled(protocol):
    """The SYN as the load of another protocol."""

    def attack(scene: Scene):
        inner = common.ip(scene, common.tcp(scene))
        head = b"\0\0\x86\xdd" if scene.six else b"\0\0\x08\0"
        body = head + inner if protocol == socket.IPPROTO_GRE else inner
        return send(scene, common.ip(scene, body, protocol))

    return attack


def bare(protocol):
    """Another transport protocol, whose header begins with the ports as well."""
    return lambda scene: send(scene, common.ip(scene, scene.mark + b"\0" * 28, protocol))


UDP_LITE = 136

ALL = {
    "raw": syn,
    "raw-marked": syn_marked,
    "raw-syn-fin": flags(common.SYN | common.FIN),
    "raw-syn-rst": flags(common.SYN | common.RST),
    "raw-syn-ece": flags(common.SYN | common.ECE | common.CWR),
    "raw-kernel-header": kernel_header,
    "raw-from-other": from_other,
    "raw-from-node": from_gateway,
    "raw-tiny-fragment": tiny_fragment,
    "raw-overlapping-fragment": overlapping_fragment,
    "raw-whole-fragment": whole_fragment,
    "raw-ip-in-ip": tunnelled(socket.IPPROTO_IPIP),
    "raw-6in4": tunnelled(socket.IPPROTO_IPV6),
    "raw-gre": tunnelled(socket.IPPROTO_GRE),
    "raw-sctp": bare(socket.IPPROTO_SCTP),
    "raw-dccp": bare(33),
    "raw-udp-lite": bare(UDP_LITE),
    "raw-experimental": bare(253),
}
ONLY_4 = {"raw-options": options}
ONLY_6 = {"raw-extensions": extensions, "raw-many-extensions": many_extensions}
