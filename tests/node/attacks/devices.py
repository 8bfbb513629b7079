"""Packets that the pod forwards for somebody else: no socket of its own sends them."""

import fcntl
import os
import struct
import subprocess

import common
import raw
from common import Scene

TUNSETIFF = 0x400454CA
TUN_WITHOUT_HEAD = 0x1001
CLONE_NEWNET = 0x40000000


def ip(*words):
    subprocess.run(["ip", *words], check=True, capture_output=True)


def forwarding(scene: Scene):
    names = ["ipv6/conf/all/forwarding"] if scene.six else ["ipv4/ip_forward"]
    for name in names:
        with open(f"/proc/sys/net/{name}", "w", encoding="ascii") as file:
            file.write("1")


def tunnel(scene: Scene, **segment):
    """A device whose packets come out of a file (Documentation/networking/tuntap.rst)."""
    name = f"tun{scene.source_port}"
    forwarding(scene)
    with open("/dev/net/tun", "r+b", buffering=0) as device:
        fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH22x", name.encode(), TUN_WITHOUT_HEAD))
        ip("link", "set", name, "up")
        device.write(common.ip(scene, common.tcp(scene, source=scene.other, **segment), source=scene.other))
    return "sent"


def data(scene: Scene):
    """Words in the midst of a connection that somebody else made."""
    return tunnel(scene, flags=common.ACK, payload=b"forwarded")


def answer(scene: Scene):
    """An answer to a SYN that has data with it, as TCP Fast Open allows."""
    return tunnel(scene, flags=common.SYN | common.ACK, payload=b"forwarded")


def namespace(scene: Scene):
    """From a network namespace of the attacker's own making, with the pod as its router."""
    outer, inner = f"o{scene.source_port}", f"i{scene.source_port}"
    net, own, gateway = ("/64", "fd78::2", "fd78::1") if scene.six else ("/30", "10.79.0.2", "10.79.0.1")
    forwarding(scene)
    ip("link", "add", outer, "type", "veth", "peer", "name", inner)
    ip("addr", "add", gateway + net, "dev", outer, *(["nodad"] if scene.six else []))
    ip("link", "set", outer, "up")
    # Of this thread alone. /proc/thread-self is the thread's, and follows it.
    outside = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    if common.LIBC.unshare(CLONE_NEWNET) < 0:
        raise common.error()
    inside = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    enter(outside)
    ip("link", "set", inner, "netns", f"/proc/{os.getpid()}/fd/{inside}")
    enter(inside)
    ip("addr", "add", own + net, "dev", inner, *(["nodad"] if scene.six else []))
    ip("link", "set", inner, "up")
    ip("route", "add", "default", "via", gateway)
    scene.own = own
    return raw.syn(scene)


def enter(namespace_file):
    if common.LIBC.setns(namespace_file, CLONE_NEWNET) < 0:
        raise common.error()


ALL = {
    "forwarded-from-tunnel": tunnel,
    "forwarded-data": data,
    "forwarded-answer-with-data": answer,
    "forwarded-from-namespace": namespace,
}
