"""Writes every packet of an interface into a capture file (pcap), from `ready` on until its standard input ends.

packets.py INTERFACE FILE
"""

import select
import socket
import struct
import sys
import time

ETH_P_ALL = 3
SO_RCVBUFFORCE = 33
LINKTYPE_ETHERNET = 1
LIMIT = 1 << 18

packets = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
packets.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 64 << 20)
packets.bind((sys.argv[1], 0))
print("ready", flush=True)
with open(sys.argv[2], "wb") as file:
    file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, LIMIT, LINKTYPE_ETHERNET))
    while True:
        ready, _, _ = select.select([packets, sys.stdin], [], [])
        if packets in ready:
            packet = packets.recv(LIMIT)
            now_us = time.time_ns() // 1000
            file.write(struct.pack("<IIII", *divmod(now_us, 1_000_000), len(packet), len(packet)) + packet)
        elif sys.stdin in ready and not sys.stdin.buffer.read(1):
            break
