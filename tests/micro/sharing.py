"""Every method of a Stream and an Outbox beside every other, on the same objects: sharing.py ROOT URL FOLDER

On asyncio they wait for one another; blocking, a thread or callback in between is refused. No answer is another's.
"""
# ruff: noqa: UP031 (MicroPython)

import sys

ROOT, URL, FOLDER = sys.argv[1:4]
sys.path[:0] = [ROOT, ROOT + "/micro"]

import asyncio  # noqa: E402
import gc  # noqa: E402
import os  # noqa: E402

import ds_micro  # noqa: E402
from ds_micro import Outbox, Stream, aio  # noqa: E402

count = 0


def url():
    global count
    count += 1
    return "%s-%d" % (URL, count)


async def everything(s):
    got = []
    async for item in s.read():
        got.append(item)
    return got


async def silent(reader, writer):
    """Answers a PUT, and then never again."""
    while True:
        line = await reader.readline()
        if not line:
            return
        if line[:3] == b"PUT":
            while (await reader.readline()).strip():
                pass
            writer.write(b"HTTP/1.1 201 Created\r\nstream-next-offset: 1\r\ncontent-length: 0\r\n\r\n")
            await writer.drain()


async def no_answer_is_another_ones():
    port = 20000 + int.from_bytes(os.urandom(2), "big") % 10000
    server = await asyncio.start_server(silent, "127.0.0.1", port)
    s = aio.Stream("http://127.0.0.1:%d/x" % port, content_type="application/json", timeout=0.2)

    async def one(i):
        try:
            return await s.append({"i": i})
        except aio.Timeout:
            return None

    for n in (1, 2, 4, 8):
        await s.create()
        assert await asyncio.gather(*[one(i) for i in range(n)]) == [None] * n, n
    s.drop()
    server.close()


async def thirty_appends_are_thirty():
    s = aio.Stream(url(), timeout=5)
    await s.create()
    results = await asyncio.gather(*[s.append(i) for i in range(30)])
    assert len({result.offset for result in results}) == 30
    assert await everything(s) == list(range(30))


async def every_method_beside_every_other(path):
    s = aio.Stream(url(), timeout=5)
    await s.create()
    box = aio.Outbox(path, s, "p", limit=1 << 16)
    sent = 0

    async def append():
        assert (await s.append("direct")).offset

    async def head():
        assert (await s.head()).status == 200

    async def create():
        assert (await s.create()).status == 200

    async def read():
        async for _ in s.read():
            pass

    async def keep():
        nonlocal sent
        for _ in range(3):
            assert box.append("kept")
            sent += 1
            await asyncio.sleep(0)

    async def flush():
        assert await box.flush(10) >= 0

    async def look():
        assert box.records >= 0 and box.dropped == 0 and box.due() in (True, False)

    async def let_go():
        try:
            box.close()
        except RuntimeError as exc:
            assert "flush" in str(exc), exc

    async def wait():
        async for _ in s.read("now", live="long-poll", deadline=0.1):
            pass

    methods = (append, head, create, read, keep, flush, look, let_go, wait)
    for first in methods:
        for second in methods:
            await asyncio.gather(first(), second(), first(), second())
            gc.collect()
    assert await box.flush(10) == 0
    got = await everything(s)
    assert got.count("kept") == sent
    assert got.count("direct") == 4 * len(methods)
    other = aio.Stream(s.url, timeout=5)
    other.content_type = "text/plain"
    bad = aio.Outbox(None, other, "bad")
    bad.append(b"x", raw=True)

    async def refused():
        try:
            await bad.flush(5)
        except aio.Conflict:
            return True

    async def drop():
        try:
            return bad.discard()
        except RuntimeError as exc:
            assert "flush" in str(exc), exc

    await asyncio.gather(refused(), drop(), refused(), drop())
    assert await refused() and bad.discard() == 1 and bad.discard() == 0
    await asyncio.gather(flush(), box.close_stream(10), flush(), box.close_stream(10))
    assert (await s.head()).closed


async def a_flush_beside_run():
    s = aio.Stream(url(), timeout=5)
    await s.create()
    box = aio.Outbox(None, s, "p", count=2, in_flight=4)
    task = asyncio.create_task(box.run(0.01))
    for i in range(100):
        box.append(i)
        if i % 5 == 0:
            await asyncio.gather(box.flush(5), box.flush(5))
        await asyncio.sleep(0)
    assert await box.flush(5) == 0 and not task.done()
    assert await everything(s) == list(range(100))
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        pass


async def a_task_that_ends_unwatched_is_told():
    told = []
    loop = asyncio.get_event_loop()
    loop.set_exception_handler(lambda loop, context: told.append(context["exception"]))
    box = aio.Outbox(None, aio.Stream(url(), timeout=5), "p", count=1)
    box.append(1)
    task = asyncio.create_task(box.run(0.01))
    for _ in range(100):
        await asyncio.sleep(0.02)
        if told:
            break
    assert isinstance(told[0], aio.NotFound) and isinstance(box.error, aio.NotFound), told
    loop.set_exception_handler(None)
    try:
        await task
    except aio.NotFound:
        pass


async def a_flush_that_has_to_wait_ends_in_time():
    s = aio.Stream(url(), timeout=5)
    await s.create()
    box = aio.Outbox(None, s, "p")
    box.append(1)

    async def follow():
        async for _ in s.read("now", live="sse", deadline=2):
            pass

    task = asyncio.create_task(follow())
    await asyncio.sleep(0.3)
    begun = asyncio.get_event_loop().time() if hasattr(asyncio.get_event_loop(), "time") else 0
    assert await box.flush(0.3) == 1 and isinstance(box.error, aio.Timeout)
    assert not begun or asyncio.get_event_loop().time() - begun < 1
    await task
    assert await box.flush(5) == 0


def partial(call, *args):
    return lambda: call(*args)


def what_calls_back_is_refused():
    calls = []
    refused = []

    def token():
        if calls:
            try:
                calls[0]()
            except RuntimeError as exc:
                assert "in use" in str(exc), exc
                refused.append(1)
        return "t"

    s = Stream(url(), timeout=5, token=token)
    s.create()
    for path in (None, FOLDER + "/callback"):
        box = Outbox(path, s, "p" + str(path))
        of_stream = [s.head, s.create, lambda: s.append(1), lambda: list(s.read())]
        of_box = [partial(box.append, 2), box.flush, box.discard, box.close, box.close_stream]
        for call in of_stream + of_box:
            del refused[:], calls[:]
            box.append(3)
            calls.append(call)
            assert box.flush(5) == 0
            assert refused, call
        del calls[:]
    assert list(s.read()) == [3] * 18


def threads_are_refused():
    import threading

    s = Stream(url(), timeout=5)
    s.create()
    box = Outbox(None, s, "p")
    done = []
    refused = []

    def work(call):
        for _ in range(30):
            try:
                done.append(call())
            except RuntimeError as exc:
                assert "in use" in str(exc), exc
                refused.append(1)

    calls = [lambda: s.append("direct").status, lambda: s.head().status, lambda: box.append("kept") and "kept"]
    calls += [lambda: box.flush(5) and None, lambda: len(list(s.read())) and None, lambda: box.records and None]
    workers = [threading.Thread(target=work, args=(call,)) for call in calls * 2]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert box.flush(5) == 0
    got = list(s.read())
    assert got.count("direct") == done.count(204) and got.count("kept") == done.count("kept")
    assert refused and set(done) <= {204, 200, "kept", None}, set(done)


async def main():
    await no_answer_is_another_ones()
    await thirty_appends_are_thirty()
    for path in (None, FOLDER + "/shared"):
        await every_method_beside_every_other(path)
    await a_flush_beside_run()
    await a_task_that_ends_unwatched_is_told()
    await a_flush_that_has_to_wait_ends_in_time()


asyncio.run(main())
what_calls_back_is_refused()
if sys.implementation.name == "cpython":
    threads_are_refused()
assert ds_micro.MARK is aio.MARK
print("done")
