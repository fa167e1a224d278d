"""Appends through a proxy that mixes up answers, one record a flush; says `acked N` for what it was told is there.

    mixed_up.py ROOT URL FOLDER MODE
"""
# ruff: noqa: UP031 (MicroPython)

import sys

ROOT, URL, FOLDER, MODE = sys.argv[1:]
sys.path[:0] = [ROOT, ROOT + "/micro"]

import asyncio  # noqa: E402

import ds_micro  # noqa: E402
from ds_micro import Outbox, Stream, aio  # noqa: E402

told = set()


def check(number, box, left):
    if left == 0:
        print("acked", number)
    elif box.error:
        assert isinstance(box.error, ds_micro.Disconnected) or box.error.retry, box.error
        told.add(str(box.error))


def options(box):
    box.writer._backoff.first = box.writer._backoff.most = 20
    return box


def blocking(path, first):
    box = options(Outbox(path, Stream(URL, content_type="text/plain", timeout=2), "p" + str(first)))
    for number in range(first, first + 6):
        box.append("%d," % number)
        check(number, box, box.flush(0.01))
    assert box.flush(10) == 0, box.error
    box.close()


async def on_asyncio(first):
    box = options(aio.Outbox(None, aio.Stream(URL, content_type="text/plain", timeout=2), "p100", in_flight=3, count=1))
    for number in range(first, first + 6):
        box.append("%d," % number)
        check(number, box, await box.flush(0.01))
    assert await box.flush(10) == 0, box.error
    if MODE == "close":
        assert await box.close_stream(0.01) is False
        told.add(str(box.error))
        assert await box.close_stream(10) is True, box.error


if MODE != "close":
    blocking(None, 0)
    blocking(FOLDER + "/box", 50)
asyncio.run(on_asyncio(100))
# What is appended without an outbox is not told by the answer to something else.
if MODE == "plain":
    for call in (lambda s: s.append("x"), lambda s: s.seal()):
        try:
            call(Stream(URL + "/plain", content_type="text/plain", timeout=2))
        except ds_micro.BadResponse:
            continue
        raise AssertionError("taken for its answer")
for text in told:
    print("told", text)
