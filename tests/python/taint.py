"""Looks for marks where nothing of them may be: in files, and in every table of every SQLite file.

    taint.py MARK... -- PLACE...

A place is a file or a directory with all below it. Each find is a line: place, mark and form, with tabs between. A
mark is looked for as it is, in UTF-16, in hex and in base64 at each of its three alignments, a UUID also as its 16
bytes; everywhere, and in whatever a file holds that zstd has compressed.
"""

import base64
import os
import sqlite3
import sys
import uuid

import zstandard

ZSTD = b"\x28\xb5\x2f\xfd"
# More than any message has.
UNPACKED_LIMIT = 16 << 20


def forms(mark):
    text = mark.encode()
    yield "plain", text
    yield "UTF-16", mark.encode("utf-16-le")
    yield "hex", text.hex().encode()
    yield "hex", text.hex().upper().encode()
    for before in range(3):
        # The characters that hold nothing of the neighbours.
        encoded = base64.b64encode(b"\0" * before + text)
        start, end = -(-before * 8 // 6), (before + len(text)) * 8 // 6
        yield "base64", encoded[start:end]
        yield "base64", encoded[start:end].translate(bytes.maketrans(b"+/", b"-_"))
    try:
        yield "bytes", uuid.UUID(mark).bytes
    except ValueError:
        pass


def look(place, content, prefix=""):
    for needle, (mark, form) in NEEDLES.items():
        if needle in content:
            FOUND.add((place, mark, prefix + form))


def look_in_compressed(place, content):
    at = content.find(ZSTD)
    while at >= 0:
        unpacked = b""
        try:
            reader = zstandard.ZstdDecompressor().stream_reader(memoryview(content)[at:])
            while len(unpacked) < UNPACKED_LIMIT and (chunk := reader.read(1 << 16)):
                unpacked += chunk
        except zstandard.ZstdError:
            # Four bytes by chance, or cut off: what came before the end counts.
            pass
        look(place, unpacked, "zstd, ")
        at = content.find(ZSTD, at + 1)


def look_in_tables(path):
    database = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    database.text_factory = bytes
    for (table,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
        table = table.decode()
        for row in database.execute(f'SELECT * FROM "{table}"'):
            for value in row:
                look(f"{path}:{table}", value if isinstance(value, bytes) else str(value).encode())


def look_in_file(path):
    try:
        with open(path, "rb") as file:
            content = file.read()
    except OSError:
        # A socket, or gone meanwhile.
        return
    look(path, content)
    look_in_compressed(path, content)
    if content.startswith(b"SQLite format 3\0"):
        look_in_tables(path)


MARKS = sys.argv[1 : sys.argv.index("--")]
# Each once: many look the same in two alphabets.
NEEDLES = {needle: (mark, form) for mark in MARKS for form, needle in forms(mark)}
FOUND = set()
for place in sys.argv[sys.argv.index("--") + 1 :]:
    if not os.path.exists(place):
        sys.exit(f"{place} is not there")
    if os.path.isdir(place):
        for folder, _, names in os.walk(place):
            for name in names:
                look_in_file(os.path.join(folder, name))
    else:
        look_in_file(place)
for find in sorted(FOUND):
    print("\t".join(find))
