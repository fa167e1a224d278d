"""What an application asks of a session, in each of the three ways to wait, from a real gateway."""

from __future__ import annotations

import contextlib
import itertools
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

from ds_client import Client, Closed, Conflict, Cursor, NotFound, OutboxFull, StreamError, Timeout
from tests.client.ways import Way
from tests.micro.listening import Listening

pytestmark = pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
JSON = "application/json"
_number = itertools.count()


def fresh() -> str:
    return f"client/{next(_number)}"


def test_a_stream_from_its_creation_to_its_end(way: Way, gateway: str) -> None:
    async def main() -> None:
        async with way.session(gateway) as session:
            notes = session.stream(fresh() + "/żółw & co", JSON)
            assert not await notes.exists()
            made = await notes.create(ttl=60, values=[1, {"two": 2}])
            assert (made.status, made.duplicate, made.closed) == (201, False, False)
            assert (await notes.create(ttl=60)).status == 200
            after = await notes.append(3.5, None)
            assert (await notes.head()).offset == after.offset
            assert [each async for each in notes.read()] == [1, {"two": 2}, 3.5, None]
            assert [each async for each in notes.read(made.offset)] == [3.5, None]
            assert [each async for each in notes.read("now")] == []
            assert b"".join([each async for each in notes.read(raw=True)]) == b'[1,{"two": 2},3.5,null]'

            fork = session.stream(fresh(), JSON)
            await fork.fork(notes, offset=made.offset)
            assert [each async for each in fork.read()] == [1, {"two": 2}]
            again = session.stream(fresh())
            await again.fork(notes.path)
            assert len([each async for each in again.read()]) == 4

            unknown = session.stream(notes.path)
            assert unknown.content_type is None
            await unknown.append("the type is found out")
            assert unknown.content_type == JSON

            await notes.aclose()  # which closes nothing
            assert not (await notes.head()).closed
            assert (await notes.seal()).closed and (await notes.seal()).closed
            with pytest.raises(Closed) as caught:
                await notes.append(4)
            assert caught.value.status == 409 and not caught.value.retry and caught.value.url == notes.url
            items = notes.follow()
            assert len([each async for each in items]) == 5 and items.closed and items.caught_up
            await notes.delete()
            with pytest.raises(StreamError):
                await notes.append(4)
            with pytest.raises(NotFound):
                await session.stream(fresh()).head()

    way.run(main)


@pytest.mark.parametrize("content_type", [JSON, "application/cbor-seq"])
def test_thirty_appends_at_once_are_thirty_appends(way: Way, gateway: str, content_type: str) -> None:
    async def main() -> None:
        async with way.session(gateway) as session:
            stream = session.stream(fresh(), content_type)
            await stream.create()
            done = await way.together(*[lambda i=i: stream.append({"n": i}) for i in range(30)])
            assert len({each.offset for each in done}) == 30
            assert sorted([each["n"] async for each in stream.read()]) == list(range(30))

    way.run(main)


def test_a_producer_writes_what_many_append_once(way: Way, gateway: str) -> None:
    async def main() -> None:
        async with way.session(gateway, connections=3) as session:
            stream = session.stream(fresh(), JSON)
            await stream.create()
            producer = stream.producer("p", batch_bytes=200)
            done = await way.together(*[lambda i=i: producer.append(i, -i) for i in range(1, 101)])
            assert all(each.status == 200 and each.offset for each in done), done
            found = [each async for each in stream.read()]
            assert sorted(found) == sorted([*range(-100, 0), *range(1, 101)])
            assert all(found[found.index(i) + 1] == -i for i in range(1, 101)), "what is appended together is together"
            assert producer.pending == 0
            async with producer:
                for i in range(50):
                    producer.it.put(i) if way.name == "threads" else producer.put(i)
                assert producer.pending == 50
            assert producer.pending == 0 and len([each async for each in stream.read()]) == 250
            await producer.append("last")
            await producer.seal()
            assert (await stream.head()).closed
            refused = await way.together(*[lambda i=i: producer.append(i) for i in range(5)])
            assert {type(each) for each in refused} == {Closed} and producer.pending == 0

    way.run(main)


def test_a_producer_with_little_room_waits(way: Way, gateway: str) -> None:
    async def main() -> None:
        async with way.session(gateway) as session:
            stream = session.stream(fresh(), JSON)
            await stream.create()
            producer = stream.producer("p", batch_bytes=64, limit=256)
            done = await way.together(*[lambda i=i: producer.append("x" * 20, i) for i in range(40)])
            assert [each for each in done if isinstance(each, Exception)] == []
            assert len([each async for each in stream.read()]) == 80
            with pytest.raises(StreamError, match="no room"):
                for _ in range(30):
                    producer.it.put("x" * 20) if way.name == "threads" else producer.put("x" * 20)
            await producer.flush()

    way.run(main)


def test_a_batch_that_is_refused_is_told_to_its_own(way: Way, gateway: str) -> None:
    async def main() -> None:
        async with way.session(gateway) as session:
            stream = session.stream(fresh(), JSON)
            await stream.create()
            producer = stream.producer("p", batch_bytes=1)
            deep = b"[" * 200 + b"]" * 200  # JSON, but not for every reader: the server refuses it
            calls = [lambda i=i: producer.append(b"%d" % i if i != 5 else deep, raw=True) for i in range(12)]
            done = await way.together(*calls)
            assert [type(each).__name__ for each in done if isinstance(each, Exception)] == ["BadRequest"]
            assert sorted([each async for each in stream.read()]) == [i for i in range(12) if i != 5]

    way.run(main)


def test_what_cannot_be_kept_is_told_before_anything_is(way: Way, gateway: str) -> None:
    async def main() -> None:
        async with way.session(gateway) as session:
            text, values = session.stream(fresh(), "text/plain"), session.stream(fresh(), JSON)
            for stream, good, wrong, raw in (
                (text, "a", "x" * 2000, False), (text, "a", "", False), (text, "a", 5, False), (text, b"a", "a", True),
                (values, 1, float("nan"), False), (values, 1, {1}, False), (values, b"1", b"1,2", True),
                (values, b"1", b"{", True), (values, b"1", b"", True), (values, b"1", b" " * 2000 + b"1", True),
            ):  # fmt: skip
                await stream.create()
                producer = stream.producer("p", limit=1000)
                for call in (producer.append, producer.put):
                    with pytest.raises((ValueError, TypeError)):
                        await run_either(call, good, wrong, raw=raw)
                assert producer.pending == 0
                await producer.append(good, raw=raw)
                assert producer.pending == 0
            assert [each async for each in values.read()] == [1] * 6
            assert b"".join([each async for each in text.read()]) == b"aaaa"

    async def run_either(call: Any, *values: Any, raw: bool) -> None:
        found = call(*values, raw=raw)
        if found is not None:  # put() of tasks is not awaited
            await found

    way.run(main)


def test_appends_and_a_seal_may_be_first_at_once(tasks: Way, gateway: str) -> None:
    """Of a stream whose content type is not known yet: all of them ask for it, and there is one outbox."""

    async def main() -> None:
        async with tasks.session(gateway) as session:
            for turns in range(20):
                path = fresh()
                await session.stream(path, "text/plain").create()
                producer = session.stream(path).producer("p")

                async def seal(turns: int = turns, producer: Any = producer) -> None:
                    for _ in range(turns * 3):
                        await tasks.turn()
                    await producer.seal(timeout=5)

                calls = [lambda i=i, producer=producer: producer.append(f"<{i}>", timeout=5) for i in range(3)]
                done = await tasks.together(*calls, seal)
                text = b"".join([each async for each in session.stream(path).read()]).decode()
                for i in range(3):
                    assert isinstance(done[i], Exception) or f"<{i}>" in text, (done, text)

    tasks.run(main)


def test_what_had_no_room_is_said_to_be_not_kept(way: Way) -> None:
    silent = Silent()

    async def main() -> None:
        async with way.session(silent.url) as session:
            producer = session.stream("s", "text/plain").producer("p", limit=10)
            with pytest.raises(Timeout, match="and kept"):
                await producer.append("12345678", timeout=0.2)
            with pytest.raises(OutboxFull, match="the last 1 of this call are not kept"):
                await producer.append("second", timeout=0.2)
            assert producer.pending == 1

    way.run(main)
    silent.listener.close()


def test_every_append_of_threads_is_told_where_it_is(gateway: str) -> None:
    """Also when another thread sends a record and has its answer before this one begins to wait."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with Client(gateway, trust_env=False) as session:
            stream = session.stream(fresh(), "text/plain")
            stream.create()
            producer = stream.producer("p", batch_bytes=64)
            found: list[str | None] = []

            def work() -> None:
                for _ in range(300):
                    found.append(producer.append("abcd").offset)

            threads = [threading.Thread(target=work) for _ in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(60)
            assert len(found) == 2400 and None not in found
    finally:
        sys.setswitchinterval(interval)


def test_live_readers_hold_up_no_appends(way: Way, gateway: str) -> None:
    """As many as there may be, and one more, which is told so; with one connection for all requests."""

    async def main() -> None:
        async with way.session(gateway, connections=1, readers=3, timeout=1) as session:
            stream = session.stream(fresh(), JSON)
            await stream.create(values=[0])
            held = [stream.follow() for _ in range(3)]
            for items in held:
                assert await items.__anext__() == 0
            with pytest.raises(Timeout, match="all 3 readers of the pool are in use"):
                await stream.read().__anext__()
            assert len(await way.together(*[lambda i=i: stream.append(i) for i in range(1, 11)])) == 10
            for items in held:
                assert [await items.__anext__() for _ in range(10)]
            await held.pop().aclose()
            assert await stream.read().__anext__() == 0
            held.clear(), locals().pop("items", None)
            del items  # nobody has them any more
            for _ in range(3):
                assert len([each async for each in stream.read()]) == 11

    way.run(main)


def test_a_cursor_is_exact_after_each_item(way: Way, gateway: str) -> None:
    async def main() -> None:
        async with way.session(gateway, max_bytes=100) as session:
            for content_type, values in ((JSON, list(range(200))), ("text/plain", ["x" * 10] * 20)):
                stream = session.stream(fresh(), content_type)
                await stream.create(values=values)
                whole = [each async for each in stream.read()]
                for at in sorted({0, min(1, len(whole)), min(7, len(whole)), len(whole) - 1, len(whole)}):
                    cursor = Cursor()
                    first = stream.read(cursor)
                    found = [await first.__anext__() for _ in range(at)]
                    await first.aclose()
                    found += [each async for each in stream.read(cursor)]
                    assert b"".join(found) == b"".join(whole) if content_type != JSON else found == whole, at
                cursor = Cursor()
                lists = stream.read(cursor).batches()
                found = list(await lists.__anext__())
                async for batch in stream.read(cursor).batches():
                    assert batch
                    found += batch
                assert b"".join(found) == b"".join(whole) if content_type != JSON else found == whole

    way.run(main)


METHODS: dict[str, Callable[[Any, Any], Any]] = {
    "create": lambda s, p: s.create(),
    "append": lambda s, p: s.append({"a": 1}),
    "producer": lambda s, p: p.append({"b": 2}),
    "flush": lambda s, p: p.flush(),
    "head": lambda s, p: s.head(),
    "exists": lambda s, p: s.exists(),
    "read": lambda s, p: _whole(s.read()),
    "follow": lambda s, p: _whole(s.read(live="long-poll", deadline=0.05)),
    "fork": lambda s, p: s.fork("nothing/there"),
    "seal": lambda s, p: s.seal(),
    "delete": lambda s, p: s.delete(),
}


async def _whole(items: Any) -> list[Any]:
    return [each async for each in items]


def test_each_method_beside_each(way: Way, gateway: str) -> None:
    """Whatever the other does, a call ends with its answer or a StreamError, and the pool is as it was."""

    async def main() -> None:
        async with way.session(gateway, connections=4) as session:
            for one, other in itertools.combinations_with_replacement(METHODS, 2):
                stream = session.stream(fresh(), JSON)
                await stream.create(values=["here"])
                producer = stream.producer("p")
                calls = [lambda name=name, s=stream, p=producer: METHODS[name](s, p) for name in (one, other) * 3]
                for found in await way.together(*calls):
                    assert not isinstance(found, Exception) or isinstance(found, StreamError), (one, other, found)
            last = session.stream(fresh(), JSON)
            await last.create(values=["x"])
            assert [each async for each in last.read()] == ["x"]
            assert repr(session.it if way.name == "threads" else session).count("0 of ") == 2

    way.run(main)


def test_a_cancelled_call_leaves_the_pool_sane(tasks: Way, gateway: str) -> None:
    """Cancelled at each of its awaits: no connection is used again with an answer due, and no record is twice."""
    import asyncio

    import trio

    async def cancelled(call: Callable[[], Any], turns: int) -> None:
        if tasks.name == "asyncio":
            task = asyncio.ensure_future(call())
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            return
        async with trio.open_nursery() as nursery:
            scope = trio.CancelScope()

            async def run() -> None:
                with scope:
                    await call()

            nursery.start_soon(run)
            for _ in range(turns):
                await trio.lowlevel.checkpoint()
            scope.cancel()

    async def main() -> None:
        async with tasks.session(gateway, connections=1) as session:
            stream = session.stream(fresh(), JSON)
            other = session.stream(fresh(), JSON)
            await stream.create(values=[0])
            offset = (await other.create(values=["other"])).offset
            producer = stream.producer("p")
            for turns in range(1, 31):
                for call in (
                    lambda turns=turns: stream.append(turns),
                    lambda turns=turns: producer.append(1000 + turns),
                    stream.head,
                    lambda: _whole(stream.read()),
                ):
                    await cancelled(call, turns)
                    assert (await other.head()).offset == offset
                    assert [each async for each in other.read()] == ["other"]
                    assert repr(session).count("0 of ") == 2
            await producer.flush()
            found = [each async for each in stream.read()]
            assert sorted(each for each in found if each >= 1000) == list(range(1001, 1031))
            assert len(found) == len(set(found))

    tasks.run(main)


def test_an_iteration_goes_on_after_it_was_cancelled(tasks: Way, gateway: str) -> None:
    import asyncio

    import trio

    async def main() -> None:
        async with tasks.session(gateway) as session:
            stream = session.stream(fresh(), JSON)
            await stream.create(values=[1])
            items = stream.follow(live="long-poll")
            assert await items.__anext__() == 1
            if tasks.name == "asyncio":
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(items.__anext__(), 0.1)
            else:
                with trio.move_on_after(0.1):
                    await items.__anext__()
            await stream.append(2)
            assert await items.__anext__() == 2
            await items.aclose()

    tasks.run(main)


class Silent(Listening):
    """Takes requests, and says nothing."""

    def __init__(self) -> None:
        self.come = threading.Semaphore(0)
        super().__init__()

    def serve(self, conn: Any) -> None:
        with conn, contextlib.suppress(OSError):
            while conn.recv(65536):
                self.come.release()


def test_the_end_of_a_session_ends_what_waits() -> None:
    silent = Silent()
    found: list[BaseException] = []
    with Client(silent.url, trust_env=False, connections=1) as session:
        stream = session.stream("s", JSON)

        def call(what: Callable[[], object]) -> None:
            try:
                what()
            except (RuntimeError, StreamError) as exc:
                found.append(exc)

        reads = (stream.head, stream.head, lambda: list(stream.read(patience=None)), lambda: list(stream.follow()))
        threads = [threading.Thread(target=call, args=(each,)) for each in reads]
        for thread in threads:
            thread.start()
        for _ in range(3):  # the second head waits for its turn
            assert silent.come.acquire(timeout=20)
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    assert len(found) == 4
    with pytest.raises(RuntimeError, match="the session is over"):
        stream.head()
    silent.listener.close()


def test_closing_does_not_seal(gateway: str) -> None:
    with Client(gateway).open() as session:
        with contextlib.closing(session.stream(fresh(), JSON)) as stream:
            stream.create()
        assert not stream.head().closed
        with contextlib.closing(stream.follow()) as items:
            pass
        assert list(items) == []
        with pytest.raises(Conflict):
            session.stream(stream.path, "text/plain").create()
