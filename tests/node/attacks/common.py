"""What the attacks share: the question each is asked, and the making of packets by hand."""

import ctypes
import ipaddress
import os
import socket
import struct

LIBC = ctypes.CDLL(None, use_errno=True)

# Numbers of the kernel's interface (include/uapi/linux) that Python has no names for.
IPPROTO_MPTCP = 262
SOL_PACKET = 263
PACKET_QDISC_BYPASS = 20
TCP_FASTOPEN_CONNECT = 30
MSG_FASTOPEN = 0x20000000
IP_TRANSPARENT = 19
IPV6_TRANSPARENT = 75
IPV6_HDRINCL = 36
ETH_P_ALL, ETH_P_IP, ETH_P_ARP, ETH_P_IPV6 = 0x0003, 0x0800, 0x0806, 0x86DD
ETH_P_8021Q, ETH_P_8021AD = 0x8100, 0x88A8

SYN, ACK, FIN, RST, ECE, CWR = 0x02, 0x10, 0x01, 0x04, 0x40, 0x80


class Scene:
    """Where an attack goes and what marks its frames.

    Every frame an attack makes holds the bytes of `source port, destination port` in a row; the
    proxy's never do, as its source port is another. So whoever looks at the wire knows whose it is.
    """

    def __init__(self, to, port, source_port, own, gateway, iface, other=None):
        self.to, self.port, self.source_port = to, port, source_port
        self.own, self.gateway, self.iface, self.other = own, gateway, iface, other
        self.six = ipaddress.ip_address(to).version == 6

    @property
    def family(self):
        return socket.AF_INET6 if self.six else socket.AF_INET

    @property
    def any(self):
        return "::" if self.six else "0.0.0.0"

    @property
    def mark(self):
        return struct.pack("!HH", self.source_port, self.port)


def error(number=None):
    number = ctypes.get_errno() if number is None else number
    return OSError(number, os.strerror(number))


def packed(address):
    return ipaddress.ip_address(address).packed


def checksum(data):
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def pseudo(source, to, protocol, length):
    source, to = packed(source), packed(to)
    if len(to) == 16:
        return source + to + struct.pack("!IHBB", length, 0, 0, protocol)
    return source + to + struct.pack("!BBH", 0, protocol, length)


def tcp(scene, flags=SYN, source=None, payload=b""):
    """A TCP segment with a right checksum."""
    source = source or scene.own

    def head(total):
        return struct.pack("!HHIIBBHHH", scene.source_port, scene.port, 0x46484952, 0, 5 << 4, flags, 64240, total, 0)

    body = head(0) + payload
    total = checksum(pseudo(source, scene.to, socket.IPPROTO_TCP, len(body)) + body)
    return head(total) + payload


def udp(scene, payload, source=None):
    source = source or scene.own
    length = 8 + len(payload)
    body = struct.pack("!HHHH", scene.source_port, scene.port, length, 0) + payload
    total = checksum(pseudo(source, scene.to, socket.IPPROTO_UDP, length) + body) or 0xFFFF
    return body[:6] + struct.pack("!H", total) + payload


def ip4(scene, body, protocol=socket.IPPROTO_TCP, source=None, to=None, fragment=0, options=b""):
    """`fragment` is the whole field: flags and offset in units of 8 bytes."""
    words = 5 + len(options) // 4
    head = struct.pack(
        "!BBHHHBBH4s4s", 4 << 4 | words, 0, words * 4 + len(body), 0x4648, fragment, 64, protocol, 0,
        packed(source or scene.own), packed(to or scene.to),
    )
    total = checksum(head + options)
    return head[:10] + struct.pack("!H", total) + head[12:] + options + body


def ip6(scene, body, following=socket.IPPROTO_TCP, source=None, to=None):
    return (
        struct.pack("!IHBB", 6 << 28, len(body), following, 64)
        + packed(source or scene.own) + packed(to or scene.to) + body
    )


def ip(scene, body, protocol=socket.IPPROTO_TCP, source=None):
    return (ip6 if scene.six else ip4)(scene, body, protocol, source=source)


def query(name=b"past"):
    """A DNS query for the address of `name`."""
    return struct.pack("!HHHHHH", 0x4648, 0x0100, 1, 0, 0, 0) + bytes([len(name)]) + name + b"\0" + struct.pack("!HH", 1, 1)
