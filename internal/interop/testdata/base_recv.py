"""BASE, the hardware that takes an image over MQTT, as the protocol wants it. --bad, --mute, --twice and --noise
make it, or its way, a bad one; --over N ends it at package N."""
import time

from common import Bus, Folder, base_answer, done, flags, parse_base_message, ready

NOISE = [b"", b"\xff\xff\xee\xee", b"0123456789", b"\x00" * 8, base_answer(9, 1, 1), base_answer(2, 1, 7),
         base_answer(2, -5, 0), base_answer(2, 32767, 0), base_answer(2, 0, 0)[:7]]


def main():
    f = flags(__doc__, broker="", to="mqttTestPub", from_="mqttTestSub", out="", size=1400, number=1, count=1,
              timeout=5.0, asks=5, last_first=False, bad=0, mute=0, twice=False, noise=False,
              over=-1)
    bus, folder = Bus(f.broker), Folder(f.out)
    bus.subscribe(f.to)
    ready(f.broker)
    while len(folder.images) < f.count:
        take(f, bus, folder)
    bus.close()
    done(True, images=folder.images)


def take(f, bus, folder):
    """take takes one image."""
    name, size, packages, troubled = None, 0, {}, set()
    begun = asked = 0.0
    asks, answers = f.asks, 0
    fresh = True  # a package came since the last time that one was asked for

    def answer(function, number, status):
        nonlocal answers
        answers += 1
        if f.noise and answers % 4 == 1:
            bus.publish(f.from_, NOISE[answers // 4 % len(NOISE)])
        for _ in range(2 if f.twice else 1):
            bus.publish(f.from_, base_answer(function, number, status))

    while True:
        _, payload = bus.next(time.monotonic() + 3600)
        message = parse_base_message(payload or b"")
        if message is None:
            continue
        function, number, data = message
        now = time.monotonic()
        if function == 1:
            if packages or now - begun < 0.3:
                continue  # a repeated one: answered already
            text = data.decode("utf-8", "replace").rpartition(";")
            if not text[2].isdigit() or not text[0]:
                continue
            begun, name, size = now, text[0], int(text[2])
            last = -(-size // f.size)
            if f.last_first:
                answer(1, last - 1 + f.number, 0)
            else:
                answer(1, 0, 1)
        elif function == 2 and name is not None and 0 <= number < -(-size // f.size):
            fresh = True
            if number == f.over:
                answer(3, 0, 1)
                done(False, error="ended early")
            first = number not in troubled
            if first and f.bad and number % f.bad == f.bad - 1:
                troubled.add(number)
                answer(2, number + f.number, 0)
                continue
            packages[number] = data
            if first and f.mute and number % f.mute == f.mute - 1:
                troubled.add(number)
                continue
            answer(2, number + f.number, 1)
        elif function == 3 and name is not None:
            missing = [i for i in range(-(-size // f.size)) if i not in packages]
            image = b"".join(packages[i] for i in sorted(packages))
            if not missing and len(image) == size:
                answer(3, 0, 1)
                folder.store(image, name)
                return
            if not fresh and now - asked < f.timeout:
                continue
            if asks == 0 or not missing:
                answer(3, 0, 0)
                done(False, error=f"{len(image)} of {size} bytes", missing=missing[:20])
            asks, asked, fresh = asks - 1, now, False
            answer(2, missing[0] + f.number, 0)


main()
