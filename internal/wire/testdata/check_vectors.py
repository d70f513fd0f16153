#!/usr/bin/env python3
"""Checks vectors.json with a second implementation, written from SPEC.md.

Usage: check_vectors.py vectors.json. Python 3.8, standard library only. Every
message is decoded and compared field by field, encoded again from its fields and
compared byte by byte; every malformed one must give the error that it names.
"""
import hashlib
import json
import struct
import sys

MAX_SIZE = (1 << 48) - 1
NAMES = ["PADDING", "DATA", "ACK", "HELLO", "OFFER", "ACCEPT", "RESUME", "FIN", "RECEIPT", "REJECT", "CANCEL", "PING",
         "CLOSE", "RESET", "VERSIONS", "HANDSHAKE", "RETRY", "TOKEN", "PATH_CHALLENGE", "PATH_RESPONSE", "PARITY"]
RESERVED = {"HANDSHAKE", "RETRY", "TOKEN"}

# Fields of the bodies: a number of bytes is an integer, "id" and "token" are 16
# bytes, "random" is an integer written in hexadecimal, "rest" and "text" are what is left.
LAYOUT = {
    "PADDING": [("body", "rest")],
    "PING": [("body", "rest")],
    "HELLO": [("maxMessage", 4), ("window", 4), ("messages", 2), ("ackRanges", 2), ("transfers", 2), ("metadata", 2),
              ("messageBytes", 4), ("reorder", 4), ("idleMillis", 4), ("instance", "random"), ("resetToken", "token"),
              ("repairs", "fields")],
    "OFFER": [("handle", 2), ("attempt", 4), ("id", "token"), ("oldest", "random"), ("kind", 1), ("flags", 1),
              ("algorithm", 1), ("size", "size"), ("metaSize", 2), ("metaOffset", 2), ("meta", "rest")],
    "ACCEPT": [("handle", 2), ("attempt", 4), ("held", 4), ("first", 4), ("digestLength", 1), ("digests", "rest")],
    "RESUME": [("handle", 2), ("attempt", 4), ("first", 4), ("count", 2), ("agree", "bits")],
    "FIN": [("handle", 2), ("attempt", 4), ("size", 8), ("algorithm", 1), ("digest", "rest")],
    "RECEIPT": [("handle", 2), ("attempt", 4), ("id", "token"), ("level", 1), ("flags", 1), ("bytes", 8),
                ("algorithm", 1), ("digest", "rest")],
    "REJECT": [("handle", 2), ("attempt", 4), ("id", "token"), ("reason", 1), ("flags", 1), ("afterMillis", 4),
               ("text", "text")],
    "CANCEL": [("handle", 2), ("attempt", 4), ("reason", 1)],
    "CLOSE": [("code", 1), ("text", "text")],
    "RESET": [("dest", "random"), ("number", 4), ("token", "token")],
    "VERSIONS": [("spoken", "rest")],
    "PARITY": [("handle", 2), ("size", 4), ("count", 1), ("index", 1), ("symbol", "rest")],
    "PATH_CHALLENGE": [("data", "random")],
    "PATH_RESPONSE": [("data", "random")],
}


class Bad(Exception):
    """A message that must not be obeyed: the name of the code, and the frame."""

    def __init__(self, error, frame=None):
        super().__init__(error, frame)
        self.error, self.frame = error, frame


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


class Reader:
    def __init__(self, data, frame):
        self.data, self.at, self.frame = data, 0, frame

    def left(self):
        return len(self.data) - self.at

    def bytes(self, n):
        if n > self.left():
            raise Bad("truncated", self.frame)
        self.at += n
        return self.data[self.at - n:self.at]

    def uint(self, n):
        return int.from_bytes(self.bytes(n), "little")

    def varint(self):
        value = shift = 0
        while True:
            byte = self.uint(1)
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7

    def fields(self):
        while self.left():
            kind = self.uint(1)
            yield kind, self.bytes(self.uint(2))

    def end(self):
        if self.left():
            raise Bad("malformed", self.frame)


def must(condition, frame):
    if not condition:
        raise Bad("malformed", frame)


def type_name(kind):
    return NAMES[kind] if kind < len(NAMES) else "0x%02x" % kind


def decode_body(name, body):
    r, frame = Reader(body, name), {"type": name}
    if name == "DATA":
        frame["handle"], frame["offset"] = r.uint(2), r.uint(6)
        frame["payload"] = r.bytes(r.left()).hex()
        must(frame["offset"] + len(body) - 8 <= MAX_SIZE, name)
        return frame
    if name == "ACK":
        return decode_ack(r, frame)
    for field, size in LAYOUT.get(name, [("body", "rest")]):
        if size == "token":
            frame[field] = r.bytes(16).hex()
        elif size == "random":
            frame[field] = "%016x" % r.uint(8)
        elif size == "rest":
            frame[field] = r.bytes(r.left()).hex()
        elif size == "text":
            must(r.left() <= 1024, name)
            frame[field] = r.bytes(r.left()).decode("utf-8", "replace")
        elif size == "bits":
            frame[field] = r.bytes((frame["count"] + 7) // 8).hex()
        elif size == "size":
            n = r.uint(8)
            frame[field] = -1 if n == (1 << 64) - 1 else n
        elif size == "fields":
            frame[field] = 0
            for kind, value in r.fields():
                if kind < 0x80:
                    raise Bad("unknown", name)
                if kind == 0x80:
                    must(len(value) == 4, name)
                    frame[field] = int.from_bytes(value, "little")
        else:
            frame[field] = r.uint(size)
    r.end()
    check(name, frame)
    return frame


def check(name, f):
    if name == "HELLO":
        must(f["maxMessage"] >= 256 and f["ackRanges"] >= 1, name)
    elif name == "OFFER":
        must(int(f["id"], 16) != 0 and f["size"] <= MAX_SIZE, name)
        must(f["metaOffset"] + len(f["meta"]) // 2 <= f["metaSize"], name)
    elif name == "ACCEPT":
        length, total = f["digestLength"], len(f["digests"]) // 2
        must(length <= 32 and (total % length == 0 if length else total == 0), name)
        run = total // length if length else 0
        must((run == 0) == (f["held"] == 0) and run <= f["held"], name)
        must(f["first"] + run <= 1 << 28, name)
    elif name == "RESUME":
        bits = int.from_bytes(bytes.fromhex(f["agree"]), "little")
        must(f["count"] > 0 and bits >> f["count"] == 0, name)
    elif name in ("FIN", "RECEIPT"):
        must(f.get("size", f.get("bytes")) <= MAX_SIZE, name)
        must(1 <= len(f["digest"]) // 2 <= 32, name)
        must(f.get("level", 3) in (2, 3), name)
    elif name == "PARITY":
        length = len(f["symbol"]) // 2
        must(length and f["size"] and f["index"] < f["count"], name)
        must(-(-f["size"] // length) + f["count"] <= 256, name)
    elif name == "VERSIONS" and not f["spoken"]:
        raise Bad("truncated", name)


def decode_ack(r, frame):
    frame["largest"], frame["delay"] = r.uint(4), r.uint(2)
    frame["window"], frame["messages"], more = r.uint(4), r.uint(2), r.uint(1)
    frame["ranges"], top, span = [], frame["largest"], 0

    def count():
        nonlocal span
        n = r.varint()
        span += n
        must(n >= 1 and span <= 1 << 31, "ACK")
        return n

    for i in range(more + 1):
        if i:
            top -= count()
        length = count()
        frame["ranges"].append([top - length + 1, top])
        top -= length
    r.end()
    return frame


def before_payload(msg, at):
    """Where DATA's payload begins: a CRC over an ordered reliable link is of what is before it."""
    end = len(msg) - 4
    while at + 3 <= end and msg[at] != 1:
        at += 3 + int.from_bytes(msg[at + 1:at + 3], "little")
    return at + 9 if at + 9 <= end and msg[at] == 1 else end


def decode(msg, reliable=False):
    if len(msg) < 17:
        raise Bad("truncated")
    flags, dest, number = struct.unpack_from("<BQI", msg)
    header = {"long": bool(flags & 0x80), "dest": "%016x" % dest, "number": number, "version": 0, "source": "0" * 16}
    start = 13
    if header["long"]:
        if len(msg) < 26:
            raise Bad("truncated")
        version, source = struct.unpack_from("<BQ", msg, 13)
        header["version"], header["source"] = version, "%016x" % source
        if version > 1:
            raise Bad("version")
        start = 22
    if flags & 0x7F:
        raise Bad("malformed")
    covered = before_payload(msg, start) if reliable else len(msg) - 4
    if crc32c(msg[:covered]) != int.from_bytes(msg[-4:], "little"):
        raise Bad("checksum")
    frames, rest = [], msg[start:-4]
    while rest:
        name = type_name(rest[0])
        if name == "DATA":
            body, rest = rest[1:], b""
        else:
            if rest[0] < 0x80 and (name in RESERVED or rest[0] >= len(NAMES)):
                raise Bad("unknown", name)
            r = Reader(rest[1:], name)
            body = r.bytes(r.uint(2))
            rest = rest[3 + len(body):]
        frames.append(decode_body(name, body))
    return header, frames


def varint(n):
    out = b""
    while n >= 0x80:
        out += bytes([n & 0x7F | 0x80])
        n >>= 7
    return out + bytes([n])


def encode_body(name, f):
    if name == "DATA":
        return f["handle"].to_bytes(2, "little") + f["offset"].to_bytes(6, "little") + bytes.fromhex(f["payload"])
    if name == "ACK":
        ranges = f["ranges"]
        out = struct.pack("<IHIHB", f["largest"], f["delay"], f["window"], f["messages"], len(ranges) - 1)
        for i, (first, last) in enumerate(ranges):
            out += (varint(ranges[i - 1][0] - last - 1) if i else b"") + varint(last - first + 1)
        return out
    out = b""
    for field, size in LAYOUT.get(name, [("body", "rest")]):
        if size in ("token", "rest", "bits"):
            out += bytes.fromhex(f[field])
        elif size == "random":
            out += int(f[field], 16).to_bytes(8, "little")
        elif size == "text":
            out += f[field].encode()
        elif size == "size":
            out += (f[field] & (1 << 64) - 1).to_bytes(8, "little")
        elif size != "fields":
            out += f[field].to_bytes(size, "little")
        elif f[field]:
            out += b"\x80\x04\x00" + f[field].to_bytes(4, "little")
    return out


def encode(header, frames, reliable=False):
    out = struct.pack("<BQI", 0x80 if header["long"] else 0, int(header["dest"], 16), header["number"])
    if header["long"]:
        out += struct.pack("<BQ", header["version"], int(header["source"], 16))
    for f in frames:
        name, body = f["type"], encode_body(f["type"], f)
        out += bytes([NAMES.index(name) if name in NAMES else int(name, 16)])
        out += body if name == "DATA" else len(body).to_bytes(2, "little") + body
    covered = before_payload(out + bytes(4), 22 if header["long"] else 13) if reliable else len(out)
    return out + crc32c(out[:covered]).to_bytes(4, "little")


TEXTS = {1: "image", 2: "mediaType", 3: "source", 6: "messageType"}


def decode_metadata(data):
    m = {"image": "", "mediaType": "", "source": "", "captured": 0, "pairs": None, "messageType": ""}
    seen = set()
    for kind, value in Reader(data, None).fields():
        if kind in (1, 2, 3, 4, 6):
            must(kind not in seen, None)
            seen.add(kind)
        if kind in TEXTS:
            m[TEXTS[kind]] = value.decode()
        elif kind == 4:
            r = Reader(value, None)
            m["captured"] = struct.unpack("<q", r.bytes(8))[0]
            r.end()
        elif kind == 5:
            r = Reader(value, None)
            key = r.bytes(r.uint(2)).decode()
            m["pairs"] = m["pairs"] or {}
            must(key not in m["pairs"], None)
            m["pairs"][key] = r.bytes(r.left()).decode()
        elif kind < 0x80:
            raise Bad("unknown")
    return m


def expand(truncated, largest):
    candidates = [truncated + (((largest + 1) >> 32) + d << 32) for d in (-1, 0, 1)]
    return min((abs(c - largest - 1), -c) for c in candidates if c >= 0)[1] * -1


def root(algorithm, content):
    new = {2: hashlib.sha256}[algorithm]
    blocks = [new(content[i:i + (1 << 20)]).digest() for i in range(0, len(content), 1 << 20)]
    return new(b"".join(blocks) + len(content).to_bytes(8, "little")).hexdigest()


def error_of(f, *args):
    try:
        f(*args)
    except Bad as bad:
        return bad.error, bad.frame
    return None, None


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        vectors = json.load(file)
    failures = checks = 0

    def expect(name, got, want):
        nonlocal failures, checks
        checks += 1
        if got != want:
            failures += 1
            print("FAIL %s:\n  got  %s\n  want %s" % (name, got, want))

    expect("CRC32C of 123456789", crc32c(b"123456789"), 0xE3069283)
    for v in vectors["messages"]:
        msg = bytes.fromhex(v["hex"])
        try:
            header, frames = decode(msg)
        except Bad as bad:
            expect(v["name"], bad, None)
            continue
        expect(v["name"], (header, frames), (v["header"], v["frames"]))
        expect(v["name"] + ", reliable", decode(bytes.fromhex(v["reliable"]), True), (header, frames))
        if v["canonical"]:
            expect(v["name"] + ", encoded", encode(v["header"], v["frames"]).hex(), v["hex"])
            expect(v["name"] + ", encoded, reliable", encode(v["header"], v["frames"], True).hex(), v["reliable"])
    for v in vectors["malformed"]:
        expect(v["name"], error_of(decode, bytes.fromhex(v["hex"])), (v["error"], v.get("frame")))
    for v in vectors["metadata"]:
        got = decode_metadata(bytes.fromhex(v["hex"]))
        expect(v["name"], got, {k: v[k] for k in got})
    for v in vectors["malformedMetadata"]:
        expect(v["name"], error_of(decode_metadata, bytes.fromhex(v["hex"]))[0], v["error"])
    for v in vectors["packetNumbers"]:
        expect("packet number %s" % v, expand(v["truncated"], v["largest"]), v["number"])
    for v in vectors["digests"]:
        if v["algorithm"] == 2:
            expect("digest of %d bytes" % v["size"], root(2, bytes(i % 251 for i in range(v["size"]))), v["root"])
    v = vectors["presence"]
    plain = b"\x01" + int(v["instance"], 16).to_bytes(8, "little") + struct.pack("<IH", v["maxMessage"], v["transfers"])
    expect("presence", (plain + crc32c(plain).to_bytes(4, "little")).hex(), v["hex"])
    print("%d checks, %d failures" % (checks, failures))
    return 1 if failures or checks < 100 else 0


sys.exit(main())
