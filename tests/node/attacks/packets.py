"""Frames by AF_PACKET and AF_XDP: no layer above the device sees them."""

import fcntl
import socket
import struct

import common
from common import ETH_P_8021AD, ETH_P_8021Q, ETH_P_ALL, ETH_P_ARP, ETH_P_IP, ETH_P_IPV6, Scene

PACKET_VNET_HDR = 15


def ethertype(scene: Scene):
    return ETH_P_IPV6 if scene.six else ETH_P_IP


def own_mac(scene: Scene):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        answer = fcntl.ioctl(sock, 0x8927, struct.pack("256s", scene.iface.encode()))  # SIOCGIFHWADDR
    return answer[18:24]


def frame(scene: Scene, tags=b"", body=None):
    head = b"\xff" * 6 + own_mac(scene) + tags + struct.pack("!H", ethertype(scene))
    return head + (body or common.ip(scene, common.tcp(scene)))


def tag(protocol, number=5):
    return struct.pack("!HH", protocol, number)


def send(scene: Scene, data, protocol=0, bypass=False, address=None, kind=socket.SOCK_RAW, vnet=False):
    with socket.socket(socket.AF_PACKET, kind, 0) as sock:
        if bypass:
            sock.setsockopt(common.SOL_PACKET, common.PACKET_QDISC_BYPASS, 1)
        if vnet:
            sock.setsockopt(common.SOL_PACKET, PACKET_VNET_HDR, 1)
            data = b"\0" * 10 + data
        sock.sendto(data, address or (scene.iface, protocol))
    return "sent"


def honest(scene: Scene):
    return send(scene, frame(scene), ethertype(scene))


def lying(protocol):
    """The protocol told to the kernel is not the frame's."""
    return lambda scene: send(scene, frame(scene), protocol)


def other_family(scene: Scene):
    return send(scene, frame(scene), ETH_P_IP if scene.six else ETH_P_IPV6)


def datagram(scene: Scene):
    """The kernel makes the frame's head."""
    address = (scene.iface, ethertype(scene), 0, 0, b"\xff" * 6)
    return send(scene, common.ip(scene, common.tcp(scene)), address=address, kind=socket.SOCK_DGRAM)


def tagged(*tags, protocol=0):
    data = b"".join(tag(kind) for kind in tags)
    return lambda scene: send(scene, frame(scene, data), protocol)


def bypass(scene: Scene):
    """Past the queueing discipline, and with it past the hook that stands in front of it."""
    return send(scene, frame(scene), ethertype(scene), bypass=True)


def bypass_tagged(scene: Scene):
    return send(scene, frame(scene, tag(ETH_P_8021Q)), ETH_P_8021Q, bypass=True)


def bypass_fragment(scene: Scene):
    body = common.tcp(scene)[8:] + scene.mark
    if scene.six:
        head = struct.pack("!BBHI", socket.IPPROTO_TCP, 0, 1 << 3, 0x46484952)
        packet = common.ip6(scene, head + body, socket.IPPROTO_FRAGMENT)
    else:
        packet = common.ip4(scene, body, fragment=1)
    return send(scene, frame(scene, body=packet), ethertype(scene), bypass=True)


def virtio(scene: Scene):
    return send(scene, frame(scene), ethertype(scene), vnet=True)


def unknown_ethertype(scene: Scene):
    head = b"\xff" * 6 + own_mac(scene) + struct.pack("!H", 0x88B5)
    return send(scene, head + common.ip(scene, common.tcp(scene)), 0x88B5)


def fragment(scene: Scene):
    body = common.tcp(scene)[:8]
    if scene.six:
        head = struct.pack("!BBHI", socket.IPPROTO_TCP, 0, 1, 0x46484952)
        return send(scene, frame(scene, body=common.ip6(scene, head + body, socket.IPPROTO_FRAGMENT)), ETH_P_IPV6)
    return send(scene, frame(scene, body=common.ip4(scene, body, fragment=0x2000)), ETH_P_IP)


def wrong_version(scene: Scene):
    """The ethertype of one version, the packet of the other."""
    data = frame(scene)
    swapped = struct.pack("!H", ETH_P_IP if scene.six else ETH_P_IPV6)
    return send(scene, data[:12] + swapped + data[14:], ethertype(scene))


ALL = {
    "packet": honest,
    "packet-says-arp": lying(ETH_P_ARP),
    "packet-says-all": lying(ETH_P_ALL),
    "packet-says-nothing": lying(0),
    "packet-says-lldp": lying(0x88CC),
    "packet-says-vlan": lying(ETH_P_8021Q),
    "packet-says-other-family": other_family,
    "packet-datagram": datagram,
    "packet-vlan": tagged(ETH_P_8021Q, protocol=ETH_P_8021Q),
    "packet-vlan-says-ip": tagged(ETH_P_8021Q, protocol=ETH_P_IP),
    "packet-vlan-ad": tagged(ETH_P_8021AD, protocol=ETH_P_8021AD),
    "packet-vlan-twice": tagged(ETH_P_8021AD, ETH_P_8021Q, protocol=ETH_P_8021AD),
    "packet-virtio": virtio,
    "packet-fragment": fragment,
    "packet-unknown-ethertype": unknown_ethertype,
    "packet-wrong-version": wrong_version,
    "packet-bypass": bypass,
    "packet-bypass-vlan": bypass_tagged,
    "packet-bypass-fragment": bypass_fragment,
}
