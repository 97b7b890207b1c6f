"""Opens sealed records without any code of ours, as docs/personal.md describes it, and seals one.

Standard input: the user's key in hex, then a sealed record in hex. Standard output: what was in it, then
a record sealed by this program to the same key, in hex.
"""

import hashlib
import sys

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

HEAD = b"toktra sealed v1\n"
INFO = b"toktra personal record v1\0"

key = X25519PrivateKey.from_private_bytes(bytes.fromhex(sys.stdin.readline()))
sealed = bytes.fromhex(sys.stdin.readline())
suite = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.CHACHA20_POLY1305)

public = key.public_key()
whose = hashlib.sha256(b"toktra personal recipient v1\0" + public.public_bytes_raw()).digest()[:8]
assert sealed.startswith(HEAD + whose), "not a sealed record, or not of this key"
print(suite.decrypt(sealed[len(HEAD) + 8 :], key, info=INFO).decode().rstrip(" "))
print((HEAD + whose + suite.encrypt(b'{"from":"python"}'.ljust(1024), public, info=INFO)).hex())
