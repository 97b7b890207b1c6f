"""A TLS client whose hello takes three writes, as one that is larger than a segment may.

slow_hello.py ADDRESS NAME
"""

import socket
import ssl
import sys
import time

incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
client = ssl._create_unverified_context().wrap_bio(incoming, outgoing, server_hostname=sys.argv[2])
connection = socket.create_connection((sys.argv[1], 443))
connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
try:
    client.do_handshake()
except ssl.SSLWantReadError:
    pass
hello = outgoing.read()
for start in range(0, len(hello), len(hello) // 3 + 1):
    connection.sendall(hello[start : start + len(hello) // 3 + 1])
    time.sleep(0.2)
while True:
    incoming.write(connection.recv(1 << 16))
    try:
        client.do_handshake()
        break
    except ssl.SSLWantReadError:
        connection.sendall(outgoing.read())
connection.sendall(outgoing.read())
connection.close()
