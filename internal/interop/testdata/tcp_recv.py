"""The PC that takes images over TCP (--mode begin or command), as the protocol wants it: a stream, cut and joined in
whatever way. --commands are those that it knows; without them a command ends with a pause."""
import socket

from common import Folder, done, flags, note, tcp


class Stream:
    """A Stream is what a connection has said and nobody has taken."""

    def __init__(self, s):
        self.s, self.b, self.end = s, bytearray(), False

    def more(self, patience=20.0):
        """more waits for more and is False after a pause or the end."""
        self.s.settimeout(patience)
        try:
            piece = self.s.recv(65536)
        except socket.timeout:
            return False
        self.b += piece
        self.end = not piece
        return bool(piece)

    def take(self, n):
        while len(self.b) < n and self.more():
            pass
        taken = bytes(self.b[:n])
        del self.b[:n]
        return taken

    def command(self, known):
        """command takes a command: one that is known, else what comes without a pause."""
        while True:
            text = bytes(self.b)
            for c in known:
                if text.startswith(c):
                    return self.take(len(c)).decode()
            if any(c.startswith(text) for c in known) and text and not self.end:
                if self.more():
                    continue
            while self.more(0.1) and (not known or any(c.startswith(bytes(self.b)) for c in known)):
                pass
            if self.b or self.end:
                if not any(bytes(self.b).startswith(c) for c in known):
                    return self.take(len(self.b)).decode("utf-8", "replace")

    def rest(self):
        while self.more():
            pass
        return bytes(self.b)


def main():
    f = flags(__doc__, mode="begin", out="", count=1, commands="")
    folder, commands, listener = Folder(f.out), [], tcp(f.host, f.port)
    known = sorted((c.encode() for c in f.commands.split(",") if c), key=len, reverse=True)
    begin = f.mode == "begin"
    served = 0
    while served < f.count:
        s, peer = listener.accept()
        with s:
            s.sendall(b"Welcome from server!" if begin else b"hello client")
            stream = Stream(s)
            hello = b"begin to send" if begin else b"hello server"
            text = stream.take(len(hello))
            if text != hello:
                note(peer, "says", text)
                continue
            tag = b"f" if begin else stream.take(1)
            while tag == b"c":
                commands.append(stream.command(known))
                tag = stream.take(1)
            if tag == b"f":
                folder.store(stream.rest())
            served += 1
    done(True, images=folder.images, commands=commands)


main()
