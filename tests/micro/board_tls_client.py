"""https on firmware as boards have it: board_tls_client.py ROOT URL CA OTHER WRONG_HOST EXPIRED DRIBBLE PLAIN SILENT

OTHER is a CA that did not sign; DRIBBLE, and PLAIN, a port of http, answer by a byte every 0.1 s; SILENT accepts and
never says a word.
"""
# ruff: noqa: UP031 (MicroPython)

import sys

ROOT, URL, CA, OTHER, WRONG_HOST, EXPIRED, DRIBBLE, PLAIN, SILENT = sys.argv[1:]
sys.path[:0] = [ROOT, ROOT + "/micro", ROOT + "/tests/micro"]

import asyncio  # noqa: E402
import time  # noqa: E402

import board_tls  # noqa: E402

board_tls.install()

import ds_micro  # noqa: E402
from ds_micro import Outbox, Stream, aio  # noqa: E402


def error_of(call, *args):
    begun = time.time()
    try:
        call(*args)
    except ds_micro.StreamError as exc:
        assert time.time() - begun < 5, "it was tried again"
        return exc
    raise AssertionError("no error")


def beside(name):
    """A certificate that lies beside OTHER."""
    return OTHER[: -len("other.der")] + name + ".der"


with open(CA, "rb") as f:
    data = f.read()
for ca in (CA, data, bytearray(data)):
    s = Stream(URL, timeout=5, ca=ca)
    s.create()
    s.append({"n": 1}, "x" * 5000)
    box = Outbox(None, s, "p")
    box.append(2)
    assert box.flush(5) == 0, box.error
    assert len(list(s.read())) == 3
    s.delete()
print("ok ca")

s = Stream(URL, timeout=5, verify=False)
s.create()
s.delete()
for pin in ("0" * 64, "00:" * 31 + "00"):
    try:
        Stream(URL, pin=pin)
    except ValueError as exc:
        assert "ca=" in str(exc), exc
    else:
        raise AssertionError("a pin that cannot be checked")
try:
    Stream(URL)
except ValueError:
    pass
else:
    raise AssertionError("no way to check the certificate, and no error")
print("ok options")

for url, ca in ((URL, OTHER), (WRONG_HOST, beside("elsewhere")), (EXPIRED, beside("expired"))):
    s = Stream(url, timeout=5, ca=ca)
    for call in (s.head, s.create, lambda: list(s.read(patience=None))):  # noqa: B023
        exc = error_of(call)
        assert exc.__class__ is ds_micro.Untrusted and not exc.retry and exc.url == url, exc
        assert "ca=" in str(exc), exc
    box = Outbox(None, s, "p")
    box.append(1)
    exc = error_of(box.flush, 5)
    assert exc.__class__ is ds_micro.Untrusted and box.records == 1, exc
print("ok rejected")

for url in (DRIBBLE + "/s", "http://localhost:%s/s" % PLAIN):
    options = {"ca": CA} if url[:5] == "https" else {}
    s = Stream(url, timeout=5, **options)
    box = Outbox(None, s, "p")
    box.append(1)
    begun = time.time()
    assert box.flush(1) == 1 and isinstance(box.error, ds_micro.Disconnected), box.error
    assert time.time() - begun < 2, time.time() - begun
print("ok dribble")


async def main():
    if sys.implementation.name == "cpython":
        return  # there asyncio has a TLS of its own
    s = aio.Stream(URL, timeout=5, ca=CA)
    await s.create()
    await s.append(1)
    assert (await s.head()).status == 200
    await s.delete()
    try:
        await aio.Stream(URL, timeout=5, ca=OTHER).head()
        raise AssertionError("an untrusted server was accepted")
    except aio.Untrusted:
        pass
    ticks = 0

    async def tick():
        nonlocal ticks
        while True:
            await asyncio.sleep(0.05)
            ticks += 1

    task = asyncio.create_task(tick())
    begun = time.time()
    try:
        await aio.Stream(SILENT, timeout=1, ca=CA).head()
        raise AssertionError("a silent server answered")
    except aio.Timeout:
        assert 0.8 < time.time() - begun < 2
    assert ticks > 10, "the handshake kept the loop"
    task.cancel()
    print("ok aio")


asyncio.run(main())
if sys.implementation.name == "micropython":
    exc = error_of(Stream(SILENT, timeout=1, ca=CA).head)
    assert exc.__class__ is ds_micro.Timeout, exc
print("done")
