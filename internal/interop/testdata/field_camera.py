"""The camera in the field: a header, datagrams of 1024, an empty one after a multiple of 1024, then it waits for an
answer without limit. It always sends from the same port. --lose N has the network lose a datagram of the first image."""
import socket
import struct
import time

from common import done, flags, read


def main():
    f = flags(__doc__, width=8, gap=0.0003, lose=-1, early=False)
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.connect((f.host, f.port))
    answers = []
    for n, path in enumerate(f.files):
        image = read(path)
        s.send(struct.pack("<q" if f.width == 8 else "<i", len(image)))
        for i in range(0, len(image), 1024):
            time.sleep(f.gap)
            if n > 0 or i // 1024 != f.lose:
                s.send(image[i:i + 1024])
        if len(image) % 1024 == 0 and f.early:
            s.send(b"")
        answers.append(s.recv(1024).decode("utf-8", "replace"))
        if len(image) % 1024 == 0 and not f.early:
            s.send(b"")
    done(True, answers=answers)


main()
