"""BASE as simple hardware in the field: it takes packages in order only, counts from 1 or from 0, asks for what it
does not like, and believes whatever comes."""
import time

from common import Bus, Folder, base_answer, done, flags, parse_base_message, ready


def main():
    f = flags(__doc__, broker="", to="mqttTestPub", from_="mqttTestSub", out="", number=1, bad=0)
    bus, folder = Bus(f.broker), Folder(f.out)
    bus.subscribe(f.to)
    ready(f.broker)
    image, expected, name, bad = bytearray(), 0, "", set()
    facts = {"begins": 0, "data": 0, "unexpected": 0}
    while True:
        _, payload = bus.next(time.monotonic() + 3600)
        message = parse_base_message(payload or b"")
        if message is None:
            done(False, error="this is no message", **facts)
        function, number, data = message
        if function == 1:
            facts["begins"] += 1
            image, expected, name = bytearray(), 0, data.decode().rpartition(";")[0]
            answer = base_answer(1, 0, 1)
        elif function == 2:
            facts["data"] += 1
            if f.bad and expected % f.bad == f.bad - 1 and expected not in bad:
                bad.add(expected)
                answer = base_answer(2, expected + f.number, 0)
            elif number == expected:
                image += data
                expected += 1
                answer = base_answer(2, expected - 1 + f.number, 1)
            elif number < expected:
                facts["unexpected"] += 1
                answer = base_answer(2, number + f.number, 1)
            else:
                facts["unexpected"] += 1
                answer = base_answer(2, expected + f.number, 0)
        else:
            bus.publish(f.from_, base_answer(3, 0, 1))
            folder.store(bytes(image), name)
            done(True, images=folder.images, **facts)
        bus.publish(f.from_, answer)


main()
