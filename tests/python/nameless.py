"""A program that speaks to HOST and then sends what could be QUIC but names nobody: python nameless.py ADDRESS HOST

Prints `ready`; from then on each line on standard input sends one datagram, and what became of it is
printed: `sent`, or `refused` if the system did not take it.
"""
import os
import socket
import sys
import urllib.request

urllib.request.urlopen(f"https://{sys.argv[2]}/").read()
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as flow:
    flow.connect((sys.argv[1], 443))
    print("ready", flush=True)
    for _ in sys.stdin:
        try:
            flow.send(b"\x40" + os.urandom(99))
            print("sent", flush=True)
        except PermissionError:
            print("refused", flush=True)
