"""Frames by AF_XDP, which hands them to the device itself (Documentation/networking/af_xdp.rst)."""

import ctypes
import mmap
import os
import socket
import struct

import common
from common import Scene
from packets import frame

AF_XDP, SOL_XDP = 44, 283
MMAP_OFFSETS, TX_RING, UMEM_REG, FILL_RING, COMPLETION_RING = 1, 3, 4, 5, 6
COPY = 1 << 1
TX_PAGE = 0x80000000
CHUNKS, CHUNK, DESCRIPTORS = 8, 4096, 8


def option(fd, name, value):
    if common.LIBC.setsockopt(fd, SOL_XDP, name, value, len(value)) < 0:
        raise common.error()


def transmit(scene: Scene):
    fd = common.LIBC.socket(AF_XDP, socket.SOCK_RAW, 0)
    if fd < 0:
        raise common.error()
    try:
        return through(fd, frame(scene), scene.iface)
    finally:
        os.close(fd)


def through(fd, data, iface):
    memory = mmap.mmap(-1, CHUNKS * CHUNK)
    where = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    option(fd, UMEM_REG, struct.pack("QQIIII", where, CHUNKS * CHUNK, CHUNK, 0, 0, 0))
    for ring in (FILL_RING, COMPLETION_RING, TX_RING):
        option(fd, ring, struct.pack("I", DESCRIPTORS))
    offsets = ctypes.create_string_buffer(128)
    length = ctypes.c_uint32(128)
    if common.LIBC.getsockopt(fd, SOL_XDP, MMAP_OFFSETS, offsets, ctypes.byref(length)) < 0:
        raise common.error()
    # Of receive and transmit ring: producer, consumer, descriptors, flags.
    producer, _, descriptors, _ = struct.unpack_from("4Q", offsets.raw, 32)
    ring = mmap.mmap(fd, descriptors + DESCRIPTORS * 16, offset=TX_PAGE)
    address = struct.pack("HHIII", AF_XDP, COPY, socket.if_nametoindex(iface), 0, 0)
    if common.LIBC.bind(fd, address, len(address)) < 0:
        raise common.error()
    memory[: len(data)] = data
    struct.pack_into("QII", ring, descriptors, 0, len(data), 0)
    struct.pack_into("I", ring, producer, 1)
    if common.LIBC.sendto(fd, None, 0, socket.MSG_DONTWAIT, None, 0) < 0:
        raise common.error()
    return "sent"


ALL = {"xdp": transmit}
