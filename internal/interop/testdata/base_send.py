"""A server that sends one image to hardware over MQTT, as the protocol wants it."""
import os
import time

from common import Bus, base_message, done, flags, parse_base_answer, read


def main():
    f = flags(__doc__, broker="", to="mqttTestPub", from_="mqttTestSub", file="", name="", size=1400, number=1,
              timeout=5.0, repeats=10, late=False)
    image = read(f.file)
    packages = [image[i:i + f.size] for i in range(0, len(image), f.size)]
    if not packages or len(packages) > 32767:
        done(False, error=f"{len(image)} bytes cannot be sent")
    bus = Bus(f.broker)
    bus.subscribe(f.from_)

    head = f"{f.name or os.path.basename(f.file)};{len(image)}".encode()
    begin, finished = base_message(1, 0, head), base_message(3, 0)
    position, repeats, resent, ignored, started = 0, 0, 0, 0, False

    def send(message):
        nonlocal newest, deadline
        newest, deadline = message, time.monotonic() + f.timeout
        bus.publish(f.to, message)

    newest, deadline = begin, 0.0
    send(begin)
    while True:
        _, payload = bus.next(deadline)
        if payload is None:
            repeats += 1
            if repeats > f.repeats:
                done(False, error=f"no answer, {position} of {len(packages)} packages sent")
            send(newest)
            continue
        answer = parse_base_answer(payload)
        if answer is None or answer[0] not in (1, 2, 3):
            ignored += 1
            continue
        function, number, status = answer
        if function == 3:
            if newest is not finished:
                done(False, error=f"BASE ended it after {position} of {len(packages)} packages")
            done(True, bytes=len(image), packages=len(packages), repeats=repeats, resent=resent, ignored=ignored)
        if status == 0:
            wanted = number - f.number
            if not 0 <= wanted < len(packages):
                ignored += 1
                continue
            started, resent = True, resent + 1
            send(base_message(2, wanted, packages[wanted]))
        elif status != 1 or function == 1 and started:
            ignored += 1
        elif position < len(packages):
            started = True
            send(base_message(2, position, packages[position]))
            position += 1
        elif newest is not finished:
            send(finished)
        else:
            ignored += 1


main()
