"""The PC in the field: each text is one recv(1024), and what is joined is not understood. --mode command never closes
its side."""
import threading

from common import Folder, done, flags, tcp
import json


def main():
    f = flags(__doc__, mode="begin", out="")
    folder, commands, missed = Folder(f.out), [], 0
    listener = tcp(f.host, f.port)
    s, _ = listener.accept()
    image = bytearray()
    if f.mode == "begin":
        s.sendall(b"Welcome from server!")
        if s.recv(1024) == b"begin to send":
            while piece := s.recv(1024):
                image += piece
            folder.store(bytes(image), "image.bmp")
        s.close()
        done(True, images=folder.images)
    s.sendall(b"hello client")
    if s.recv(1024) == b"hello server":
        while tag := s.recv(1024):
            if tag == b"c":
                commands.append(s.recv(1024).decode("utf-8", "replace"))
            elif tag == b"f":
                while piece := s.recv(1024):
                    image += piece
                folder.store(bytes(image), "image.bmp")
            else:
                missed += 1
    # Its side stays open, for ever.
    print(json.dumps({"ok": True, "images": folder.images, "commands": commands, "missed": missed}), flush=True)
    threading.Event().wait()


main()
