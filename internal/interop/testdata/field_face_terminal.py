"""A terminal in the field, and everything that was seen to come from such: reports without data, without fields or
without an end, bytes that are not UTF-8, records that come twice. Good ones are among them and after them."""
import base64
import json
import os
import time

from common import Bus, done, flags, read


def main():
    f = flags(__doc__, broker="", sn="SN1", commands=0)
    bus = Bus(f.broker)
    up, down = f"fungxi_{f.sn}_upLink", f"fungxi_{f.sn}_downLink"
    bus.subscribe(down)
    heartbeats, commands = 0, []

    def say(what):
        bus.publish(up, what if isinstance(what, bytes) else json.dumps(what, ensure_ascii=False).encode())

    def listen(until):
        nonlocal heartbeats
        _, payload = bus.next(until)
        if payload is None:
            return
        command = json.loads(payload)
        if command.get("cmd") == "heartD":
            heartbeats += 1
        else:
            commands.append(command)

    def heartbeat():
        before = heartbeats
        while heartbeats == before:
            say({"cmd": "heartU"})
            listen(time.monotonic() + 1)

    heartbeat()
    for i, path in enumerate(f.files):
        text = base64.b64encode(read(path)).decode()
        name = os.path.basename(path)
        # Its num is a text in one record and a number in the next one, and so is its time.
        good = {"num": str(i) if i % 2 else i, "name": name, "verifiedCode": 0, "personType": "1",
                "liveImageBase64": ("data:image/jpeg;base64," if i % 2 else "") + text,
                "time": "2024-02-29 12:34:56" if i % 2 else 1709210096}
        if i == 0:
            for nonsense in (b"", b"{}", b"[]", b"null", b"{\"cmd\": \"verified", b"\xff\xfe\x00", {"cmd": 7},
                             b"{\"cmd\": \"verifiedRecordU\", \"data\": [{\"name\": \"\xff\"}]}",
                             {"cmd": "verifiedRecordU"}, {"cmd": "verifiedRecordU", "data": []},
                             {"cmd": "verifiedRecordU", "data": {}}, {"cmd": "verifiedRecordU", "data": [3, None]},
                             {"cmd": "verifiedRecordU", "data": [{"num": "9"}]},
                             {"cmd": "verifiedRecordU", "data": [{**good, "liveImageBase64": "%%%"}]}):
                say(nonsense)
            say({"cmd": "doorU", "state": "open"})
            heartbeat()
            # A broken element stands before a good one.
            say({"cmd": "verifiedRecordU", "data": [{"num": "8"}, good]})
        else:
            say({"cmd": "verifiedRecordU", "data": [good]})
        say({"cmd": "verifiedRecordU", "data": [good]})  # and again
    while len(commands) < f.commands:
        listen(time.monotonic() + 5)
    heartbeat()
    done(True, heartbeats=heartbeats, commands=commands)


main()
