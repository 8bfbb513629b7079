"""Connections and datagrams by io_uring: no system call of their own asks for them."""

import ctypes
import mmap
import os
import socket
import struct

import common
from common import Scene
from sockets import opened, told

# Alike on every architecture since Linux 5.1.
SETUP, ENTER = 425, 426
SQPOLL, GETEVENTS, WAKEUP = 1 << 1, 1 << 0, 1 << 1
SQES_OFFSET = 0x10000000
SENDMSG, CONNECT, SEND_ZC = 9, 16, 47
IDLE_MS = 50


class Ring:
    """One submission at a time (io_uring(7))."""

    def __init__(self, flags=0):
        # struct io_uring_params: 40 bytes, then the offsets of either ring, 40 bytes each.
        params = ctypes.create_string_buffer(struct.pack("10I80x", 0, 0, flags, 0, IDLE_MS, 0, 0, 0, 0, 0), 120)
        self.flags = flags
        self.fd = common.LIBC.syscall(SETUP, 4, params)
        if self.fd < 0:
            raise common.error()
        entries, _, _, _, _, features = struct.unpack_from("6I", params.raw)
        if not features & 1:
            raise OSError("io_uring: the kernel wants two mappings")
        self.tail, self.array = struct.unpack_from("I", params.raw, 44)[0], struct.unpack_from("I", params.raw, 64)[0]
        self.mask = struct.unpack_from("I", params.raw, 48)[0]
        self.cq_head, self.cq_tail = struct.unpack_from("2I", params.raw, 80)
        self.cqes = struct.unpack_from("I", params.raw, 100)[0]
        size = max(self.array + entries * 4, self.cqes + 2 * entries * 16)
        self.ring = mmap.mmap(self.fd, size)
        self.entries = mmap.mmap(self.fd, entries * 64, offset=SQES_OFFSET)

    def word(self, offset):
        return struct.unpack_from("I", self.ring, offset)[0]

    def submit(self, operation, fd, address, length, offset):
        tail = self.word(self.tail)
        slot = tail & self.word(self.mask)
        struct.pack_into("BBHiQQII32x", self.entries, slot * 64, operation, 0, 0, fd, offset, address, length, 0)
        struct.pack_into("I", self.ring, self.array + slot * 4, slot)
        struct.pack_into("I", self.ring, self.tail, tail + 1)
        flags = GETEVENTS | (WAKEUP if self.flags & SQPOLL else 0)
        if common.LIBC.syscall(ENTER, self.fd, 0 if self.flags & SQPOLL else 1, 1, flags, None, 0) < 0:
            raise common.error()
        head = self.word(self.cq_head)
        result = struct.unpack_from("i", self.ring, self.cqes + (head & 7) * 16 + 8)[0]
        struct.pack_into("I", self.ring, self.cq_head, head + 1)
        if result < 0:
            raise common.error(-result)
        return result

    def close(self):
        self.entries.close()
        self.ring.close()
        os.close(self.fd)


def socket_address(scene: Scene):
    head = struct.pack("=H", scene.family) + struct.pack("!H", scene.port)
    if scene.six:
        return head + struct.pack("!I", 0) + common.packed(scene.to) + struct.pack("!I", 0)
    return head + common.packed(scene.to) + b"\0" * 8


def connect(scene: Scene, flags=0):
    sock = opened(scene)
    sock.bind((scene.any, scene.source_port))
    # A socket that does not block: the ring polls for the end, and here the server's answer does.
    raw = socket_address(scene)
    address = ctypes.create_string_buffer(raw, len(raw))
    ring = Ring(flags)
    with sock:
        # A peer that never answers must not hold the attack.
        sock.setsockopt(socket.IPPROTO_TCP, 18, 1500)  # TCP_USER_TIMEOUT
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_SYNCNT, 1)
        ring.submit(CONNECT, sock.fileno(), ctypes.addressof(address), 0, len(raw))
        ring.close()
        return told(sock)


def connect_by_thread(scene: Scene):
    """The kernel's own thread connects."""
    return connect(scene, SQPOLL)


def datagram(scene: Scene):
    raw = socket_address(scene)
    address = ctypes.create_string_buffer(raw, len(raw))
    load = ctypes.create_string_buffer(common.query(), len(common.query()))
    vector = struct.pack("PN", ctypes.addressof(load), len(common.query()))
    vector = ctypes.create_string_buffer(vector, len(vector))
    message = struct.pack("PIPNPNi", ctypes.addressof(address), len(raw), ctypes.addressof(vector), 1, 0, 0, 0)
    message = ctypes.create_string_buffer(message, 56)
    ring = Ring()
    with socket.socket(scene.family, socket.SOCK_DGRAM) as sock:
        sock.bind((scene.any, scene.source_port))
        ring.submit(SENDMSG, sock.fileno(), ctypes.addressof(message), 1, 0)
        ring.close()
    return "sent"


ALL = {"uring": connect, "uring-thread": connect_by_thread}
DATAGRAMS = {"dns-uring": datagram}
