#!/usr/bin/env python3
"""Makes a tree with every kind of thing that a file system can hold (cases A1 to A10), and describes trees.

usage: everything.py make DIR        as root, in an empty directory
       everything.py describe DIR    one line for each member, the same for equal trees
       everything.py wide DIR COUNT  a directory with COUNT small files
       everything.py deep DIR DEPTH  directories in each other
"""
import hashlib
import json
import os
import socket
import stat
import struct
import sys

BLOCK = 65536
NOTHING = hashlib.sha256().hexdigest()
DATA = bytes(range(256)) * 256


def write(path, pieces, size=None):
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    for offset, data in pieces:
        os.pwrite(fd, data, offset)
    if size is not None:
        os.ftruncate(fd, size)
    os.close(fd)


def acl(entries):
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


NOBODY = 0xFFFFFFFF
ACL = acl([(1, 6, NOBODY), (2, 4, 12345), (4, 4, NOBODY), (8, 7, 54321), (16, 7, NOBODY), (32, 0, NOBODY)])
CAPABILITY = struct.pack("<5I", 0x02000001, 1 << 10, 0, 0, 0)  # cap_net_bind_service+ep


def biggest_xattr(path):
    """The longest value that this file system takes, up to what the kernel does."""
    for size in (65536, 32768, 16384, 8192, 4000, 3000, 1000):
        try:
            os.setxattr(path, b"user.big", DATA[:size])
            return size
        except OSError:
            pass
    raise SystemExit("no extended attributes on this file system")


def special(said):
    os.mkdir("special")
    os.mkfifo("special/fifo", 0o640)
    os.mknod("special/null", 0o600 | stat.S_IFCHR, os.makedev(1, 3))
    os.mknod("special/loop", 0o660 | stat.S_IFBLK, os.makedev(7, 0))
    os.mknod("special/big-numbers", 0o600 | stat.S_IFCHR, os.makedev(0xFFF, 0xFFFFF))
    sock = socket.socket(socket.AF_UNIX)
    sock.bind("special/socket")
    os.link("special/fifo", "special/fifo-too")
    for name in ("special/fifo", "special/null"):
        os.chown(name, 1234, 4321)


def names():
    os.mkdir("names")
    for byte in range(1, 256):
        if byte not in (ord("/"), ord(".")):
            write(b"names/" + bytes([byte]), [(0, bytes([byte]))])
    for name in (b"-rf", b"  ", b"a ", b"a\nb", b"..a", b"...", "ä€😀".encode(), b"\xff\xfe", b"**", b"$(reboot)", b"a\\nb", b"%2F",
                 bytes(range(1, 47)) + bytes(range(48, 256))):
        write(b"names/" + name, [(0, name)])
    write(b"names/" + b"\xc3" * 255, [(0, b"255")])
    os.mkdir(b"names/" + b"d" * 255)
    write(b"names/" + b"d" * 255 + b"/" + b"e" * 255, [(0, b"255")])


def links(said):
    os.mkdir("links")
    for name, target in ((b"long", b"t/" * 2047 + b"t"), (b"dangling", b"nowhere"), (b"loop", b"loop"), (b"up", b"../.."),
                         (b"bytes", b"\xff\x01 \n"), (b"slash", b"/"), (b"100", b"x" * 100), (b"101", b"x" * 101)):
        os.symlink(target, b"links/" + name)
    os.link("links/dangling", "links/dangling-too", follow_symlinks=False)
    os.mkdir("links/many")
    write("links/first", [(0, b"linked")])
    count = 1
    try:
        for count in range(1, 65000):
            os.link("links/first", "links/many/%05d" % count)
    except OSError:
        pass
    said["hard links"] = count


def sizes():
    os.mkdir("sizes")
    for size in (0, 1, 511, 512, 513, BLOCK - 1, BLOCK, BLOCK + 1, 1 << 20, (1 << 20) + 1, 5_000_001):
        write("sizes/%d" % size, [(0, (DATA * (size // len(DATA) + 1))[:size])])
    giga = 1 << 30
    write("sizes/9G", [(0, b"start"), (5 * giga, DATA), (9 * giga - 3, b"end")])
    write("sizes/1T", [(i * (1 << 36), DATA) for i in range(16)], 1 << 40)
    write("sizes/all-hole", [], 3 * BLOCK + 5)
    write("sizes/hole-first", [(4 * BLOCK, b"data")])
    write("sizes/hole-last", [(0, b"data")], 9 * BLOCK)
    write("sizes/zeros", [(0, bytes(4 * BLOCK))])
    write("sizes/many-holes", [(i * 4 * BLOCK, b"x") for i in range(300)])


def attributes(said):
    os.mkdir("attributes")
    os.chdir("attributes")
    for number, (uid, gid) in enumerate([(2**31, 2**31 - 1), (2**32 - 2, 2**32 - 2), (2097151, 2097152), (77777, 0)]):
        write("owner%d" % number, [])
        os.chown("owner%d" % number, uid, gid)
    for mode in (0o000, 0o400, 0o4755, 0o2755, 0o6711, 0o1777, 0o7777):
        write("mode%04o" % mode, [(0, b"m")])
        os.chown("mode%04o" % mode, 1000, 1000)
        os.chmod("mode%04o" % mode, mode)
    for mode in (0o555, 0o000, 0o2775, 0o1777):
        name = "dir%04o" % mode
        os.mkdir(name)
        write(name + "/inside", [(0, b"i")])
        os.chmod(name, mode)
    write("xattrs", [(0, b"x")])
    os.setxattr("xattrs", b"user.empty", b"")
    os.setxattr("xattrs", b"user.a=b%c", bytes(range(256)))
    os.setxattr("xattrs", "user.ä".encode(), b"\n\0=")
    os.setxattr("xattrs", b"trusted.t", b"root only")
    said["largest attribute"] = 0
    write("big-xattr", [])
    said["largest attribute"] = biggest_xattr("big-xattr")
    write("capability", [(0, b"c")])
    os.chmod("capability", 0o755)
    os.setxattr("capability", b"security.capability", CAPABILITY)
    for name in ("acl", "acl-dir"):
        os.mkdir(name) if name.endswith("dir") else write(name, [])
        os.setxattr(name, b"system.posix_acl_access", ACL)
    os.setxattr("acl-dir", b"system.posix_acl_default", ACL)
    os.symlink("x", "link-with-xattr")
    os.setxattr("link-with-xattr", b"trusted.link", b"l", follow_symlinks=False)
    os.mknod("device-with-xattr", 0o600 | stat.S_IFCHR, os.makedev(1, 3))
    os.setxattr("device-with-xattr", b"trusted.device", b"d")
    os.chdir("..")


def times():
    os.mkdir("times")
    billion = 10**9
    for number, ns in enumerate([0, 1, -1, -billion, -billion * 2**31, 4102444800 * billion, 2**33 * billion, 2**33 * billion + 999999999,
                                 1700000000123456789, -1500000000]):
        write("times/%d" % number, [])
        os.utime("times/%d" % number, ns=(ns, ns))
    os.symlink("x", "times/link")
    os.utime("times/link", ns=(5, -7), follow_symlinks=False)
    os.mkdir("times/dir")
    os.utime("times/dir", ns=(5, 1234567890123456789))


def long_path():
    top = os.getcwd()
    os.mkdir("long-path")
    os.chdir("long-path")
    for level in range(20):
        os.mkdir("%02d" % level + "p" * 248)
        os.chdir("%02d" % level + "p" * 248)
    write("at 5000 bytes", [(0, b"deep")])
    os.symlink("at 5000 bytes", "link")
    os.link("at 5000 bytes", "hard")
    os.chdir(top)


def make(directory):
    os.umask(0)
    os.chdir(directory)
    said = {}
    special(said)
    names()
    links(said)
    sizes()
    attributes(said)
    times()
    long_path()
    os.mkdir("empty")
    print(json.dumps(said))


def deep(directory, depth):
    os.chdir(directory)
    for level in range(depth):
        os.mkdir("d%d" % (level % 10))
        os.chdir("d%d" % (level % 10))
        if level % 100 == 99:
            write("file", [(0, b"%d" % level)])


def wide(directory, count):
    os.chdir(directory)
    for number in range(count):
        write("%07d" % number, [(0, b"%d" % number)])


def extents(fd, size):
    """The stretches that may hold data."""
    at = 0
    while at < size:
        try:
            start = os.lseek(fd, at, os.SEEK_DATA)
        except OSError:
            return
        at = os.lseek(fd, start, os.SEEK_HOLE)
        yield start, at


def content(name, size):
    """A digest of the blocks that are not all zeros, whether they are holes or not."""
    digest = hashlib.sha256()
    fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW)
    for start, end in extents(fd, size):
        for at in range(start // BLOCK * BLOCK, end, BLOCK):
            block = os.pread(fd, BLOCK, at)
            if block.strip(b"\0"):
                digest.update(b"%d " % at + block)
    os.close(fd)
    return digest.hexdigest()


def describe_one(name, path, inodes):
    info = os.lstat(name)
    kind = stat.S_IFMT(info.st_mode)
    line = {"path": path.decode("latin-1"), "kind": kind, "mode": stat.S_IMODE(info.st_mode), "owner": [info.st_uid, info.st_gid],
            "mtime": info.st_mtime_ns}
    if kind == stat.S_IFSOCK:
        return None
    if kind in (stat.S_IFCHR, stat.S_IFBLK):
        line["device"] = info.st_rdev
    if kind == stat.S_IFLNK:
        line["target"] = os.readlink(name).decode("latin-1")
    if kind != stat.S_IFDIR:
        line["first name"] = inodes.setdefault((info.st_dev, info.st_ino), path).decode("latin-1")
        line["names"] = info.st_nlink
    line["xattrs"] = {x: os.getxattr(name, x, follow_symlinks=False).hex() for x in os.listxattr(name, follow_symlinks=False)}
    if kind == stat.S_IFREG:
        line["size"] = info.st_size
        line["content"] = content(name, info.st_size)
        # Blocks of zeros may become holes, but no hole may become data.
        line["mostly holes"] = info.st_blocks * 512 < info.st_size / 2 or line["content"] == NOTHING
    return line


def describe(directory):
    """By chdir, so that no path is too long and no recursion too deep."""
    os.chdir(directory)
    inodes, path = {}, b"."
    print(json.dumps(describe_one(b".", b".", inodes), sort_keys=True))
    pending = [sorted(os.listdir(b"."), reverse=True)]
    while pending:
        if not pending[-1]:
            pending.pop()
            if pending:
                os.chdir("..")
                path = path.rpartition(b"/")[0]
            continue
        name = pending[-1].pop()
        below = path + b"/" + name
        line = describe_one(name, below, inodes)
        if line is None:
            continue
        print(json.dumps(line, sort_keys=True))
        if line["kind"] == stat.S_IFDIR:
            os.chdir(name)
            path = below
            pending.append(sorted(os.listdir(b"."), reverse=True))


if __name__ == "__main__":
    command, target = sys.argv[1:3]
    {"make": make, "describe": describe, "deep": deep, "wide": wide}[command](target, *map(int, sys.argv[3:]))
