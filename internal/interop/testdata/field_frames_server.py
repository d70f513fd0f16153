"""The server in the field: each text is one recv(1024), so that LENGTH|NAME behind continue needs one of its own. It
serves one connection at a time, closes it when the next one comes, and dies of one that brings no image or half of one.
It ends after --count connections."""
import os
import threading

from common import Folder, done, flags, note, tcp


def main():
    f = flags(__doc__, out="", count=1)
    folder, listener, sources = Folder(f.out), tcp(f.host, f.port), []
    listener.listen(1)
    before = None

    def die(why):
        done(False, died=why, images=folder.images)

    for _ in range(f.count):
        s, peer = listener.accept()
        if before is not None:
            before.close()
        before = s
        sources.append(s.recv(1024).decode().split("|"))
        s.sendall(b"ok")
        taken = 0
        while True:
            text = s.recv(1024).decode("utf-8", "replace")
            if text in ("", "over"):
                if not taken:
                    die("a connection without an image")
                break
            if text == "continue":
                continue
            length, bar, name = text.partition("|")
            if not bar or not length.isdigit():
                note("not understood, and now both wait:", text)
                threading.Event().wait()
            s.sendall(b"ok")
            image = bytearray()
            while len(image) < int(length):
                piece = s.recv(min(1 << 16, int(length) - len(image)))
                if not piece:
                    die("an image that was given up")
                image += piece
            if len(image) == 1:
                note("an image of one byte: it spins")
                threading.Event().wait()
            s.sendall(b"ok")
            folder.store(bytes(image), os.path.basename(name))
            taken += 1
    done(True, images=folder.images, sources=sources)


main()
