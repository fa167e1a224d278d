"""The client against servers and proxies that answer at once, early, or with what is no number.

    odd_answers.py ROOT URL FOLDER
"""
# ruff: noqa: UP031, B023 (MicroPython; what is called is called at once)

import sys

ROOT, URL, FOLDER = sys.argv[1:]
sys.path[:0] = [ROOT, ROOT + "/micro"]

import asyncio  # noqa: E402
import time  # noqa: E402

import ds_micro  # noqa: E402
from ds_micro import MARK, Outbox, Stream, aio  # noqa: E402


def error_of(call, *args):
    try:
        call(*args)
    except ds_micro.StreamError as exc:
        return exc
    raise AssertionError("no error")


def asked(path):
    """How many requests there were for this."""
    return int(Stream(URL + "/count" + path, content_type="text/plain").head().offset)


# A request that is refused by its head, while its body is being sent.
big = b"x" * 6000000
for name, kind in (("early413", "TooLarge"), ("early401", "Unauthorized"), ("early403", "Forbidden")):
    path = "/" + name + "/0"
    s = Stream(URL + path, content_type="text/plain", timeout=5)
    for _ in range(2):
        exc = error_of(lambda: s.append(big))
        assert exc.__class__ is getattr(ds_micro, kind), (name, exc)
    box = Outbox(None, s, "p", limit=1 << 23, segment=1 << 23)
    box.append(big)
    exc = error_of(box.flush, 5)
    assert exc.__class__ is getattr(ds_micro, kind) and box.records == 1, (name, exc)
    box = s = None

    async def append(path, kind):
        s = aio.Stream(URL + path, content_type="text/plain", timeout=5)
        try:
            await s.append(big)
        except ds_micro.StreamError as exc:
            assert exc.__class__ is getattr(ds_micro, kind), exc
        else:
            raise AssertionError("no error")

    asyncio.run(append(path, kind))
big = None
s = Stream(URL + "/hangup/0", content_type="text/plain", timeout=5)
assert error_of(lambda: s.append(b"x" * 6000000)).__class__ is ds_micro.Disconnected

# A live answer that comes at once, with nothing new.
for live in ("long-poll", "sse"):
    for marks in (False, True):
        path = "/empty/%s%d" % (live, marks)
        s = Stream(URL + path, content_type="text/plain", timeout=5)
        begun = time.time()
        got = list(s.read("0", live=live, deadline=2.5, patience=1, marks=marks))
        assert 1 < time.time() - begun < 6
        assert [item for item in got if item is not MARK] == []
        assert 3 <= asked(path) <= 12, (live, marks, asked(path))

    async def follow(path, live):
        s = aio.Stream(URL + path, content_type="text/plain", timeout=5)
        async for _ in s.read("0", live=live, deadline=2.5, patience=1):
            raise AssertionError("nothing is there")

    path = "/empty/aio-" + live
    asyncio.run(follow(path, live))
    assert 3 <= asked(path) <= 12, (live, asked(path))
    # Answers with something new are asked for at once, and that is progress.
    path = "/each/" + live
    s = Stream(URL + path, content_type="text/plain", timeout=5)
    begun = time.time()
    assert b"".join(s.read("0", live=live)) == b"x" * 40
    assert time.time() - begun < 4, live

# What is a digit, but no number.
for name, kind in (("length", "BadResponse"), ("retry", "Busy"), ("deep", "BadResponse")):
    s = Stream(URL + "/" + name + "/0", content_type="application/json", timeout=5)
    exc = error_of(lambda: list(s.read(patience=0.2)))
    assert exc.__class__ in (getattr(ds_micro, kind), ds_micro.BadResponse) and s.url in str(exc), (name, exc)
for name in ("length", "retry", "seq", "epoch", "expected"):
    for path in (None, FOLDER + "/" + name):
        s = Stream(URL + "/" + name + "/0", content_type="text/plain", timeout=5)
        box = Outbox(path, s, "p")
        box.append("x")
        try:
            assert box.flush(0.3) == 1
            exc = box.error
        except ds_micro.StreamError as found:
            exc = found
        assert exc and box.records == 1, name
