"""Name resolution for a lab, which has none of its own: python resolver.py ADDRESS

Answers every question for an IPv4 address with ADDRESS and any other with nothing, on 127.0.0.1, port 53.
Prints `ready`; from then on, for each line on standard input, how many questions it has answered.
"""
import socket
import sys
import threading

served = 0
answer = b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x00\x00\x04" + socket.inet_aton(sys.argv[1])
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("127.0.0.1", 53))


def serve():
    global served
    while True:
        query, client = server.recvfrom(1500)
        end = query.index(0, 12) + 5
        is_v4 = query[end - 4 : end - 2] == b"\x00\x01"
        counts = b"\x00\x01" + (b"\x00\x01" if is_v4 else b"\x00\x00") + b"\x00" * 4
        server.sendto(query[:2] + b"\x81\x80" + counts + query[12:end] + (answer if is_v4 else b""), client)
        served += 1


threading.Thread(target=serve, daemon=True).start()
print("ready", flush=True)
for _ in sys.stdin:
    print(served, flush=True)
