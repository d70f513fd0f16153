"""A terminal that knows faces: heartbeat, records with pictures, commands that come down."""
import base64
import json
import os
import time

from common import Bus, done, flags, read


def main():
    f = flags(__doc__, broker="", sn="SN1", stranger=False, together=False, prefix=False, number=0, commands=0,
              when="2024-02-29 12:34:56")
    bus = Bus(f.broker)
    up, down = f"fungxi_{f.sn}_upLink", f"fungxi_{f.sn}_downLink"
    bus.subscribe(down)
    commands, clock = [], None

    def take(until):
        nonlocal clock
        _, payload = bus.next(until)
        if payload is None:
            return
        command = json.loads(payload)
        if command.get("cmd") == "heartD":
            time.strptime(command["time"], "%Y-%m-%d %H:%M:%S")
            clock = command["time"]
        else:
            commands.append(command)

    while clock is None:  # nothing is said to nobody
        bus.publish(up, json.dumps({"cmd": "heartU"}))
        take(time.monotonic() + 1)

    records = []
    for i, path in enumerate(f.files):
        picture = base64.b64encode(read(path)).decode()
        if f.prefix:
            picture = "data:image/jpeg;base64," + picture
        records.append({"num": f.number + i, "name": os.path.basename(path), "liveImageBase64": picture,
                        "verifiedCode": int(f.stranger), "time": f.when,
                        "personType": "0" if f.stranger else "1"})
    cmd = "strangerRecordU" if f.stranger else "verifiedRecordU"
    for data in ([records] if f.together else [[r] for r in records]):
        bus.publish(up, json.dumps({"cmd": cmd, "data": data}, ensure_ascii=False).encode())
    while len(commands) < f.commands:
        take(time.monotonic() + 5)
    done(True, time=clock, records=len(records), commands=commands)


main()
