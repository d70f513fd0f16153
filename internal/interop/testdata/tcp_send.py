"""The client of a PC that takes images over TCP (--mode begin or command), as the protocol wants it. --join and --cut
have the network join or cut what it sends."""
import socket
import time

from common import done, exactly, flags, read


def main():
    f = flags(__doc__, mode="begin", commands="", file="", pause=0.3, join=False, cut=0)
    s = socket.create_connection((f.host, f.port))
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    waiting = bytearray()

    def flush():
        step = f.cut or max(1, len(waiting))
        for i in range(0, len(waiting), step):
            s.sendall(waiting[i:i + step])
            if f.cut:
                time.sleep(0.0005)
        waiting.clear()

    def say(text):
        waiting.extend(text)
        if not f.join:
            flush()
            time.sleep(f.pause)

    greeting = b"Welcome from server!" if f.mode == "begin" else b"hello client"
    if exactly(s, len(greeting)) != greeting:
        done(False, error="this is another greeting")
    image = read(f.file) if f.file else b""
    if f.mode == "begin":
        say(b"begin to send")
    else:
        say(b"hello server")
        for command in filter(None, f.commands.split(",")):
            say(b"c")
            say(command.encode())
        if f.file:
            say(b"f")
    waiting.extend(image)
    flush()
    s.shutdown(socket.SHUT_WR)
    s.close()  # and not when the server does: one in the field never closes
    done(True, bytes=len(image))


main()
