"""Opens TLS 1.3 connections of a capture file, as whoever has their keys can: writes what each side said.

opened.py CAPTURE KEYS PORT DIRECTORY

KEYS is what SSLKEYLOGFILE names; PORT is the server's. DIRECTORY gets two files for each connection, `N-in` and
`N-out` as the server sees it, the content of one TLS record after the other. Prints how many connections it opened.
What is missing or cannot be decrypted ends it: nothing that was said may go unseen.
"""

import hmac
import os
import struct
import sys

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

# RFC 8446, B.4: cipher, length of its key, hash.
SUITES = {
    0x1301: (AESGCM, 16, "sha256"),
    0x1302: (AESGCM, 32, "sha384"),
    0x1303: (ChaCha20Poly1305, 32, "sha256"),
}
HANDSHAKE, APPLICATION = 22, 23
CLIENT_HELLO, SERVER_HELLO = 1, 2


def packets(path):
    with open(path, "rb") as file:
        file.read(24)
        while len(head := file.read(16)) == 16:
            yield file.read(struct.unpack("<IIII", head)[2])


def segments(path, port):
    """Which side of which connection, sequence number, SYN, content."""
    for packet in packets(path):
        kind = packet[12:14]
        if kind == b"\x08\x00" and packet[23] == 6:
            start, size = 14 + (packet[14] & 15) * 4, 14 + struct.unpack(">H", packet[16:18])[0]
            hosts = packet[26:30], packet[30:34]
        elif kind == b"\x86\xdd" and packet[20] == 6:
            start, size = 54, 54 + struct.unpack(">H", packet[18:20])[0]
            hosts = packet[22:38], packet[38:54]
        else:
            continue
        source, target, number = struct.unpack(">HHI", packet[start : start + 8])
        if port in (source, target):
            client = (hosts[1], target) if source == port else (hosts[0], source)
            content = packet[start + (packet[start + 12] >> 4) * 4 : size]
            yield client, source == port, number, bool(packet[start + 13] & 2), content


def streams(path, port):
    """By connection: what the client sent and what the server sent, in order."""
    current, done = {}, []
    for client, from_server, number, syn, content in segments(path, port):
        if syn and not from_server and current.get(client, ({}, {}, None))[2] != number:
            # A port that is used again is another connection.
            current[client] = ({}, {}, number)
            done.append(current[client])
        if client in current:
            sides = current[client]
            if syn:
                sides[from_server]["begin"] = number + 1
            elif content:
                # Loopback shows each packet twice, and a lost one comes again.
                sides[from_server][number] = max(content, sides[from_server].get(number, b""), key=len)
        elif content:
            sys.exit("a connection is older than the capture")
    for sides in done:
        yield tuple(joined(side) for side in sides[:2])


def joined(side):
    begin, stream = side.pop("begin", None), b""
    if begin is None:
        return stream
    for place, content in sorted(((number - begin) % (1 << 32), content) for number, content in side.items()):
        if place > len(stream):
            sys.exit(f"a packet is missing after {len(stream)} bytes")
        stream += content[len(stream) - place :]
    return stream


def records(stream):
    while len(stream) >= 5:
        kind, _, length = struct.unpack(">BHH", stream[:5])
        if len(stream) < 5 + length:
            return
        yield kind, stream[:5], stream[5 : 5 + length]
        stream = stream[5 + length :]


def expanded(secret, label, length, algorithm):
    label = b"tls13 " + label
    info = struct.pack(">HB", length, len(label)) + label + b"\0\1"
    return hmac.new(secret, info, algorithm).digest()[:length]


class Opener:
    def __init__(self, secret, suite):
        cipher, length, algorithm = SUITES[suite]
        self.cipher = cipher(expanded(secret, b"key", length, algorithm))
        self.iv = int.from_bytes(expanded(secret, b"iv", 12, algorithm), "big")
        self.number = 0

    def open(self, head, content):
        text = self.cipher.decrypt((self.iv ^ self.number).to_bytes(12, "big"), content, head)
        self.number += 1
        # Without the padding and the type.
        return text.rstrip(b"\0")[:-1]


def opened(stream, suite, secrets):
    """What one side said after the two hellos."""
    said, openers = b"", [Opener(secret, suite) for secret in secrets]
    for kind, head, content in records(stream):
        if kind != APPLICATION:
            continue
        while True:
            try:
                said += openers[0].open(head, content)
                break
            except InvalidTag:
                # The keys of the handshake are over.
                openers.pop(0)
            except IndexError:
                sys.exit("a record cannot be decrypted")
    return said


def hello(stream, kind):
    for record, _, content in records(stream):
        if record == HANDSHAKE and content[0] == kind:
            return content
    return None


capture, keys, port, directory = sys.argv[1:]
SECRETS = {}
with open(keys) as file:
    for line in file:
        label, random, secret = line.split()
        SECRETS[label, bytes.fromhex(random)] = bytes.fromhex(secret)
count = 0
for client, server in streams(capture, int(port)):
    hellos = hello(client, CLIENT_HELLO), hello(server, SERVER_HELLO)
    if None in hellos:
        # Nothing but a hello was ever said.
        continue
    random, answer = hellos[0][6:38], hellos[1]
    session = answer[38]
    suite = struct.unpack(">H", answer[39 + session : 41 + session])[0]
    for name, side, stream in (("in", "CLIENT", client), ("out", "SERVER", server)):
        labels = f"{side}_HANDSHAKE_TRAFFIC_SECRET", f"{side}_TRAFFIC_SECRET_0"
        secrets = [SECRETS[label, random] for label in labels if (label, random) in SECRETS]
        said = opened(stream, suite, secrets)
        with open(os.path.join(directory, f"{count}-{name}"), "wb") as file:
            file.write(said)
    count += 1
print(count)
