"""Reads an installer package and a profile with what others wrote: Python's standard library, bsdtar, 7-Zip,
OpenSSL and cksum; nothing is shared with the packager. Prints what is wrong, a line each.

    read_package.py PACKAGE PROFILE [CERTIFICATE.pem of who must have signed]

Only tests run it, on what we just built: a package that is cut short raises, which is a finding too.
"""

import gzip
import hashlib
import plistlib
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as xml
import zlib
from pathlib import Path

problems = []


def unless(holds, what):
    if not holds:
        problems.append(what)


def run(*command, **options):
    return subprocess.run([str(part) for part in command], capture_output=True, check=False, **options)


# --- The archive -----------------------------------------------------------------------------


def read_xar(package, certificate, place):
    """Members by path, after their checksums and the signatures were verified."""
    magic, header_size, _, compressed, uncompressed, algorithm = struct.unpack(">4sHHQQI", package[:28])
    unless(magic == b"xar!" and algorithm == 1, "the header is not that of a XAR with SHA-1")
    packed = package[header_size : header_size + compressed]
    table = zlib.decompress(packed)
    unless(len(table) == uncompressed, "the table's length is not as the header says")
    heap = package[header_size + compressed :]
    toc = xml.fromstring(table).find("toc")

    def in_heap(element):
        offset, size = int(element.find("offset").text), int(element.find("size").text)
        return heap[offset : offset + size]

    checksum = hashlib.sha1(packed).digest()
    unless(in_heap(toc.find("checksum")) == checksum, "the table's checksum is wrong")
    if certificate:
        verify(toc, in_heap, checksum, certificate, place)
    members = {}

    def walk(element, above):
        for file in element.findall("file"):
            path = above + file.find("name").text
            data = file.find("data")
            if data is None:
                walk(file, path + "/")
                continue
            offset, length = int(data.find("offset").text), int(data.find("length").text)
            content = heap[offset : offset + length]
            said = data.find("archived-checksum").text
            unless(hashlib.sha1(content).hexdigest() == said, f"{path}: its checksum is wrong")
            unless(data.find("encoding").get("style") == "application/octet-stream", f"{path}: compressed")
            members[path] = content

    walk(toc, "")
    return members


def verify(toc, in_heap, checksum, certificate, place):
    (place / "checksum").write_bytes(checksum)
    for name, style in (("signature", "RSA"), ("x-signature", "CMS")):
        element = toc.find(name)
        if element is None or element.get("style") != style:
            problems.append(f"the package has no {style} signature")
            continue
        (place / style).write_bytes(in_heap(element))
        if style == "RSA":
            # rcodesign takes the checksum for a message and signs its SHA-256.
            done = run("openssl", "pkeyutl", "-verify", "-certin", "-inkey", certificate, "-rawin", "-digest",
                       "sha256", "-sigfile", place / style, "-in", place / "checksum")
        else:
            done = run("openssl", "cms", "-verify", "-binary", "-inform", "DER", "-purpose", "any", "-noverify",
                       "-nointern", "-certfile", certificate, "-in", place / style, "-content",
                       place / "checksum", "-out", "/dev/null")
        said = (done.stdout + done.stderr).decode(errors="replace").strip()
        unless(done.returncode == 0, f"the package's {style} signature does not verify: {said}")


def read_by_others(package_path, members, place):
    seven_zip = shutil.which("7zz") or shutil.which("7z")
    if not seven_zip or not shutil.which("bsdtar"):
        sys.exit("bsdtar or 7-Zip is missing: run scripts/setup macos")
    for name, command in (
        ("bsdtar", lambda to: ["bsdtar", "-xf", package_path, "-C", to]),
        ("7-Zip", lambda to: [seven_zip, "x", "-y", f"-o{to}", package_path]),
    ):
        directory = place / name
        directory.mkdir()
        done = run(*command(directory))
        unless(done.returncode == 0, f"{name} cannot read the package: {done.stderr.decode(errors='replace')}")
        # 7-Zip shows the table as a member of its own.
        found = {
            str(path.relative_to(directory)): path.read_bytes()
            for path in directory.rglob("*")
            if path.is_file() and path.name != "[TOC].xml"
        }
        unless(found == members, f"{name} finds something else in the package than we do")


# --- Payload and bill of materials -------------------------------------------------------------


def read_cpio(archive):
    """Path: (st_mode, owner, group, content) of the portable ASCII format."""
    entries, at = {}, 0
    while True:
        fields = [archive[at + start : at + end] for start, end in
                  ((0, 6), (18, 24), (24, 30), (30, 36), (59, 65), (65, 76))]
        magic, (mode, owner, group, name_size, size) = fields[0], [int(field, 8) for field in fields[1:]]
        if magic != b"070707":
            raise ValueError("not a cpio archive")
        name = archive[at + 76 : at + 76 + name_size - 1].decode()
        at += 76 + name_size
        if name == "TRAILER!!!":
            return entries
        entries[name] = (mode, owner, group, archive[at : at + size])
        at += size


def read_bill(bill):
    """Path: (st_mode, owner, group, size, checksum), walking the leaves of the tree `Paths`."""
    magic, _, _, table, _, roots, _ = struct.unpack(">8sIIIIII", bill[:32])
    if magic != b"BOMStore":
        raise ValueError("not a bill of materials")

    def block(number):
        place, length = struct.unpack_from(">II", bill, table + 4 + 8 * number)
        return bill[place : place + length]

    named, at = {}, roots + 4
    for _ in range(struct.unpack_from(">I", bill, roots)[0]):
        number, length = struct.unpack_from(">IB", bill, at)
        named[bill[at + 5 : at + 5 + length].decode()] = number
        at += 5 + length
    tree, _, child, _, count = struct.unpack_from(">4sIIII", block(named["Paths"]))
    unless(tree == b"tree", "the bill's paths are no tree")
    info = struct.unpack_from(">III", block(named["BomInfo"]))
    unless(info[1] == count + 1, "the bill's count of paths is wrong")

    found, names, keys = {}, {0: None}, []
    while child:
        leaf = block(child)
        is_leaf, pairs, child, _ = struct.unpack_from(">HHII", leaf)
        unless(is_leaf == 1, "the bill's tree has branches")
        for index in range(pairs):
            first, file = struct.unpack_from(">II", leaf, 12 + 8 * index)
            number, attributes = struct.unpack(">II", block(first))
            parent, name = struct.unpack_from(">I", block(file))[0], block(file)[4:-1].decode()
            keys.append((parent, name))
            names[number] = name if names[parent] is None else f"{names[parent]}/{name}"
            kind, _, _, mode, owner, group, _, size, _, checksum = struct.unpack_from(
                ">BBHHIIIIBI", block(attributes))
            unless(kind == (2 if mode & 0o040000 and not mode & 0o100000 else 1),
                   f"the bill has {names[number]} as another type than its mode")
            found[names[number]] = (mode, owner, group, size, checksum)
    unless(keys == sorted(keys), "the bill's paths are not sorted")
    unless(len(found) == count, "the bill has another number of paths than it says")
    return found


def cksum(content):
    return int(run("cksum", input=content).stdout.split()[0])


def check_payload(members, place):
    unpacked = gzip.decompress(members["agent.pkg/Payload"])
    payload = read_cpio(unpacked)
    (place / "payload").write_bytes(unpacked)
    listed = run("bsdtar", "-tf", place / "payload").stdout.decode().split("\n")
    theirs = {path.rstrip("/") for path in listed if path}
    unless(theirs == set(payload), "bsdtar finds other paths in the payload than we do")

    bill = read_bill(members["agent.pkg/Bom"])
    unless(set(bill) == set(payload), f"bill and payload differ: {sorted(set(bill) ^ set(payload))}")
    for path in set(bill) & set(payload):
        mode, owner, group, content = payload[path]
        expected = (mode, owner, group, len(content), cksum(content) if mode & 0o100000 else 0)
        unless(bill[path] == expected, f"{path}: the bill says {bill[path]}, the payload {expected}")
        unless(owner == 0 and not mode & 0o022 or path == "./Applications", f"{path}: others could write to it")
    return payload


# --- What the Installer and launchd read ---------------------------------------------------------


def check_descriptions(members, payload):
    info = xml.fromstring(members["agent.pkg/PackageInfo"])
    size = sum(len(content) for _, _, _, content in payload.values())
    unless(info.get("install-location") == "/" and info.get("auth") == "root", "PackageInfo: where, or as whom")
    unless(int(info.find("payload").get("numberOfFiles")) == len(payload), "PackageInfo: the number of files")
    unless(int(info.find("payload").get("installKBytes")) == -(-size // 1024), "PackageInfo: the size")
    unless(list(info.find("relocate")) == [], "PackageInfo: the app could be installed elsewhere")
    bundle = info.find("bundle")
    plist = plistlib.loads(payload[f"{bundle.get('path')}/Contents/Info.plist"][3])
    for attribute, key in (("id", "CFBundleIdentifier"), ("CFBundleVersion", "CFBundleVersion")):
        unless(bundle.get(attribute) == plist[key], f"PackageInfo: {attribute} is not the app's")
    unless(info.get("version") == plist["CFBundleShortVersionString"], "PackageInfo: the version is not the app's")

    scripts = read_cpio(gzip.decompress(members["agent.pkg/Scripts"]))
    for script in info.find("scripts"):
        mode, _, _, content = scripts.get(script.get("file"), (0, 0, 0, b"missing ("))
        unless(mode & 0o111, f"{script.get('file')} cannot be executed")
        done = run("sh", "-n", input=content)
        unless(done.returncode == 0, f"{script.get('file')}: {done.stderr.decode(errors='replace')}")

    distribution = xml.fromstring(members["Distribution"])
    unless(distribution.find("volume-check/allowed-os-versions/os-version").get("min") == "13.0",
           "Distribution: the oldest macOS")
    unless(distribution.find("options").get("hostArchitectures") == "arm64,x86_64", "Distribution: architectures")
    reference = [one for one in distribution.findall("pkg-ref") if one.text]
    unless([one.text for one in reference] == ["#agent.pkg"], "Distribution: the component")
    unless(all(one.get("version") == info.get("version") for one in reference), "Distribution: the version")


def check_plists(payload):
    for path, (_, _, _, content) in payload.items():
        if not path.endswith((".plist", "/CodeResources")):
            continue
        try:
            plist = plistlib.loads(content)
        except Exception as error:  # whatever the parser raises is a finding
            problems.append(f"{path}: {error}")
            continue
        check_comments(path, content)
        if "/Launch" in path:
            program = "." + plist["ProgramArguments"][0]
            unless(payload.get(program, (0,))[0] & 0o111, f"{path}: there is no program {program}")
            unless(path.endswith(f"/{plist['Label']}.plist"), f"{path}: its label is {plist['Label']}")
        if "/LaunchDaemons/" in path:
            for key, log in (("StandardOutPath", "agent.log"), ("StandardErrorPath", "agent-error.log")):
                unless(plist.get(key) == f"/var/log/toktra/{log}", f"{path}: {key}")
            unless("./private/var/log/toktra" in payload, "nothing makes the directory of the logs")
            rotation = payload["./private/etc/newsyslog.d/com.toktra.agent.conf"][3].decode()
            for log in ("agent.log", "agent-error.log"):
                unless(re.search(rf"^/var/log/toktra/{log}\s", rotation, re.MULTILINE), f"{log} is not rotated")


def check_icon(payload):
    """The icon that the app's Info.plist names holds images that are whole, each as wide as its kind says."""
    contents = "./Applications/ToktraAgent.app/Contents"
    name = plistlib.loads(payload[f"{contents}/Info.plist"][3])["CFBundleIconFile"]
    icon = payload[f"{contents}/Resources/{name}.icns"][3]
    magic, length = struct.unpack(">4sI", icon[:8])
    unless(magic == b"icns" and length == len(icon), "the icon is not one, or not whole")
    widths = {b"ic07": 128, b"ic08": 256, b"ic09": 512, b"ic11": 32, b"ic12": 64}
    at, kinds = 8, set()
    while at < len(icon):
        kind, length = struct.unpack_from(">4sI", icon, at)
        image, at = icon[at + 8 : at + length], at + length
        kinds.add(kind)
        unless(image[:8] == b"\x89PNG\r\n\x1a\n", f"the icon's {kind} is no PNG")
        place, chunks = 8, {}
        while place < len(image):
            size, chunk = struct.unpack_from(">I4s", image, place)
            content = image[place + 8 : place + 8 + size]
            checksum = struct.unpack_from(">I", image, place + 8 + size)[0]
            unless(zlib.crc32(chunk + content) == checksum, f"the icon's {kind}: a checksum is wrong")
            chunks[chunk], place = content, place + 12 + size
        width, height = struct.unpack(">II", chunks[b"IHDR"][:8])
        unless(width == height == widths.get(kind), f"the icon's {kind} is {width} by {height}")
        pixels = zlib.decompress(chunks[b"IDAT"])
        unless(len(pixels) == height * (1 + 4 * width), f"the icon's {kind} is not whole")
        row = 1 + 4 * width
        corner, middle = pixels[4], pixels[height // 2 * row + width // 2 * 4 + 4]
        unless((corner, middle) == (0, 255), f"the icon's {kind} is blank")
    unless(kinds == set(widths), f"the icon has the kinds {kinds}")


def check_comments(path, content):
    # Apple's parsers refuse what the standard forbids and Python's lets pass.
    for comment in re.findall(rb"<!--(.*?)-->", content, re.DOTALL):
        unless(b"--" not in comment, f"{path}: two hyphens in a comment")


def main():
    package_path, profile_path, certificate = (sys.argv[1:] + [None])[:3]
    with tempfile.TemporaryDirectory() as place:
        place = Path(place)
        members = read_xar(Path(package_path).read_bytes(), certificate, place)
        read_by_others(package_path, members, place)
        payload = check_payload(members, place)
    check_descriptions(members, payload)
    check_plists(payload)
    check_icon(payload)
    profile = Path(profile_path).read_bytes()
    plistlib.loads(profile)
    check_comments(profile_path, profile)


if __name__ == "__main__":
    try:
        main()
    except Exception as error:  # hostile input is not what this reads; broken input is
        problems.append(f"unreadable: {type(error).__name__}: {error}")
    print("\n".join(problems))
    sys.exit(1 if problems else 0)
