"""The receiver of images (or JSON texts) over UDP, as the protocol wants it: many senders, told apart by address."""
import json
import struct
import time

from common import Folder, done, flags, note, ready, udp


def size_of(header):
    """size_of returns the size that a header tells, or -1 for what is none."""
    if len(header) not in (4, 8):
        return -1
    return struct.unpack("<q" if len(header) == 8 else "<i", header)[0]


def main():
    f = flags(__doc__, mode="header", out="", count=1, idle=2.0, slow=0.0)
    s, folder, texts = udp(f.host, f.port), Folder(f.out), []
    ready("%s:%d" % s.getsockname())
    s.settimeout(0.1)
    busy, broken = {}, 0  # address: size, pieces, bytes so far, time of the last one
    while len(folder.images) + len(texts) < f.count:
        try:
            d, peer = s.recvfrom(65536)
        except OSError:
            d = peer = None
        now = time.monotonic()
        if peer is None:
            pass
        elif f.mode == "datagram":
            folder.store(d)
            s.sendto(b"get message!!!", peer)
        elif f.mode == "json":
            try:
                if len(d) > 1024:
                    raise ValueError("too long")
                texts.append(json.loads(d.decode()))
                s.sendto(b"get the msg", peer)
            except ValueError as e:
                s.sendto(f"bad message: {e}".encode()[:1000], peer)
        elif peer in busy:
            image = busy[peer]
            image[1].append(d)
            image[2] += len(d)
            image[3] = now
            if image[2] >= image[0]:
                del busy[peer]
                if image[2] == image[0]:
                    time.sleep(f.slow)  # the time that showing the picture takes
                    folder.store(b"".join(image[1]))
                    s.sendto(b"get message!!!", peer)
                else:
                    broken += 1
                    s.sendto(b"bad image", peer)
        elif d:
            size = size_of(d)
            if 0 < size < 1 << 30:
                busy[peer] = [size, [], 0, now]
        for peer in [p for p, image in busy.items() if now - image[3] > f.idle]:
            note(peer, "sent", busy[peer][2], "of", busy[peer][0], "bytes")
            del busy[peer]
            broken += 1
            s.sendto(b"bad image", peer)
    done(True, images=folder.images, texts=texts, broken=broken)


main()
