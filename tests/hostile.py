#!/usr/bin/env python3
"""Writes tar archives that try to escape from the directory that they are unpacked in, or contradict themselves.

usage: hostile.py DIR CANARY      DIR/NAME/2023-05-01T03:00:00.tbz for each, as the Python tool would have named it;
                                  CANARY is an absolute path that they try to reach
"""
import bz2
import os
import sys

OUT, CANARY = sys.argv[1], os.fsencode(sys.argv[2])
UP = b"../" * 12 + CANARY.lstrip(b"/")
DATA = b"escaped\n"


def octal(value, width):
    return b"%0*o\0" % (width - 1, value)


def header(name, kind=b"0", size=0, link=b"", mode=0o6777, uid=0, magic=b"ustar\00000", prefix=b"", device=(0, 0), checksum=None,
           size_field=None, mtime=0):
    block = bytearray(512)

    def put(at, value):
        block[at:at + len(value)] = value
    put(0, name[:100])
    put(100, octal(mode, 8))
    put(108, octal(uid, 8))
    put(116, octal(0, 8))
    put(124, size_field if size_field is not None else octal(size, 12))
    put(136, octal(mtime, 12))
    put(148, b" " * 8)
    put(156, kind)
    put(157, link[:100])
    put(257, magic)
    put(329, octal(device[0], 8))
    put(337, octal(device[1], 8))
    put(345, prefix[:155])
    put(148, b"%06o\0 " % (checksum if checksum is not None else sum(block)))
    return bytes(block)


def pad(data):
    return data + bytes(-len(data) % 512)


def entry(name, kind=b"0", data=b"", **more):
    return header(name, kind, size=len(data), **more) + pad(data)


def records(**values):
    out = b""
    for key, value in values.items():
        key = key.replace("__", ".").encode()
        body = b" " + key + b"=" + value + b"\n"
        length = len(body)
        while len(b"%d" % length) + len(body) != length:
            length = len(b"%d" % length) + len(body)
        out += b"%d" % length + body
    return out


def pax(kind=b"x", raw=None, **values):
    return entry(b"pax", kind, raw if raw is not None else records(**values))


def long_name(name, kind=b"L"):
    return entry(b"././@LongLink", kind, name + b"\0")


def f(name, data=DATA, **more):
    return entry(name, b"0", data, **more)


def d(name, **more):
    return entry(name, b"5", **more)


def sym(name, to):
    return entry(name, b"2", link=to)


def hard(name, to):
    return entry(name, b"1", link=to)


def node(name, kind, major, minor):
    return entry(name, kind, device=(major, minor))


CASES = {
    # Names that lead elsewhere
    "up": f(b"../" + b"escaped"),
    "up-far": f(UP + b"/escaped"),
    "absolute": f(CANARY + b"/escaped"),
    "double-slash": f(b"//" + CANARY + b"/escaped"),
    "up-inside": d(b"a") + f(b"a/../../escaped"),
    "up-at-end": d(b"a/.."),
    "only-up": d(b".."),
    "dot-up": f(b"./../escaped"),
    "empty-part": f(b"a//" + UP + b"/escaped"),
    "empty-name": f(b""),
    "slash": d(b"/"),
    "prefix-up": f(b"escaped", prefix=b"../.."),
    "prefix-absolute": f(b"escaped", prefix=CANARY),
    "long-up": long_name(UP + b"/escaped") + f(b"innocent"),
    "long-absolute": long_name(CANARY + b"/escaped") + f(b"innocent"),
    "pax-up": pax(path=UP + b"/escaped") + f(b"innocent"),
    "pax-absolute": pax(path=CANARY + b"/escaped") + f(b"innocent"),
    "global-pax-absolute": pax(b"g", path=CANARY + b"/escaped") + f(b"innocent"),
    "pax-and-long-differ": pax(path=b"a") + long_name(CANARY + b"/escaped") + f(b"innocent"),
    "pax-nul": pax(path=b"a\0" + CANARY) + f(b"innocent"),
    "sparse-name-up": pax(GNU__sparse__major=b"1", GNU__sparse__minor=b"0", GNU__sparse__name=UP + b"/escaped", GNU__sparse__realsize=b"5") +
    entry(b"innocent", b"0", pad(b"1\n0\n5\n") + b"hello"),
    # Through links
    "file-through-link": sym(b"l", CANARY) + f(b"l/escaped"),
    "dir-through-link": sym(b"l", CANARY) + d(b"l/escaped"),
    "link-through-link": sym(b"l", CANARY) + sym(b"l/escaped", b"x"),
    "file-through-two-links": sym(b"a", b"b") + sym(b"b", CANARY) + f(b"a/escaped"),
    "file-through-relative-link": sym(b"l", UP) + f(b"l/escaped"),
    "file-through-long-link": long_name(b"./" * 60 + UP, b"K") + sym(b"l", b"x") + f(b"l/escaped"),
    "file-through-pax-link": pax(linkpath=CANARY) + sym(b"l", b"x") + f(b"l/escaped"),
    "dir-over-link": sym(b"l", CANARY) + d(b"l", mode=0o777),
    "dir-with-slash-over-link": sym(b"l", CANARY) + d(b"l/", mode=0o777, uid=1),
    "file-over-link": sym(b"l", CANARY + b"/file") + f(b"l"),
    "device-over-link": sym(b"l", CANARY + b"/file") + node(b"l", b"3", 1, 3),
    "link-over-dir": d(b"l") + sym(b"l", CANARY) + f(b"l/escaped"),
    "link-over-dir-with-content": d(b"l") + f(b"l/a") + sym(b"l", CANARY) + f(b"l/escaped"),
    "deep-through-link": d(b"a") + sym(b"a/l", CANARY) + d(b"a/l/b") + f(b"a/l/b/escaped"),
    "link-to-self-then-through": sym(b"l", b".") + f(b"l/l/l/escaped"),
    "link-to-proc": sym(b"l", b"/proc/self/root" + CANARY) + f(b"l/escaped"),
    "link-to-cwd": sym(b"l", b"/proc/self/cwd") + f(b"l/escaped"),
    # Hard links
    "hard-outside": hard(b"h", UP + b"/file") + f(b"h"),
    "hard-absolute": hard(b"h", CANARY + b"/file"),
    "hard-through-link": sym(b"l", CANARY) + hard(b"h", b"l/file"),
    "hard-to-link": sym(b"l", CANARY + b"/file") + hard(b"h", b"l") + f(b"h"),
    "hard-to-dir": d(b"a") + hard(b"h", b"a"),
    "hard-to-nothing": hard(b"h", b"nothing"),
    "hard-to-self": hard(b"h", b"h"),
    "hard-chain": f(b"a") + hard(b"b", b"a") + hard(b"c", b"b"),
    "hard-with-data": f(b"a") + entry(b"h", b"1", DATA, link=b"a"),
    "hard-dots": hard(b"h", b"./a/../../" + b"file"),
    # Devices and modes
    "device": node(b"disk", b"4", 7, 0) + f(b"disk"),
    "device-in-link": sym(b"l", CANARY) + node(b"l/null", b"3", 1, 3),
    "fifo-then-file": entry(b"p", b"6") + f(b"p"),
    # Contradictions
    "pax-size-larger": pax(size=b"1024") + f(b"a", b"x" * 512) + f(CANARY + b"/escaped"),
    "pax-size-smaller": pax(size=b"0") + f(b"a", header(CANARY + b"/escaped")),
    "pax-malformed": pax(raw=b"99 path=a\n") + f(b"b"),
    "pax-no-newline": pax(raw=b"9 path=aa") + f(b"b"),
    "pax-no-length": pax(raw=b"path=a\n") + f(b"b"),
    "pax-negative-size": pax(size=b"-1") + f(b"b"),
    "pax-huge-size": pax(size=b"9223372036854775807") + f(b"b"),
    "pax-at-end": pax(path=b"a"),
    "dir-with-data": entry(b"d", b"5", header(CANARY + b"/escaped")),
    "link-with-data": entry(b"l", b"2", header(CANARY + b"/escaped"), link=b"x"),
    "checksum": header(b"a", checksum=1),
    "size-negative": header(b"a", size_field=b"\xff" * 12),
    "size-huge": header(b"a", size_field=b"\x80" + b"\0" * 3 + b"\x7f" + b"\xff" * 7),
    "size-no-number": header(b"a", size_field=b"12x4567890\0\0"),
    "truncated": header(b"a", size=1 << 20),
    "long-huge": header(b"L", b"L", size=1 << 40),
    "file-or-directory": long_name(b"n" * 99 + b"/n") + entry(b"n" * 99 + b"/", b"\0", header(CANARY + b"/escaped")),
    "unknown-type": entry(b"a", b"Z"),
    "multi-volume": entry(b"a", b"M", DATA),
    "old-sparse": entry(b"a", b"S", DATA),
    # Bombs
    "sparse-bomb": pax(GNU__sparse__major=b"1", GNU__sparse__minor=b"0", GNU__sparse__name=b"a", GNU__sparse__realsize=b"9000000000000000000") +
    entry(b"a", b"0", pad(b"1\n9000000000000000000\n0\n")),
    "sparse-map-endless": pax(GNU__sparse__major=b"1", GNU__sparse__minor=b"0", GNU__sparse__name=b"a", GNU__sparse__realsize=b"5") +
    entry(b"a", b"0", pad(b"99999999\n")),
    "sparse-map-overlap": pax(GNU__sparse__major=b"1", GNU__sparse__minor=b"0", GNU__sparse__name=b"a", GNU__sparse__realsize=b"5") +
    entry(b"a", b"0", pad(b"2\n0\n5\n0\n5\n") + b"hellohello"),
    "many-times-one-name": b"".join(f(b"a", b"%d" % n) for n in range(1000)),
    "name-of-300": pax(path=b"n" * 300) + f(b"a"),
    "deep": b"".join(pax(path=b"d/" * n + b"d") + d(b"x") for n in range(0, 2200, 550)),
    "garbage": bytes(range(256)) * 8,
}

for name, stream in CASES.items():
    os.makedirs(os.path.join(OUT, name))
    with open(os.path.join(OUT, name, "2023-05-01T03:00:00.tbz"), "wb") as out:
        out.write(bz2.compress(stream + bytes(1024)))
print(len(CASES))
