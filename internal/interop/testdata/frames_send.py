"""The client that sends many images over one TCP connection, as the protocol wants it. --join and --cut have the network
join or cut what it sends; --before is put before each name."""
import os
import socket
import time

from common import done, exactly, flags, read


def main():
    f = flags(__doc__, format="infrared", dir="got", pause=0.05, join=False, cut=0, before="")
    s = socket.create_connection((f.host, f.port))
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    waiting = bytearray()

    def say(what, last=True):
        waiting.extend(what)
        if f.join and not last:
            return
        step = f.cut or max(1, len(waiting))
        for i in range(0, len(waiting), step):
            s.sendall(waiting[i:i + step])
            if f.cut:
                time.sleep(0.0005)
        waiting.clear()

    sent = 0

    def ok():
        try:
            if exactly(s, 2) != b"ok":
                raise EOFError("it says something else")
        except (EOFError, OSError) as e:
            done(False, error=f"no ok: {e}", sent=sent)

    say(f"{f.format}|{f.dir}".encode())
    ok()
    for path in f.files:
        image = read(path)
        if sent:
            say(b"continue", last=False)
            if not f.join:
                time.sleep(f.pause)
        say(f"{len(image)}|{f.before}{os.path.basename(path)}".encode())
        ok()
        if image:
            say(image)
        ok()
        sent += 1
    say(b"over")
    done(True, sent=sent)


main()
