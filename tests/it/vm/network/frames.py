# Sends frames out of one container that it has no right to send, and prints which of them arrived anywhere.
# frames.py BRIDGE ATTACKER-PID VICTIM-PID ATTACKER-IP VICTIM-IP ATTACKER-IP6 VICTIM-IP6 GATEWAY-MAC
import os
import select
import socket
import struct
import sys

bridge, attacker, victim, own4, other4, own6, other6, gateway = sys.argv[1:]
ALL = 3  # ETH_P_ALL


def listening(link):
    sniffer = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ALL))
    sniffer.bind((link, 0))
    return sniffer


def inside(pid, link):
    here = os.open("/proc/self/ns/net", os.O_RDONLY)
    there = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
    os.setns(there, os.CLONE_NEWNET)
    sniffer = listening(link)
    os.setns(here, os.CLONE_NEWNET)
    return sniffer


def mac(text):
    return bytes.fromhex(text.replace(":", ""))


def hardware(address):
    return bytes([2, 0xBE]) + socket.inet_aton(address)


def checksum(data):
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def frame(source, target, kind, payload):
    return target + source + struct.pack("!H", kind) + payload


def udp4(source, target, mark):
    data = struct.pack("!HHHH", 4000, 53, 8 + len(mark), 0) + mark
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(data), 1, 0, 64, 17, 0)
    head += socket.inet_aton(source) + socket.inet_aton(target)
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + data


def ip6(source, target, following, data):
    head = struct.pack("!IHBB", 6 << 28, len(data), following, 255)
    return head + socket.inet_pton(socket.AF_INET6, source) + socket.inet_pton(socket.AF_INET6, target) + data


def arp(operation, sender, address, mark):
    return struct.pack("!HHBBH", 1, 0x800, 6, 4, operation) + sender + socket.inet_aton(address) + mac(gateway) + bytes(4) + mark


def announcement(kind, about, mark):
    body = socket.inet_pton(socket.AF_INET6, about) if kind == 136 else bytes(8)
    return struct.pack("!BBHI", kind, 0, 0, 0x60000000) + body + mark


mine, theirs, router = hardware(own4), hardware(other4), mac(gateway)
everybody = b"\xff" * 6
group = mac("33:33:00:00:00:01")
frames = {
    "own address": frame(mine, router, 0x800, udp4(own4, "198.51.100.1", b"[own address]")),
    "another's IPv4 address": frame(mine, router, 0x800, udp4(other4, "198.51.100.1", b"[another's IPv4 address]")),
    "nobody's IPv4 address": frame(mine, router, 0x800, udp4("203.0.113.9", "198.51.100.1", b"[nobody's IPv4 address]")),
    "another's hardware address": frame(theirs, router, 0x800, udp4(own4, "198.51.100.1", b"[another's hardware address]")),
    "another's IPv6 address": frame(mine, router, 0x86DD, ip6(other6, "2001:db8::1", 59, b"[another's IPv6 address]")),
    "ARP reply for another": frame(mine, everybody, 0x806, arp(2, mine, other4, b"[ARP reply for another]")),
    "ARP reply for the gateway": frame(mine, everybody, 0x806, arp(2, mine, "10.213.0.1", b"[ARP reply for the gateway]")),
    "ARP with another's hardware address": frame(mine, everybody, 0x806, arp(2, theirs, own4, b"[ARP with another's hardware address]")),
    "neighbour announcement": frame(mine, group, 0x86DD, ip6(own6, "ff02::1", 58, announcement(136, other6, b"[neighbour announcement]"))),
    "router announcement": frame(mine, group, 0x86DD, ip6(own6, "ff02::1", 58, announcement(134, other6, b"[router announcement]"))),
    "straight to another": frame(mine, theirs, 0x800, udp4(own4, other4, b"[straight to another]")),
    "to everybody": frame(mine, everybody, 0x800, udp4(own4, "10.213.0.255", b"[to everybody]")),
    "another protocol": frame(mine, everybody, 0x88B5, b"[another protocol]"),
    "the end": frame(mine, router, 0x800, udp4(own4, "198.51.100.2", b"[the end]")),
}

on_bridge, at_victim, out = listening(bridge), inside(victim, "eth0"), inside(attacker, "eth0")
for data in frames.values():
    out.send(data)
over, told = False, set()
while not over:
    ready, _, _ = select.select([on_bridge, at_victim], [], [], 60)
    if not ready:
        sys.exit("not even the last frame arrived")
    for sniffer in ready:
        data = sniffer.recv(4096)
        for name in frames:
            where = "at the victim:" if sniffer is at_victim else "on the bridge:"
            # Once each: a refusal quotes what it refuses.
            if f"[{name}]".encode() in data and (where, name) not in told:
                told.add((where, name))
                print(where, name, flush=True)
                over = over or name == "the end"
