"""The client in the field: it sorts by the number in the file's name, sends each text with one send and no pause, and
wants each ok in a receive of its own."""
import os
import re
import socket
import threading

from common import done, flags, note, read


def main():
    f = flags(__doc__, format="infrared", dir="got")
    s = socket.create_connection((f.host, f.port))
    files = sorted(f.files, key=lambda p: int(re.search(r"\d+", os.path.basename(p)).group()))

    def ok():
        text = s.recv(1024)
        if text == b"":
            done(False, error="closed")
        if text != b"ok":
            note("not understood:", text)
            threading.Event().wait()

    s.sendall(f"{f.format}|{f.dir}".encode())
    ok()
    for i, path in enumerate(files):
        image = read(path)
        if len(image) == 1:
            note("an image of one byte: it spins")
            threading.Event().wait()
        if i:
            s.sendall(b"continue")
        s.sendall(f"{len(image)}|{os.path.basename(path)}".encode())
        ok()
        s.sendall(image)
        ok()
    s.sendall(b"over")
    done(True, sent=[os.path.basename(p) for p in files])


main()
