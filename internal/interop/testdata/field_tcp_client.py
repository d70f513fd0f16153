"""The microcontroller in the field: each text is one send, with no pause, so that they run together; each greeting is
one recv(1024)."""
import socket

from common import done, flags, read


def main():
    f = flags(__doc__, mode="begin", commands="", file="")
    s = socket.create_connection((f.host, f.port))
    image = read(f.file) if f.file else b""
    greeting = s.recv(1024)
    if f.mode == "begin":
        if greeting != b"Welcome from server!":
            done(False, error="no greeting")
        s.sendall(b"begin to send")
    else:
        if greeting != b"hello client":
            done(False, error="no greeting")
        s.sendall(b"hello server")
        for command in filter(None, f.commands.split(",")):
            s.sendall(b"c")
            s.sendall(command.encode())
        if f.file:
            s.sendall(b"f")
    for i in range(0, len(image), 1024):
        s.sendall(image[i:i + 1024])
    s.close()
    done(True, bytes=len(image))


main()
