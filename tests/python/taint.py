"""Looks for marks where nothing of them may be: files, every table of every SQLite file, memory of processes.

    taint.py MARK... -- PLACE...

A place is a file, a directory with all below it, or `pid:NUMBER`. Each find is a line: place, mark and form, with
tabs between. A mark is looked for as it is, in UTF-16, in hex and in base64 at each of its three alignments.
"""

import base64
import os
import sqlite3
import sys


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


def look(place, content):
    for mark, form, needle in NEEDLES:
        if needle in content:
            FOUND.add((place, mark, form))


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
    if content.startswith(b"SQLite format 3\0"):
        look_in_tables(path)


def look_in_memory(pid):
    read = 0
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", 0) as memory:
        for line in maps:
            parts = line.split(maxsplit=5)
            name = parts[5].strip() if len(parts) > 5 else "anonymous"
            start, end = (int(number, 16) for number in parts[0].split("-"))
            try:
                memory.seek(start)
                content = memory.read(end - start)
            except (OSError, ValueError, OverflowError):
                # Guards and the kernel's own pages.
                continue
            read += len(content)
            look(f"pid:{pid}:{name}", content)
    if read < 1 << 20:
        sys.exit(f"the memory of {pid} could not be read")


MARKS = sys.argv[1 : sys.argv.index("--")]
NEEDLES = [(mark, form, needle) for mark in MARKS for form, needle in forms(mark)]
FOUND = set()
for place in sys.argv[sys.argv.index("--") + 1 :]:
    if place.startswith("pid:"):
        look_in_memory(int(place[4:]))
    elif os.path.isdir(place):
        for folder, _, names in os.walk(place):
            for name in names:
                look_in_file(os.path.join(folder, name))
    else:
        look_in_file(place)
for find in sorted(FOUND):
    print("\t".join(find))
