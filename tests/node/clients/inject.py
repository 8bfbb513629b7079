"""Takes what arrives for a port at eth0 and gives it to the loopback device, as if the pod sent it itself.

    python3 inject.py ADDRESS PORT

What arrives at eth0 is dropped there, so that nobody else answers. The pod's own server then does, and
its answers leave by eth0 as they would without capture. Says `ready`, and ends when its input does.
"""

import ipaddress
import socket
import struct
import subprocess
import sys
import threading

ETH_P_ALL, ETH_P_IP, ETH_P_IPV6 = 0x0003, 0x0800, 0x86DD


def checksum(data):
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def mended(addresses, segment):
    """The sender leaves its checksum to a card that it does not have."""
    segment = segment[:16] + b"\0\0" + segment[18:]
    pseudo = addresses + struct.pack("!II", len(segment), socket.IPPROTO_TCP)
    return segment[:16] + struct.pack("!H", checksum(pseudo + segment)) + segment[18:]


def packet_for(frame, port):
    """The IP packet of a frame, where it is TCP for the port."""
    kind, = struct.unpack("!H", frame[12:14])
    if kind == ETH_P_IP:
        length, = struct.unpack("!H", frame[16:18])
        packet = frame[14:14 + length]
        head = (packet[0] & 15) * 4
        protocol, addresses = packet[9], packet[12:20]
    elif kind == ETH_P_IPV6:
        length, = struct.unpack("!H", frame[18:20])
        packet, head = frame[14:54 + length], 40
        protocol, addresses = packet[6], packet[8:40]
    else:
        return None
    segment = packet[head:]
    if protocol != socket.IPPROTO_TCP or struct.unpack("!H", segment[2:4])[0] != port:
        return None
    return struct.pack("!6x6xH", kind) + packet[:head] + mended(addresses, segment)


def pump(port):
    # The number in network order, as packet(7) has it.
    arriving = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    arriving.bind(("eth0", ETH_P_ALL))
    loopback = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    loopback.bind(("lo", 0))
    print("ready", flush=True)
    while True:
        frame, sender = arriving.recvfrom(70000)
        if sender[2] != socket.PACKET_OUTGOING:
            packet = packet_for(frame, port)
            if packet:
                loopback.send(packet)


def rules(version):
    """Nothing that arrives at eth0 is delivered; what comes by the loopback device is."""
    def rule(*words):
        subprocess.run(["ip", version, "rule", *words], check=True)

    rule("add", "pref", "10", "lookup", "local")
    rule("del", "pref", "0")
    rule("add", "pref", "1", "iif", "eth0", "ipproto", "tcp", "blackhole")


def main():
    address, port = ipaddress.ip_address(sys.argv[1]), int(sys.argv[2])
    for name in ("all", "lo", "eth0"):
        with open(f"/proc/sys/net/ipv4/conf/{name}/rp_filter", "w", encoding="ascii") as file:
            file.write("0")
    rules("-6" if address.version == 6 else "-4")
    threading.Thread(target=pump, args=(port,), daemon=True).start()
    sys.stdin.read()


main()
