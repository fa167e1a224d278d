"""Appends through an outbox and reads back, over a proxy that breaks each connection at the next byte.

    python fault_client.py ROOT PROXY_URL CONTROL_PORT DIRECT_URL FOLDER DIRECTION KIND FIRST STEP

Every record must be in the stream once, and every read must hand out every item once.
"""
# ruff: noqa: UP031 (MicroPython)

import os
import socket
import sys

ROOT, PROXY, CONTROL, DIRECT, FOLDER, DIRECTION, KIND, FIRST, STEP = sys.argv[1:]
sys.path[:0] = [ROOT, ROOT + "/micro"]

from ds_micro import BadRequest, Cursor, Outbox, Stream  # noqa: E402

control = socket.socket()
control.connect(socket.getaddrinfo("127.0.0.1", int(CONTROL))[0][-1])


def ask(line):
    control.send(line.encode() + b"\n")
    return control.recv(10)


name = "/faults-%s-%s-%s" % (DIRECTION, KIND, "".join(["%02x" % byte for byte in os.urandom(6)]))
direct = Stream(DIRECT + name, timeout=10)
direct.create()
# A stall ends with the deadline of a step.
through = Stream(PROXY + name, timeout=0.1 if KIND == "stall" else 5)
box = Outbox(FOLDER, through, producer="p")
box.writer._backoff.first = box.writer._backoff.most = 2
appended = at = 0
fired = b"1\n"
at = int(FIRST)
while fired == b"1\n":
    for _ in range(3):
        box.append({"n": appended})
        appended += 1
    through.drop()
    assert ask("%s %s %d" % (DIRECTION, KIND, at)) == b"ok\n"
    try:
        left = box.flush(10)
    except BadRequest:
        # A request that ends politely in its middle is the client's fault in the server's eyes; the records are kept.
        assert (DIRECTION, KIND) == ("request", "truncate")
        left = box.flush(10)
    assert not left, (at, box.error)
    fired = ask("fired")
    at += int(STEP)
print("append", at, box.writer.duplicates)
assert [item["n"] for item in direct.read()] == list(range(appended))

at = int(FIRST)
fired = b"1\n"
for i in range(appended, 30):
    box.append({"n": i})
    appended += 1
assert box.flush(10) == 0
through._max_bytes = 100
total = 30
while fired == b"1\n":
    through.drop()
    assert ask("%s %s %d" % (DIRECTION, KIND, at)) == b"ok\n"
    cursor = Cursor()
    got = []
    while len(got) < total:
        items = through.read(cursor)
        items._backoff.first = items._backoff.most = 2
        try:
            for item in items:
                got.append(item["n"])
                if len(got) == total:
                    break
        except BadRequest:
            assert (DIRECTION, KIND) == ("request", "truncate")
    assert got == list(range(total)), (at, got)
    fired = ask("fired")
    at += int(STEP)
print("read", at)
