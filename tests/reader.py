#!/usr/bin/env python3
"""An independent reader of btw-backup stores, written from ARCHITECTURE.md alone (4.x below are its sections).

  reader.py list STORE           a line for each version, oldest first: vSEQ, time (UTC), kind (full or increment), how it
                                 is stored (whole, delta, both, archive), number of members, bytes of its tar stream
  reader.py tar STORE vSEQ       the version's tar stream on stdout
  reader.py members STORE vSEQ   a line for each member in order: kind, octal mode, uid, gid, size, mtime, path (as Python's bytes)
  reader.py check STORE          states, names of files, pages, frames, deltas, archives, and each member's data against the
                                 catalog, for all versions; says what is wrong. Not: tar headers, staging, the scan cache.
Exit code: 0, or 1 if anything is wrong. Needs Python 3.11 and `zstd`. Streams are held in memory, and BLAKE3 is slow here
(0.7 MB/s): for tests and small stores.
"""
import functools, hashlib, os, re, struct, subprocess, sys
from collections import namedtuple

BLOCK = 65536
KINDS = ["regular", "directory", "symlink", "hardlink", "char", "block", "fifo", "absent"]
REGULAR, ABSENT = 0, 7
STREAM = 2  # a flag
Version = namedtuple("Version", "where seq time kind stream size bytes members pack catalog whole archive manifest deltas stored")
Page = namedtuple("Page", "level pack offset stored raw digest items bytes first")
Slice = namedtuple("Slice", "object offset stored raw digest skip take")
Member = namedtuple("Member", "path kind flags mode uid gid user group seconds nanoseconds link device xattrs size header digest")

class Bad(Exception):
    pass

def need(condition, where, what):
    if not condition:
        raise Bad(f"{where}: {what}")

# BLAKE3 ---------------------------------------------------------------------------------------------------------------
IV = (0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19)
ORDER = (2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8)
COLUMNS = (0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15)
DIAGONALS = (0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14)
START, END, PARENT, ROOT, CONTEXT, MATERIAL = 1, 2, 4, 8, 32, 64

def compress(value, block, counter, flags):
    m = struct.unpack("<16I", block.ljust(64, b"\0"))
    v = [*value, *IV[:4], counter & 0xFFFFFFFF, counter >> 32, len(block), flags]
    for _ in range(7):
        for i, (a, b, c, d) in enumerate(COLUMNS + DIAGONALS):
            va, vb, vc, vd = v[a], v[b], v[c], v[d]
            for word, first, second in (m[2 * i], 16, 12), (m[2 * i + 1], 8, 7):
                va = va + vb + word & 0xFFFFFFFF
                vd ^= va
                vd = (vd >> first | vd << 32 - first) & 0xFFFFFFFF
                vc = vc + vd & 0xFFFFFFFF
                vb ^= vc
                vb = (vb >> second | vb << 32 - second) & 0xFFFFFFFF
            v[a], v[b], v[c], v[d] = va, vb, vc, vd
        m = [m[i] for i in ORDER]
    return [v[i] ^ v[i + 8] for i in range(8)]

def subtree(data, chunk, key, flags, root):
    if len(data) > 1024:
        left = 1024 << ((len(data) - 1) // 1024).bit_length() - 1  # bytes in the left child: a power of two of chunks
        halves = subtree(data[:left], chunk, key, flags, 0) + subtree(data[left:], chunk + left // 1024, key, flags, 0)
        return compress(key, struct.pack("<16I", *halves), 0, flags | PARENT | root)
    value, last = key, max(len(data) - 1, 0) // 64
    for i in range(last + 1):
        ends = (START if i == 0 else 0) | (END | root if i == last else 0)
        value = compress(value, data[i * 64 : i * 64 + 64], chunk, flags | ends)
    return value

@functools.cache
def blake3(data, context=None):
    key, flags = (subtree(context, 0, IV, CONTEXT, ROOT), MATERIAL) if context else (IV, 0)
    return struct.pack("<8I", *subtree(data, 0, key, flags, ROOT)).hex()

# Text: 4.2 to 4.4 -----------------------------------------------------------------------------------------------------
class Lines:
    """Lines of words in a fixed order. A line is asked for by its first word and by a letter for each other: n number, w word."""

    def __init__(self, text, where):
        need(text.isascii() and (not text or text.endswith(b"\n")), where, "not lines of ASCII text")
        self.lines, self.where = [line.split(" ") for line in text.decode().split("\n")[:-1]], where

    def take(self, name, letters):
        first, *words = self.lines.pop(0) if self.lines else [None]
        sound = all(word.isdecimal() for word, letter in zip(words, letters) if letter == "n")
        need(first == name and len(words) == len(letters) and sound, self.where, f"no line `{name}`, or not a sound one")
        return [int(word) if letter == "n" else word for word, letter in zip(words, letters)]

    def take_all(self, name, letters):
        found = []
        while self.lines and self.lines[0][0] == name:
            found.append(self.take(name, letters))
        return found

PAGE = "nwnnnwnnw"  # 4.4

def parse_page(words, where, own_pack="-"):
    page = Page(*words)
    pack = own_pack if page.pack == "-" else page.pack
    need(pack != "-", where, "a page without a pack")
    first = re.sub(rb"%(..)", lambda found: bytes([int(found[1], 16)]), page.first.encode())
    return page._replace(pack=pack, first=b"" if page.first == "-" else first)

def parse_versions(lines):
    """Groups of lines, to the end of a state or version file: 4.3."""
    found = []
    pattern = r"time=(\S+) kind=(\S+) stream=(tar|raw) size=(\d+) bytes=(\d+) members=(\d+) problems=\d+ added=\d+ pack=(\S+)"
    while lines.lines:
        seq, *fields = lines.take("version", "nwwwwwwwww")
        where, match = f"{lines.where}: v{seq}", re.fullmatch(pattern, " ".join(fields))
        need(match, where, "not the fields of a version")
        time, kind, stream, size, length, members, pack = match.groups()
        catalog = parse_page(lines.take("catalog", PAGE), where)
        whole, archive = lines.take_all("whole", "n"), lines.take_all("archive", "w")  # an archive is whole, too
        manifest = parse_page(lines.take("manifest", PAGE), where) if whole else None  # only of what is whole
        deltas = lines.take_all("delta", "wnn")
        need(manifest or deltas, where, "is neither whole nor a delta")
        stored = "archive" if archive else "both" if whole and deltas else "whole" if whole else "delta"
        found.append(Version(where, seq, time, kind, stream, int(size), int(length), int(members), pack, catalog,
                             whole[0][0] if whole else None, archive[0][0] if archive else None, manifest, deltas, stored))
    return found

# Records of catalogs: 4.6 ---------------------------------------------------------------------------------------------
class Decoder:
    def __init__(self, data, where):
        self.data, self.where, self.at = data, where, 0

    def take(self, count):
        need(self.at + count <= len(self.data), self.where, "cut off")
        self.at += count
        return self.data[self.at - count : self.at]

    def u8(self):
        return self.take(1)[0]

    def number(self):
        first = self.u8()
        need(first < 255, self.where, "not a number")
        if first < 251:
            return first
        value = int.from_bytes(self.take(2 << first - 251), "little")
        need(value >= (251, 1 << 16, 1 << 32, 1 << 64)[first - 251], self.where, "a number that is not in its shortest form")
        return value

    def signed(self):
        value = self.number()
        return -(value + 1) // 2 if value & 1 else value // 2

    def bytes(self):
        return self.take(self.number())

    def list(self, element):
        return [element() for _ in range(self.number())]

    def member(self):
        u8, number, bytes = self.u8, self.number, self.bytes  # arguments are evaluated in order
        return Member(path=bytes(), kind=u8(), flags=u8(), mode=number(), uid=number(), gid=number(), user=bytes(), group=bytes(),
                      seconds=self.signed(), nanoseconds=number(), link=bytes(), device=(number(), number()),
                      xattrs=self.list(lambda: (bytes(), bytes())), size=number(), header=number(), digest=self.take(32).hex())

    def cut(self):
        """A block of a raw stream: length, digest."""
        return self.number(), self.take(32).hex()

    def blocks(self):
        """The number of a region, and its runs of blocks: number of the first within the region, digests."""
        return self.number(), self.list(lambda: (self.u8(), self.list(lambda: self.take(32).hex())))

# Sparse maps and times: 4.8 -------------------------------------------------------------------------------------------
def sparse_map(runs, size):
    entries = [(first * BLOCK, min(len(digests) * BLOCK, size - first * BLOCK)) for first, digests in runs]
    if not entries or sum(entries[-1]) < size:
        entries.append((size, 0))
    text = f"{len(entries)}\n" + "".join(f"{offset}\n{length}\n" for offset, length in entries)
    return text.encode() + bytes(-len(text) % 512)

def decimal(seconds, nanoseconds):
    total = abs(seconds * 10**9 + nanoseconds)
    return f"{'-' if seconds < 0 else ''}{total // 10**9}.{total % 10**9:09}"

# Deltas: 4.7 ----------------------------------------------------------------------------------------------------------
def patch(newer, script, where, is_first, is_last):
    """What the commands of one frame make of the newer version's stream."""
    decoder, pieces, ended = Decoder(script, where), [], False
    need(not is_first or decoder.take(4) == b"rs\x026", where, "not a librsync delta")
    while decoder.at < len(script):
        need(not ended, where, "commands behind END")
        command = decoder.u8()
        number = lambda power: int.from_bytes(decoder.take(1 << power), "big")
        if command == 0:
            ended = True
            continue
        elif command <= 0x44:
            length = command if command <= 0x40 else number(command - 0x41)
            pieces.append(decoder.take(length))
        else:
            need(command <= 0x54, where, "unknown command")
            offset, length = number((command - 0x45) // 4), number((command - 0x45) % 4)
            need(offset + length <= len(newer), where, "a copy from behind the end of the newer stream")
            pieces.append(newer[offset : offset + length])
        need(length > 0, where, "a command of length 0")
    need(ended == is_last, where, "END is missing, or not at the end")
    return b"".join(pieces)

# The store ------------------------------------------------------------------------------------------------------------
class Store:
    def __init__(self, root, verify=False):
        self.root, self.verify = root, verify
        states = [name for name in self.names("state") if re.fullmatch("[0-9]{10,}", name)]
        need(states, root, "no state")
        self.versions, self.keep, self.retained = self.read_state(max(states, key=int))

    def names(self, area):
        return sorted(name for name in os.listdir(f"{self.root}/{area}") if not name.startswith("tmp-"))

    def read(self, path, offset=0, length=None):
        with open(f"{self.root}/{path}", "rb") as file:
            file.seek(offset)
            data = file.read(length)
        need(length in (None, len(data)), path, "cut off")
        return data

    @functools.lru_cache(maxsize=64)
    def frame(self, path, offset, stored, raw):
        done = subprocess.run(["zstd", "-dcq"], input=self.read(path, offset, stored), capture_output=True)
        need(done.returncode == 0 and len(done.stdout) == raw, path, f"the frame at {offset} is not one, or has not {raw} bytes")
        return done.stdout

    def read_state(self, name):
        data, path = self.read(f"state/{name}"), f"state/{name}"
        body, last = data[:-72], data[-72:]
        need(last == f"sha256 {hashlib.sha256(body).hexdigest()}\n".encode(), path, "wrong checksum")
        lines = Lines(body, path)
        need(lines.take("btw-backup", "wn") == ["state", 1], path, "a format that this reader does not know")
        need(lines.take("number", "n") == [int(name)], path, "another number than its name")
        for word in ("time", "store", "host", "source"):
            lines.take(word, "w")
        following, versions = lines.take("next", "n")[0], []
        retained, keep = lines.take_all("retain", "nw"), lines.take_all("keep", "w")
        lines.take_all("pin", "nw")
        for name, first, last in lines.take_all("versions", "wnn"):
            found = parse_versions(Lines(self.read(f"versions/{name}"), f"versions/{name}"))
            need(found and (found[0].seq, found[-1].seq) == (first, last), f"versions/{name}", f"not the versions that {path} says")
            versions += found
        versions += parse_versions(lines)
        seqs = [version.seq for version in versions]
        need(seqs == sorted(set(seqs)) and following > max(seqs, default=0), path, "sequence numbers do not ascend")
        need(not versions or versions[-1].stored in ("whole", "archive"), path, "the newest version is not whole")
        return versions, [pack for pack, in keep], [number for number, _ in retained]

    def leaves(self, area, page):
        """The leaves below a page, in order: page, its bytes, where it is. 4.4."""
        path, where = f"{area}/{page.pack}", f"{area}/{page.pack}: page at {page.offset}"
        raw = self.frame(path, page.offset, page.stored, page.raw)
        if page.level == 0:
            need(blake3(raw) == page.digest, where, "wrong digest")
            return [(page, raw, where)]
        lines = Lines(raw, where)
        children = [parse_page(words, where, page.pack) for words in lines.take_all("page", PAGE)]
        need(children and not lines.lines and {child.level for child in children} == {page.level - 1}, where, "not an inner page")
        identity = bytes([page.level])
        for child in children:
            identity += bytes.fromhex(child.digest) + struct.pack("<QQI", child.items, child.bytes, len(child.first)) + child.first
        need(blake3(identity, b"btw-backup 2026-11-20 inner page") == page.digest, where, "wrong digest")
        sums = sum(child.items for child in children), sum(child.bytes for child in children), children[0].first
        need(sums == (page.items, page.bytes, page.first), where, "other sums or another first key than its children")
        return [leaf for child in children for leaf in self.leaves(area, child)]

    def slices(self, version):
        """The manifest of a whole version: 4.5."""
        found = []
        for page, raw, where in self.leaves("manifests", version.manifest):
            lines, frames, slices = Lines(raw, where), [], []
            while lines.lines:
                for number, *frame in lines.take_all("frame", "nwnnnw"):
                    need(number == len(frames), where, "frames are not in order")
                    frames.append(frame)
                number, skip, take = lines.take("slice", "nnn")
                need(number < len(frames) and 0 < take <= frames[number][3] - skip, where, "a slice outside of its frame")
                slices.append(Slice(*frames[number], skip, take))
            need((len(slices), sum(piece.take for piece in slices)) == (page.items, page.bytes), where, "other sums than said")
            found += slices
        return found

    def whole(self, version):
        """The stream of a whole version or an archive."""
        pieces = []
        for piece in self.slices(version):
            path = version.archive or f"objects/{piece.object}"
            raw = self.frame(path, piece.offset, piece.stored, piece.raw)
            need(not self.verify or blake3(raw) == piece.digest, path, f"frame at {piece.offset}: wrong digest")
            pieces.append(raw[piece.skip : piece.skip + piece.take])
        return b"".join(pieces)

    def patched(self, version, newer):
        """The stream of a version by its delta files, from that of the next newer version: 4.7."""
        frames, pieces = [], []
        for name, output, length in version.deltas:
            path, data = f"deltas/{name}", self.read(f"deltas/{name}")
            need(len(data) == length and data[-9:] == b"\1btwdelta", path, "has another length, or no index")
            count = int.from_bytes(data[-13:-9], "little")
            index, head = data[-(21 + 16 * count) :], struct.pack("<II", 0x184D2A5B, 16 * count + 13)
            need(len(index) == 21 + 16 * count and index[:8] == head, path, "not an index")
            offset = made = 0
            for stored, raw, gives in struct.iter_unpack("<IIQ", index[8:-13]):
                frames.append((path, offset, stored, raw, gives))
                offset, made = offset + stored, made + gives
            need((offset + len(index), made) == (length, output), path, "its index has other sums")
        for i, (path, offset, stored, raw, gives) in enumerate(frames):
            script, where = self.frame(path, offset, stored, raw), f"{path}: frame at {offset}"
            pieces.append(patch(newer, script, where, i == 0, i == len(frames) - 1))
            need(len(pieces[-1]) == gives, where, "gives another length than said")
        return b"".join(pieces)

    def stream(self, version):
        """Of the nearest version that is whole, then from delta to delta back to this one."""
        newer = self.versions[self.versions.index(version) :]
        steps = next(i for i, other in enumerate(newer) if other.manifest)
        stream = self.whole(newer[steps])
        for older in reversed(newer[:steps]):
            stream = self.patched(older, stream)
        need(len(stream) == version.bytes, version.where, "its stream has another length than said")
        return stream

    def members(self, version):
        """The catalog: each member with its runs of blocks (number of the first block, digests). 4.6."""
        found = []
        for page, raw, where in self.leaves("catalogs", version.catalog):
            decoder, count = Decoder(raw, where), 0
            need(decoder.take(5) == b"btwc\1", where, "not a leaf of a catalog")
            while decoder.at < len(raw):
                record = decoder.number()
                if record == 0:
                    member, runs = decoder.member(), []
                    need(member.kind <= ABSENT and member.flags < 4, where, f"{member.path} is not a member")
                    found.append((member, runs))
                    key = member.path
                elif record == 2:
                    need(found and member.flags & STREAM, where, "a cut of no raw stream")
                    runs.append(decoder.cut())
                    key = member.path + bytes(9)
                else:
                    need(found, where, "blocks of no member")
                    region, new = decoder.blocks()
                    key = member.path + b"\0" + region.to_bytes(8, "big")
                    for number, digests in new:
                        number += region * 256
                        if runs and runs[-1][0] + len(runs[-1][1]) == number:
                            runs[-1][1].extend(digests)
                        else:
                            runs.append((number, digests))
                count += 1
                need(count > 1 or key == page.first, where, "another first key than said")
            need(count == page.items, where, "another number of records than said")
        paths = [member.path.replace(b"/", b"\0") for member, _ in found]
        need(paths == sorted(set(paths)), version.where, "its members are not in path order")
        return found

# Check ----------------------------------------------------------------------------------------------------------------
def check_name(store, path, digest):
    need(blake3(store.read(path)) == digest, path, "its bytes have another digest than its name")

def check_archive(store, path, version, digests):
    """Name, digest and seek table: 4.9."""
    data = store.read(path)
    need(path == version.time.replace(":", "-") + ".tar.zst", version.where, "its archive has another time in its name")
    need(digests == {blake3(data)}, path, "its bytes have another digest than the manifest names")
    count = int.from_bytes(data[-9:-5], "little")
    table, head = data[-(17 + 8 * count) :], struct.pack("<II", 0x184D2A5E, 8 * count + 9)
    need(table[:8] == head and table[-5:] == struct.pack("<BI", 0, 0x8F92EAB1), path, "no seek table")
    sums = [sum(column) for column in zip(*struct.iter_unpack("<II", table[8:-9]))]
    need(sums == [len(data) - len(table), version.bytes], path, "the seek table has other sums")

def check_whole(store, version):
    slices = store.slices(version)
    stored = sum({(piece.object, piece.offset): piece.stored for piece in slices}.values())
    need(stored == version.whole, version.where, "its frames have another sum of lengths")
    if version.archive:
        check_archive(store, version.archive, version, {piece.object for piece in slices})

def check_member(member, runs, stream, at, where):
    """Says where in the stream the member ends: 4.6."""
    if member.kind == ABSENT:
        return at
    if member.flags & STREAM:
        identity = b""
        for length, digest in runs:
            need(length > 0 and blake3(stream[at : at + length]) == digest, where, f"the cut at {at} has another digest")
            at, identity = at + length, identity + struct.pack("<I", length) + bytes.fromhex(digest)
        need(blake3(identity, b"btw-backup 2026-11-21 stream content") == member.digest, where, "wrong digest")
        need((at, member.header) == (member.size, 0), where, "has another size than said")
        return at
    at, identity = at + member.header, b""
    begin = at
    if member.kind == REGULAR and member.size > BLOCK:
        if sum(len(digests) for _, digests in runs) < -(-member.size // BLOCK):
            at += len(sparse_map(runs, member.size))
            need(stream[begin:at] == sparse_map(runs, member.size), where, "another map in the stream")
        identity = struct.pack("<Q", member.size)
        for first, digests in runs:
            identity += struct.pack("<QQ", first, len(digests)) + bytes.fromhex("".join(digests))
            for number, digest in enumerate(digests, first):
                block = stream[at : at + min(BLOCK, member.size - number * BLOCK)]
                need(blake3(block) == digest and block != bytes(BLOCK), where, f"block {number} has another digest, or is a hole")
                at += len(block)
        need(blake3(identity, b"btw-backup 2026-11-20 file content") == member.digest, where, "wrong digest")
    else:
        at += member.size if member.kind == REGULAR else 0  # others have no data, and the digest of none
        need(blake3(stream[begin:at]) == member.digest, where, "wrong digest")
    end = at + (begin - at) % 512
    need(stream[at:end] == bytes(end - at), where, "the padding is not zeros")
    return end

def check_catalog(store, version, stream):
    members, at = store.members(version), 0
    for member, runs in members:
        at = check_member(member, runs, stream, at, f"{version.where}: {member.path}")
    need(version.catalog.bytes == at and stream[at:] == bytes(1024 if version.stream == "tar" else 0), version.where, "does not end behind its last member")
    count = sum(member.kind != ABSENT for member, _ in members)
    size = sum(member.size for member, _ in members if member.kind == REGULAR)
    need((count, size) == (version.members, version.size), version.where, "has other members than said")

def check_version(attempt, store, version, newer):
    """Checks how a version is held, and its members; gives its stream."""
    streams = []
    if version.manifest:
        attempt(check_whole, store, version)
        streams.append(attempt(store.whole, version))
    if version.deltas and newer is not None:
        streams.append(attempt(store.patched, version, newer))
    streams = [stream for stream in streams if stream is not None]
    need(streams, version.where, "its stream cannot be made")
    same = all(stream == streams[0] and len(stream) == version.bytes for stream in streams)
    need(same, version.where, "its stream has another length than said, or is not that of its delta")
    attempt(check_catalog, store, version, streams[0])
    return streams[0]

def check(root):
    wrong = []

    def attempt(what, *arguments):
        try:
            return what(*arguments)
        except (Bad, OSError, ValueError) as error:
            wrong.append(error)
            print(error)

    store = attempt(Store, root, True)
    if store:
        for area in ("objects", "manifests", "catalogs", "deltas", "versions"):
            for name in attempt(store.names, area) or []:
                attempt(check_name, store, f"{area}/{name}", name)
        for pack in store.keep + [version.pack for version in store.versions if version.pack != "-"]:
            attempt(store.read, f"catalogs/{pack}")
        for number in store.retained:
            attempt(store.read_state, f"{number:010}")
        stream = None
        for version in reversed(store.versions):
            stream = attempt(check_version, attempt, store, version, stream)
    return 1 if wrong else 0

def main(verb, root, which=None):
    if verb == "check":
        return check(root)
    store = Store(root)
    version = next((version for version in store.versions if f"v{version.seq}" == which), None)
    need(version or verb == "list", root, f"no version {which}")
    if verb == "list":
        for v in store.versions:
            print(f"v{v.seq}", v.time, v.kind, v.stored, v.members, v.bytes)
    elif verb == "tar":
        sys.stdout.buffer.write(store.stream(version))
    elif verb == "members":
        for m, _ in store.members(version):
            print(KINDS[m.kind], f"{m.mode:04o}", m.uid, m.gid, m.size, decimal(m.seconds, m.nanoseconds), m.path)
    return 0

if __name__ == "__main__":
    if len(sys.argv) - 1 != {"list": 2, "check": 2, "tar": 3, "members": 3}.get(sys.argv[1] if len(sys.argv) > 1 else ""):
        sys.exit(__doc__)
    try:
        sys.exit(main(*sys.argv[1:]))
    except (Bad, OSError, ValueError) as error:
        sys.exit(f"reader.py: {error}")
