#!/usr/bin/env python3
"""Makes random tar archives and lists archives, with Python's tarfile.

usage: archives.py make DIR COUNT     DIR/p000000.tar and so on, of all formats that tarfile writes
       archives.py list DIR           for each archive in DIR one line of JSON: [name, [member in hexadecimal, ...] or null]
"""
import io
import json
import os
import random
import sys
import tarfile

TYPES = (tarfile.REGTYPE, tarfile.REGTYPE, tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE,
         tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.CONTTYPE)


def random_name(dice, longest):
    parts = []
    for _ in range(dice.randint(1, 4)):
        length = dice.choice((1, 3, 8, 30, 99, 100, 101, 160))
        letters = dice.choice((b"abc", b"a b.-_", bytes(range(1, 47)) + bytes(range(48, 256)), "äß€".encode()))
        parts.append(bytes(dice.choice(letters) for _ in range(length)))
    name = b"/".join(parts)[:longest].rstrip(b"/")
    return os.fsdecode(dice.choice((b"", b"./")) + (name or b"x"))


def make(directory, count):
    dice = random.Random(20261120)
    for number in range(count):
        form = dice.choice((tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT))
        headers = {"comment": "global"} if dice.random() < 0.1 else None
        with tarfile.open(os.path.join(directory, "p%06d.tar" % number), "w", format=form, pax_headers=headers,
                          errors="surrogateescape") as archive:
            for _ in range(dice.randint(0, 6)):
                add(archive, dice, form)


def add(archive, dice, form):
    longest = 97 if form == tarfile.USTAR_FORMAT else 400
    member = tarfile.TarInfo(random_name(dice, longest))
    member.type = dice.choice(TYPES)
    if member.type == tarfile.AREGTYPE and len(os.fsencode(member.name)) > 60:
        # A long name that is cut after a slash makes this a directory to tarfile and a file to GNU tar: we refuse it.
        member.type = tarfile.REGTYPE
    member.mode = dice.randint(0, 0o7777)
    big = form != tarfile.USTAR_FORMAT and dice.random() < 0.3
    member.uid, member.gid = (dice.randint(0, 2**32 - 2 if big else 0o7777777) for _ in range(2))
    member.mtime = dice.choice((0, 1700000000, dice.randint(0, 2**33 if big else 2**31)))
    if form == tarfile.PAX_FORMAT and dice.random() < 0.5:
        member.mtime += 0.5
        member.pax_headers = {"SCHILY.xattr.user.x": "value"}
    member.uname = dice.choice(("", "root", "a" * 31))
    if member.type in (tarfile.SYMTYPE, tarfile.LNKTYPE):
        member.linkname = random_name(dice, longest)
    data = b""
    if member.type in (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE):
        data = bytes(dice.randint(0, dice.choice((0, 10, 511, 512, 513, 3000))))
        member.size = len(data)
    archive.addfile(member, io.BytesIO(data))


def listed(path):
    try:
        with tarfile.open(path, "r:") as archive:
            return [os.fsencode(member.name).hex() for member in archive]
    except (tarfile.TarError, ValueError, OSError, EOFError):
        return None


if __name__ == "__main__":
    if sys.argv[1] == "make":
        make(sys.argv[2], int(sys.argv[3]))
    else:
        for name in sorted(os.listdir(sys.argv[2])):
            print(json.dumps([name, listed(os.path.join(sys.argv[2], name))]))
