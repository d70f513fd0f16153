"""A camera that sends images (or JSON texts) over UDP, as the protocol wants it."""
import socket
import struct
import time

from common import done, flags, note, read


def answer(s, until):
    """answer returns what comes next, or an empty text when the monotonic time until has come."""
    try:
        s.settimeout(max(0.001, until - time.monotonic()))
        return s.recv(2048)
    except OSError:  # nothing came, or nobody is there
        return b""


def send(f, datagrams, good):
    """send sends one image from a port of its own. Answers that come before all was sent are nobody's."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.connect((f.host, f.port))
        for i, d in enumerate(datagrams):
            if i == len(datagrams) - 1:
                while answer(s, 0):
                    pass
            s.send(d)
            time.sleep(f.gap)
        text = answer(s, time.monotonic() + f.timeout)
        note("the answer:", text)
        return text == good, text.decode("utf-8", "replace")


def main():
    f = flags(__doc__, mode="header", width=8, order="le", gap=0.0005, timeout=10.0, tries=4)
    good = b"get the msg" if f.mode == "json" else b"get message!!!"
    answers = []
    for path in f.files:
        image = read(path)
        datagrams = [image]
        if f.mode == "header":
            form = ("<" if f.order == "le" else ">") + ("q" if f.width == 8 else "i")
            datagrams = [struct.pack(form, len(image))] + [image[i:i + 1024] for i in range(0, len(image), 1024)]
        for _ in range(f.tries):
            ok, text = send(f, datagrams, good)
            if ok:
                break
        answers.append(text)
        if not ok:
            done(False, error=f"{path} was not answered", answers=answers)
    done(True, answers=answers)


main()
