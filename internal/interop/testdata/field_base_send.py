"""The program in the field that sends an image to BASE, with what it does wrong: it subscribes after begin, never
sends the last package, repeats begin every second, starts a stream for each answer to begin, and answers everything
with finished once it got there."""
import collections
import os
import threading
import time

from common import Bus, base_message, done, flags, parse_base_answer, read


def main():
    f = flags(__doc__, broker="", to="mqttTestPub", from_="mqttTestSub", file="", name="", size=1400, timeout=5.0,
              again=1.0, late=0.5, begins=1, doubled=False)
    image = read(f.file)
    packages = [image[i:i + f.size] for i in range(0, len(image), f.size)]
    bus = Bus(f.broker, client_id=f"server{int(time.time())}")
    begin = base_message(1, 0, f"{f.name or os.path.basename(f.file)};{len(image)}".encode())

    facts = {"begins": 0, "data": 0, "streams": 0, "finished": 0, "first": None, "packages": len(packages)}
    streams = collections.deque()  # how far each stream is
    newest, wait = begin, f.timeout

    def send(message, what):
        nonlocal newest
        newest = message
        facts[what] += 1
        bus.publish(f.to, message)

    def package(i):
        if facts["first"] is None:
            facts["first"] = i
        send(base_message(2, i, packages[i]), "data")

    send(begin, "begins")
    threading.Event().wait(f.late)  # the defect itself: deaf meanwhile
    bus.subscribe(f.from_)
    for _ in range(1, f.begins):
        send(begin, "begins")
    over = False
    while True:
        _, payload = bus.next(time.monotonic() + wait)
        if payload is None:
            if newest is begin:
                wait = f.again
                send(begin, "begins")
            else:
                send(newest, "finished" if over else "data")
            continue
        if len(payload) != 8:
            done(False, error=f"the thread died of {len(payload)} bytes", **facts)
        answer = parse_base_answer(payload)
        if answer is None or answer[0] not in (1, 2, 3) or answer[2] not in (0, 1):
            threading.Event().wait()  # it hangs
        function, number, status = answer
        wait = f.timeout
        if function == 3:
            done(True, **facts)
        if over:
            send(base_message(3, 0), "finished")
        elif function == 1:
            for _ in range(2 if f.doubled else 1):  # as if an earlier answer came late
                facts["streams"] += 1
                streams.append(0)
                if status == 0:
                    package(number - 1)
                elif len(packages) > 1:
                    package(0)
                    streams[-1] = 1
            if status == 1 and len(packages) == 1:
                over = True
                send(base_message(3, 0), "finished")
        else:
            position = streams.popleft() if streams else 0
            if position >= len(packages) - 1:  # also if the status is 0
                over = True
                send(base_message(3, 0), "finished")
            elif status == 0:
                streams.append(position)
                package(number - 1)
            else:
                streams.append(position + 1)
                package(position)


main()
