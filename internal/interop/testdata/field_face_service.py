"""The service in the field: it looks at the first element of data only, and dies silently of whatever it does not
expect. It hears its own topic down as well."""
import base64
import json
import threading
import time

from common import Bus, Folder, done, flags, ready


def main():
    f = flags(__doc__, broker="", sn="SN1", out="", count=1)
    bus, folder = Bus(f.broker), Folder(f.out)
    up, down = f"fungxi_{f.sn}_upLink", f"fungxi_{f.sn}_downLink"
    bus.subscribe(up, down)
    ready(f.broker)
    records = []
    try:
        while len(records) < f.count:
            _, payload = bus.next(time.monotonic() + 3600)
            report = json.loads(payload.decode("utf-8"))
            cmd = report["cmd"]
            if cmd == "heartU":
                bus.publish(down, json.dumps({"cmd": "heartD", "time": time.strftime("%Y-%m-%d %H:%M:%S")}))
            elif cmd == "verifiedRecordU":
                record = report["data"][0]
                message = {"user_id": record["num"], "name": record["name"], "verifiedCode": record["verifiedCode"],
                           "bot_time": record["time"], "personType": record["personType"]}
                if message["verifiedCode"] != 0 or message["personType"] != "1":
                    continue
                folder.store(base64.b64decode(record["liveImageBase64"].rpartition(",")[2]), f"{len(records)}.jpg")
                records.append(message)
    except Exception:  # the thread is gone and nobody knows
        threading.Event().wait()
    done(True, images=folder.images, records=records)


main()
