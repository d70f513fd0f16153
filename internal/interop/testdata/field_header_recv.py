"""The receiver in the field, with one thread: a header, then as many datagrams as the size wants, whatever they are
and whoever sends them, then the answer. So the header of the next image completes one that misses a datagram.
--lose N has the network lose a datagram of the first image. It goes on after its line at --count images."""
import json

from common import Folder, flags, ready, udp


def main():
    f = flags(__doc__, out="", count=1, width=8, lose=-1)
    s, folder, peers = udp(f.host, f.port), Folder(f.out), []
    ready("%s:%d" % s.getsockname())
    lost = f.lose < 0
    junk = 0
    while True:
        d, peer = s.recvfrom(f.width)  # what is longer is cut
        size = int.from_bytes(d, "little", signed=True)
        if peer[1] not in peers:
            peers.append(peer[1])
        if size <= 0 or len(d) != f.width:
            junk += 1
            continue
        image = bytearray()
        for i in range(-(-size // 1024)):
            d, peer = s.recvfrom(1024)
            if i == f.lose and not lost:
                lost = True
                d, peer = s.recvfrom(1024)
            if peer[1] not in peers:
                peers.append(peer[1])
            image += d
        folder.store(bytes(image))
        s.sendto(b"get message!!!", peer)
        if len(folder.images) == f.count:
            print(json.dumps({"ok": True, "images": folder.images, "peers": len(peers), "junk": junk}), flush=True)


main()
