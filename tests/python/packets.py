"""Writes every packet of an interface into a file, from `ready` on until its standard input ends.

packets.py INTERFACE FILE
"""

import select
import socket
import sys

ETH_P_ALL = 3
SO_RCVBUFFORCE = 33

packets = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
packets.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 64 << 20)
packets.bind((sys.argv[1], 0))
print("ready", flush=True)
with open(sys.argv[2], "wb") as file:
    while True:
        ready, _, _ = select.select([packets, sys.stdin], [], [])
        if packets in ready:
            file.write(packets.recv(1 << 17))
        elif sys.stdin in ready and not sys.stdin.buffer.read(1):
            break
