"""The service of terminals that know faces: it answers heartbeats, keeps the pictures and may send a command."""
import base64
import json
import time

from common import Bus, Folder, done, flags, ready


def records(report):
    """records yields what is a record in a report, of whatever shape."""
    data = report.get("data")
    for record in data if isinstance(data, list) else []:
        if isinstance(record, dict) and isinstance(record.get("liveImageBase64"), str):
            yield record


def main():
    f = flags(__doc__, broker="", sn="SN1", out="", count=1, command="")
    bus, folder = Bus(f.broker), Folder(f.out)
    up, down = f"fungxi_{f.sn}_upLink", f"fungxi_{f.sn}_downLink"
    bus.subscribe(up)
    ready(f.broker)
    heartbeats, seen, others = 0, [], []
    while len(seen) < f.count:
        _, payload = bus.next(time.monotonic() + 3600)
        try:
            report = json.loads((payload or b"").decode("utf-8", "replace"))
        except ValueError:
            continue
        if not isinstance(report, dict):
            continue
        cmd = report.get("cmd")
        if cmd == "heartU":
            heartbeats += 1
            bus.publish(down, json.dumps({"cmd": "heartD", "time": time.strftime("%Y-%m-%d %H:%M:%S")}))
        elif cmd in ("verifiedRecordU", "strangerRecordU"):
            for record in records(report):
                try:
                    picture = base64.b64decode(record.pop("liveImageBase64").rpartition(",")[2], validate=True)
                except ValueError:
                    continue
                folder.store(picture, f"{len(seen)}.jpg")
                seen.append({"cmd": cmd, **record})
                if f.command:
                    bus.publish(down, f.command)
        else:
            others.append(report)
    done(True, heartbeats=heartbeats, images=folder.images, records=seen, others=others)


main()
