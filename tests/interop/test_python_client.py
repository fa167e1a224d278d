"""The official Python client (`durable-streams` on PyPI) against `ds serve`."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import Callable, Iterator

import durable_streams
import httpx
import pytest
from durable_streams import (
    AsyncDurableStream,
    DurableStream,
    DurableStreamError,
    StreamNotFoundError,
    astream,
    stream as read,
)

from tests.interop.conftest import PAUSE

NewUrl = Callable[[], str]
SECONDS = 15


@contextlib.contextmanager
def later(action: Callable[[], object]) -> Iterator[None]:
    """Run `action` while the block waits for its effect; its exception becomes the block's."""
    faults: list[BaseException] = []

    def run() -> None:
        try:
            action()
        except BaseException as exc:
            faults.append(exc)

    timer = threading.Timer(PAUSE, run)
    timer.start()
    try:
        yield
    finally:
        timer.join(SECONDS)
    if faults:
        raise faults[0]


def close(url: str) -> httpx.Response:
    """This client cannot close a stream, so its user sends the request."""
    return httpx.post(url, headers={"Stream-Closed": "true"})


def test_bytes_from_create_to_delete(new_url: NewUrl) -> None:
    url = new_url()
    first, second = bytes(range(256)), b"\r\n\x00" * 100
    with DurableStream.create(url, content_type="application/octet-stream", batching=False) as handle:
        middle = handle.append(first).next_offset
        end = handle.append(second).next_offset
        assert middle < end
        with handle.stream(live=False) as res:
            assert res.read_bytes() == first + second
            assert res.offset == end
            assert res.up_to_date
        with handle.stream(offset=middle, live=False) as res:
            assert res.read_bytes() == second
        head = handle.head()
        assert head.offset == end
        assert head.content_type == "application/octet-stream"

        assert close(url).status_code == 204
        with pytest.raises(DurableStreamError):
            handle.append(b"more")
        with read(url, live=False) as res:
            assert res.read_bytes() == first + second
            assert res.headers["stream-closed"] == "true"

        handle.delete()
        with pytest.raises(StreamNotFoundError):
            handle.head()
        with pytest.raises(DurableStreamError):
            read(url, live=False)


def test_json_items_come_back_and_resume(new_url: NewUrl) -> None:
    url = new_url()
    items = [{"n": 1, "text": "żółw 🐢"}, {"n": 2, "nested": [[1], [2, [3]]]}, "three", 4.5, None, True, [5]]
    with DurableStream.create(url, content_type="application/json", batching=False) as handle:
        offsets = [handle.append(item).next_offset for item in items]
        assert offsets == sorted(set(offsets))
        with read(url, live=False) as res:
            assert res.read_json() == items
        for position, offset in enumerate(offsets):
            with read(url, offset=offset, live=False) as res:
                assert res.read_json() == items[position + 1 :]


def test_a_stream_of_some_megabytes_comes_whole(new_url: NewUrl) -> None:
    url = new_url()
    with DurableStream.create(url, content_type="application/json", batching=False) as handle:
        for first in range(0, 6000, 1000):
            body = json.dumps([{"n": n, "pad": "x" * 1000} for n in range(first, first + 1000)])
            assert httpx.post(url, content=body, headers={"Content-Type": "application/json"}).is_success
        with handle.stream(live=False) as res:
            assert [item["n"] for item in res.read_json()] == list(range(6000))
            assert res.up_to_date


def test_batched_appends_of_many_threads_all_arrive(new_url: NewUrl) -> None:
    url = new_url()
    with DurableStream.create(url, content_type="application/json") as handle:
        threads = [threading.Thread(target=handle.append, args=({"n": n},)) for n in range(40)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(SECONDS)
        with read(url, live=False) as res:
            assert sorted(item["n"] for item in res.read_json()) == list(range(40))


def test_create_is_idempotent_and_conflicts_are_errors(new_url: NewUrl) -> None:
    url = new_url()
    DurableStream.create(url, content_type="text/plain", ttl_seconds=60, body="hello").close()
    DurableStream.create(url, content_type="text/plain", ttl_seconds=60).close()
    with pytest.raises(durable_streams.StreamExistsError):
        DurableStream.create(url, content_type="application/json")
    with DurableStream.connect(url, batching=False) as handle:
        handle.append(" world", seq="001")
        with pytest.raises(durable_streams.SeqConflictError):
            handle.append("again", seq="001")
        with handle.stream(live=False) as res:
            assert res.read_text() == "hello world"


@pytest.mark.parametrize("live", ["auto", "long-poll"])
def test_bytes_are_tailed_by_long_poll(new_url: NewUrl, live: str) -> None:
    url = new_url()
    with DurableStream.create(url, content_type="application/octet-stream", body=b"old") as handle:
        offset = None if live == "auto" else "-1"
        with read(url, live=live, offset=offset, timeout=SECONDS) as res:
            events = res.iter_events(mode="bytes")
            assert next(events).data == b"old"
            for data in (b"new \xff", b"newer"):
                with later(lambda data=data: handle.append(data)):
                    event = next(events)
                assert event.data == data
                assert event.up_to_date
                assert event.next_offset == handle.head().offset


def test_tailing_resumes_from_a_saved_offset(new_url: NewUrl) -> None:
    url = new_url()
    with DurableStream.create(url, content_type="application/json", body=[1, 2]) as handle:
        with read(url, live="long-poll", offset="-1", timeout=SECONDS) as res:
            saved = next(res.iter_events()).next_offset
        handle.append(3)
        with read(url, live="long-poll", offset=saved, timeout=SECONDS) as res:
            items = res.iter_json()
            assert next(items) == 3
            with later(lambda: handle.append(4)):
                assert next(items) == 4


def test_only_what_is_new_after_now(new_url: NewUrl) -> None:
    url = new_url()
    with DurableStream.create(url, content_type="text/plain", body="old") as handle:
        with later(lambda: handle.append("new")):
            with read(url, offset="now", live="long-poll", timeout=SECONDS) as res:
                assert next(filter(None, res.iter_text())) == "new"


def test_json_is_tailed_by_sse_until_the_stream_closes(new_url: NewUrl) -> None:
    url = new_url()
    with DurableStream.create(url, content_type="application/json", body=[{"n": 0}]) as handle:
        with read(url, live="sse", offset="-1", timeout=SECONDS) as res:
            events = res.iter_events(mode="json")
            event = next(events)
            assert event.data == [{"n": 0}]
            assert event.next_offset == handle.head().offset
            with later(lambda: handle.append({"n": "line\nbreak\r\n"})):
                assert next(events).data == [{"n": "line\nbreak\r\n"}]
            with later(lambda: close(url)):
                assert list(events) == []


def test_text_is_tailed_by_sse(new_url: NewUrl) -> None:
    url = new_url()
    with DurableStream.create(url, content_type="text/plain", body="żółw 🐢\n") as handle:
        with read(url, live="sse", offset="-1", timeout=SECONDS) as res:
            texts = res.iter_text()
            assert next(texts) == "żółw 🐢\n"
            with later(lambda: handle.append("two\nlines")):
                assert next(texts) == "two\nlines"


def test_the_asyncio_client(new_url: NewUrl) -> None:
    url = new_url()

    async def main() -> None:
        async with await AsyncDurableStream.create(url, content_type="application/json") as handle:
            await asyncio.gather(*(handle.append({"n": n}) for n in range(20)))
            async with astream(url, live=False) as res:
                assert sorted(item["n"] for item in await res.read_json()) == list(range(20))
            saved = (await handle.head()).offset
            for live in ("long-poll", "sse"):
                async with astream(url, offset=saved, live=live, timeout=SECONDS) as res:
                    append = asyncio.create_task(handle.append({"live": live}))
                    async for item in res.iter_json():
                        assert item == {"live": live}
                        break
                    saved = (await append).next_offset
            await handle.delete()
            with pytest.raises(StreamNotFoundError):
                await handle.head()

    asyncio.run(main())
