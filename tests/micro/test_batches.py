"""Reading in batches on CPython (`ds_micro.batches`): every item once and in order, whatever breaks, as one by one."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator

import pytest

from ds_core.client.errors import BadResponse
from ds_core.client.reader import MARK, NEED_DATA, OVER
from ds_micro import Stream, aio
from ds_micro.batches import Reader, batches
from tests.core.client import test_reader as model
from tests.tools import serve


def drive(reader: Reader, server: model.Server, cut: int | None = None, step: int = 1000) -> list[object]:
    """Ask until it is over; the first answer breaks after `cut` bytes. What was handed out, batches undone."""
    out: list[object] = []
    while reader.state != OVER:
        status, headers, body = server.get(reader.query())
        reader.head(status, headers)
        broken = cut is not None and cut < len(body)
        body = body[:cut] if broken else body
        cut = None
        for at in range(0, len(body), step):
            reader.feed(memoryview(body[at : at + step]))
            while (batch := reader.next()) is not NEED_DATA:
                assert batch is MARK or isinstance(batch, list) and batch
                before = reader.cursor.items
                out += [batch] if batch is MARK else batch
                assert batch is MARK or before >= len(batch), "all of it counts as handled"
        if not broken:
            reader.end()
    return out


@pytest.mark.parametrize("chunk", [1, 4, 100])
def test_a_break_at_every_byte_loses_and_repeats_nothing(chunk: int) -> None:
    for server, values in model.streams(chunk, closed=True):
        for cut in range(len(server.join(0, min(chunk, len(values))))):
            for live in (None, "long-poll", "sse"):
                for step in (5, 1000):
                    cursor = model.Cursor()
                    assert drive(Reader(cursor, live), server, cut, step) == values, (cut, live, step)
                    assert (cursor.offset, cursor.items) == (f"{len(values):08}", 0)


def test_a_cursor_within_an_answer_passes_over_what_was_handled() -> None:
    for server, values in model.streams(100, closed=True):
        for done in range(len(values) + 1):
            assert drive(Reader(model.Cursor("-1", done)), server) == values[done:]


def test_what_is_no_item_is_an_error_behind_the_items_before_it() -> None:
    for content_type, body, good in (
        ("application/json", b"[1,2,x]", [1, 2]),
        ("application/cbor-seq", b"\x01\x02\xff\x03", [1, 2]),
    ):
        reader = Reader(model.Cursor())
        reader.head(200, {"content-type": content_type, "stream-next-offset": "5"})
        reader.feed(body)
        assert reader.next() == good
        with pytest.raises(BadResponse):
            reader.next()


@pytest.fixture(scope="module")
def server() -> Iterator[serve.Server]:
    with serve.start("--memory", "--long-poll-timeout", 1) as running:
        yield running


@pytest.mark.parametrize("content_type", ["application/json", "application/cbor-seq"])
def test_items_come_in_lists_blocking_and_on_asyncio(server: serve.Server, content_type: str) -> None:
    url = f"{server.url}/batches/{content_type[-4:]}"
    stream = Stream(url, content_type=content_type, buffer=4096)
    stream.create()
    values = [{"n": n, "text": "żółw"} for n in range(2000)]
    for at in range(0, 2000, 500):
        stream.append(*values[at : at + 500])
    found = list(batches(stream))
    assert [item for batch in found for item in batch] == values
    assert len(found) < 100 and max(map(len, found)) < 500, "as much as the buffer holds"

    async def main() -> list[object]:
        out: list[object] = []
        tail = batches(aio.Stream(url, content_type=content_type), live="long-poll")
        async for batch in tail:
            out += batch
            if len(out) == 2000:
                await aio.Stream(url, content_type=content_type).append({"n": 2000})
                await aio.Stream(url).seal()
        assert tail.closed
        return out

    assert asyncio.run(main()) == [*values, {"n": 2000}]


def test_text_comes_in_pieces(server: serve.Server) -> None:
    stream = Stream(server.url + "/batches/text", content_type="text/plain")
    stream.create()
    stream.append("one\ntwo\n")
    assert b"".join(batches(stream)) == b"one\ntwo\n"
    assert list(batches(stream, "now")) == []


def test_a_device_has_none_of_it() -> None:
    names = {path.name for path in (serve.ROOT / "micro" / "ds_micro").glob("*.py")}
    text = (serve.ROOT / "micro" / "manifest.py").read_text() + (serve.ROOT / "package.json").read_text()
    ours = {"cpython.py", "batches.py", "quick_cbor.py", "quick_json.py"}
    assert {name for name in names if name not in text} == ours
    code = "import sys, ds_micro, ds_micro.aio; sys.exit('cbor2' in sys.modules or 'ds_micro.batches' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env=serve.environment(), timeout=60).returncode == 0
