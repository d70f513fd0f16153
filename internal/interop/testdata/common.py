"""What the peers share: flags, the line at the end, sockets, MQTT."""
import argparse
import hashlib
import json
import os
import queue
import socket
import struct
import sys
import threading
import time
import urllib.parse


def flags(text, **known):
    """flags reads --name for each keyword, which gives the default and the type. What is left are f.files.
    A name that is a word of Python has an underscore behind it here."""
    p = argparse.ArgumentParser(description=text)
    known = {"host": "127.0.0.1", "port": 0, "limit": 60.0, **known}
    for name, default in known.items():
        flag = "--" + name.rstrip("_").replace("_", "-")
        how = {"action": "store_true"} if default is False else {"type": type(default), "default": default}
        p.add_argument(flag, dest=name, **how)
    p.add_argument("files", nargs="*")
    f = p.parse_args()
    timer = threading.Timer(f.limit, lambda: done(False, error=f"not done after {f.limit} s"))
    timer.daemon = True
    timer.start()
    return f


def done(ok=True, **facts):
    """done prints the one JSON line and ends the process, whatever its threads do."""
    print(json.dumps({"ok": ok, **facts}), flush=True)
    os._exit(0 if ok else 1)


def ready(where):
    """ready says on standard output that the peer can be reached, and where."""
    print(f"listening {where}", flush=True)


def note(*what):
    """note says something for people."""
    print(*what, file=sys.stderr, flush=True)


def read(path):
    """read returns a file's bytes."""
    with open(path, "rb") as file:
        return file.read()


class Folder:
    """A Folder stores images and remembers them for the line at the end."""

    def __init__(self, path):
        self.path, self.images = path, []
        if path:
            os.makedirs(path, exist_ok=True)

    def store(self, image, name=""):
        name = os.path.basename(name or f"{len(self.images)}.bin")
        if self.path:
            with open(os.path.join(self.path, name), "wb") as file:
                file.write(image)
        self.images.append({"name": name, "bytes": len(image), "sha256": hashlib.sha256(image).hexdigest()})


def udp(host, port):
    """udp returns a bound socket, with as much room for datagrams as the system gives."""
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    s.bind((host, port))
    return s


def tcp(host, port):
    """tcp returns a listening socket and says where it listens."""
    s = socket.create_server((host, port))
    ready("%s:%d" % s.getsockname()[:2])
    return s


def exactly(sock, n):
    """exactly reads n bytes of a stream."""
    b = b""
    while len(b) < n:
        piece = sock.recv(n - len(b))
        if not piece:
            raise EOFError(f"closed after {len(b)} of {n} bytes")
        b += piece
    return b


class Bus:
    """A Bus is a client of an MQTT broker. Messages wait in a queue for next."""

    def __init__(self, url, client_id=""):
        import paho.mqtt.client as mqtt
        extra = [mqtt.CallbackAPIVersion.VERSION1] if hasattr(mqtt, "CallbackAPIVersion") else []
        self.client = mqtt.Client(*extra, client_id=client_id)
        self.queue, self.granted, up = queue.Queue(), queue.Queue(), threading.Event()
        self.client.on_connect = lambda *_: up.set()
        self.client.on_subscribe = lambda *_: self.granted.put(True)
        self.client.on_message = lambda _c, _u, m: self.queue.put((m.topic, m.payload))
        u = urllib.parse.urlsplit(url)
        self.client.connect(u.hostname, u.port or 1883)
        self.client.loop_start()
        if not up.wait(20):
            done(False, error="the broker does not answer")

    def subscribe(self, *topics):
        """subscribe returns when the broker has granted it."""
        for topic in topics:
            self.client.subscribe(topic, 0)
            self.granted.get(timeout=20)

    def publish(self, topic, payload):
        """publish returns when the message was written to the broker."""
        self.client.publish(topic, payload, 0).wait_for_publish()

    def close(self):
        """close returns when the broker has what was published: leaving with unread messages resets the connection."""
        seen = threading.Event()
        self.client.on_unsubscribe = lambda *_: seen.set()
        self.client.unsubscribe("#")
        seen.wait(20)
        self.client.disconnect()
        self.client.loop_stop()

    def next(self, until):
        """next returns a topic and a payload, or two None when the monotonic time until has come."""
        try:
            return self.queue.get(timeout=max(0.0, until - time.monotonic()))
        except queue.Empty:
            return None, None


def base_message(function, number, data=b""):
    return struct.pack("<Ibhh", 0xFFFFEEEE, function, number, len(data)) + data


def base_answer(function, number, status):
    return struct.pack("<Ibhb", 0xEEEEFFFF, function, number, status)


def parse_base_message(b):
    """parse_base_message returns function, number and data, or None for what is no message."""
    if len(b) < 9 or b[:4] != b"\xee\xee\xff\xff":
        return None
    function, number, length = struct.unpack_from("<bhh", b, 4)
    return (function, number, b[9:]) if length == len(b) - 9 else None


def parse_base_answer(b):
    """parse_base_answer returns function, number and status, or None for what is no answer."""
    return struct.unpack("<bhb", b[4:]) if len(b) == 8 and b[:4] == b"\xff\xff\xee\xee" else None
