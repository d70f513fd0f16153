"""The server that takes many images over one TCP connection, as the protocol wants it: a stream, cut and joined in
whatever way."""
import os
import socket

from common import Folder, done, exactly, flags, note, tcp

WORDS = (b"continue", b"over")


def text(s):
    """text takes a text. The peer waits for ok behind it, so that it ends where nothing more comes for a while."""
    b = b""
    while True:
        s.settimeout(0.05 if b"|" in b and not b.endswith(b"|") else 20)
        try:
            piece = s.recv(1024)
        except socket.timeout:
            s.settimeout(20)
            return b.decode().partition("|")
        if not piece:
            raise EOFError("closed within a text")
        b += piece


def word(s):
    """word takes continue or over, and nothing that is behind it."""
    b = b""
    while b not in WORDS and any(w.startswith(b) for w in WORDS):
        b += exactly(s, 1)
    return b


def main():
    f = flags(__doc__, out="", count=1, formats="")
    folder, listener, sources = Folder(f.out), tcp(f.host, f.port), []
    over = 0
    while over < f.count:
        s, peer = listener.accept()
        with s:
            try:
                kind, _, place = text(s)
                if f.formats and kind not in f.formats.split(","):
                    continue
                sources.append([kind, place])
                s.sendall(b"ok")
                while True:
                    length, _, name = text(s)
                    s.sendall(b"ok")
                    image = exactly(s, int(length))
                    s.sendall(b"ok")
                    folder.store(image, os.path.basename(name))
                    then = word(s)
                    if then == b"over":
                        over += 1
                        break
                    if then != b"continue":
                        raise EOFError(f"it says {then}")
            except (EOFError, OSError, ValueError) as e:
                note(peer, e)
    done(True, images=folder.images, sources=sources)


main()
