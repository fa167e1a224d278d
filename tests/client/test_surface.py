"""What a programmer meets before anything is sent: names, signatures, types, and what is wrong told where it is."""

from __future__ import annotations

import asyncio
import inspect
import json
import math
import pydoc
import random
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st

import ds_client
from ds_client import Client, Cursor, Result
from ds_client.lines import Line
from ds_core.client.backoff import Backoff
from ds_core.client.memory import MemoryStore
from ds_core.wire import cbor
from ds_micro import Outbox, Stream, aio
from ds_micro.net import Net
from tests.client.test_session import JSON, fresh
from tests.test_stubs import run as checked
from tests.tools import serve

TWICE = ("Session", "Stream", "Producer", "Items")
URL = "http://127.0.0.1:1/v1/stream"

PROGRAM = """
import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any, assert_type

from ds_client import Client, Closed, Cursor, Disconnected, Items, Producer, Result, Session, Stream, StreamError


def failed(error: StreamError, attempt: int) -> None:
    assert_type(error.status, int)


client = Client("http://h/v1/stream", token=lambda: "secret", ca=None, timeout=2.5, on_error=failed)
with client as session:
    assert_type(session, Session)
    s = session.stream("a", content_type="application/json")
    assert_type(s, Stream)
    assert_type(s.create(ttl=60, values=[1], expires_at=None, closed=False), Result)
    assert_type(s.append(1, "two", raw=False, seq="1", close=False).offset, str | None)
    assert_type(s.fork(s, offset="1", sub_offset=2), Result)
    assert_type(s.head().closed, bool)
    assert_type(s.exists(), bool)
    assert_type(s.seal(), Result)
    assert_type(s.delete(), Result)
    s.close()
    with s.read(Cursor("c").load(), live="sse", limit=5, deadline=1) as items:
        assert_type(items, Items)
        assert_type(items.caught_up, bool)
        assert_type(items.batches(), Iterator[list[Any]])
    for item in s.follow("now"):
        pass
    with s.producer("p", in_flight=2) as p:
        assert_type(p, Producer)
        assert_type(p.append(1, timeout=3), Result)
        p.put(2)
        p.flush()
        p.seal()
        assert_type(p.pending, int)
    s.apend(1)  # type: ignore[attr-defined]
    s.create(ttl="60")  # type: ignore[arg-type]
    s.read(live="often")  # type: ignore[arg-type]
    session.stream("b", contenttype="c")  # type: ignore[call-arg]
Client("http://h/v1/stream", tokn="secret")  # type: ignore[call-arg]
client.open().close()


async def main() -> None:
    async with client as session:
        s = session.stream("a")
        assert_type(await s.append(1), Result)
        s.append(1).offset  # type: ignore[attr-defined]
        await s.create(ttl=1)
        await s.fork("b")
        assert_type(await s.seal(), Result)
        assert_type(await s.exists(), bool)
        await s.head()
        await s.delete()
        await s.aclose()
        async for item in s.read():
            pass
        async with s.follow() as items:
            assert_type(items.batches(), AsyncIterator[list[Any]])
        async with s.producer("p") as p:
            assert_type(await p.append(1), Result)
            p.put(1)
            await p.flush()
            await p.seal()


asyncio.run(main())
"""


@pytest.mark.timeout(300)
def test_a_program_is_checked(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    assert checked("mypy", "--strict", str(program)) == ""
    assert (Path(ds_client.__file__).parent / "py.typed").is_file()


def test_help_shows_what_there_is() -> None:
    text = pydoc.plain(pydoc.render_doc(Client))
    assert "token: 'Secret | None' = None" in text and "on_error: " in text
    for name in ("Client", *(kind + each for each in TWICE for kind in ("", "Async"))):
        for method, value in inspect.getmembers(getattr(ds_client, name), inspect.isfunction):
            if not method.startswith("_"):
                annotations = inspect.signature(value)
                assert annotations.return_annotation is not inspect.Signature.empty, (name, method)
                assert inspect.getdoc(value), (name, method)


def test_the_two_kinds_of_session_have_the_same_names() -> None:
    for name in TWICE:
        one, other = (getattr(ds_client, each) for each in (name, "Async" + name))
        names = {each for each in dir(one) if not each.startswith("_")}
        assert {each.replace("aclose", "close") for each in dir(other) if not each.startswith("_")} == names
        for each in names - {"close"}:
            if callable(getattr(one, each)):
                parameters = [list(inspect.signature(getattr(it, each)).parameters) for it in (one, other)]
                assert parameters[0] == parameters[1], each


def test_importing_loads_no_event_loop() -> None:
    code = "import sys, ds_client; print(*sorted(sys.modules)); ds_client.Client; print(*sorted(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], env=serve.environment(), capture_output=True, text=True, timeout=60, check=True
    )
    first, second = (set(line.split()) for line in done.stdout.splitlines())
    assert not first & {"socket", "ssl", "cbor2", "logging"} and not second & {"asyncio", "trio", "urllib.request"}


@pytest.mark.parametrize(
    ("call", "kind", "text"),
    [
        (lambda s: Client(URL, tokn="x"), TypeError, r"Client\(\) has no option tokn; did you mean token\?"),
        (lambda s: s.stream("a", contenttype="x"), TypeError, r"option contenttype; did you mean content_type"),
        (lambda s: s.straem, AttributeError, "^Session has no straem; did you mean stream"),
        (lambda s: s.append, AttributeError, r"^Session has no append: a stream has it, `session.stream\(path\)`"),
        (lambda s: Client(URL).stream, AttributeError, "^Client has no stream: a session has it"),
        (lambda s: s.stream("a").apend, AttributeError, "^Stream has no apend; did you mean append"),
        (lambda s: s.stream("a").append(1, sq=1), TypeError, r"^Stream.append\(\) has no option sq; did you mean seq"),
        (lambda s: s.stream("a").read(livee="sse"), TypeError, r"^Stream.read\(\) has no option livee; .* live\?"),
        (lambda s: s.stream("a").read().curser, AttributeError, "^Items has no curser; did you mean cursor"),
        (lambda s: s.stream("a").producer("p").flsh, AttributeError, "^Producer has no flsh; did you mean flush"),
        (lambda s: ds_client.Clinet, AttributeError, "ds_client has no Clinet; did you mean Client"),
        (lambda s: Client("127.0.0.1:4437"), ValueError, "http://HOST"),
        (lambda s: Client(URL + "?key=1"), ValueError, "params="),
        (lambda s: Client(URL, ca="x.pem"), ValueError, "for https only: ca"),
        (lambda s: Client("https://h/s", ca="/none.pem"), OSError, "none.pem"),
        (lambda s: Client(URL, timeout=0), ValueError, "timeout"),
        (lambda s: Client(URL, connections=0), ValueError, "connections"),
        (lambda s: Client(URL, readers=2.5), ValueError, "readers"),
        (lambda s: Client(URL, idle=-1), ValueError, "idle"),
        (lambda s: Client(URL, on_error=3), TypeError, "on_error"),
        (lambda s: s.stream(""), ValueError, "greenhouse/7"),
        (lambda s: s.stream("/a"), ValueError, "greenhouse/7"),
        (lambda s: s.stream("../a"), ValueError, "greenhouse/7"),
        (lambda s: s.stream(URL), ValueError, "greenhouse/7"),
        (lambda s: s.stream(b"a"), TypeError, "not bytes"),
        (lambda s: s.stream("a").read(live="often"), ValueError, "live"),
        (lambda s: s.stream("a").create(), ValueError, "content_type"),
        (lambda s: s.stream("a", JSON).append(), ValueError, "nothing to append"),
        (lambda s: s.stream("a", JSON).append({1: 2}), TypeError, "keys are strings"),
        (lambda s: s.stream("a", JSON).append(math.nan), ValueError, ""),
        (lambda s: s.stream("a", JSON).producer(""), ValueError, "producer"),
        (lambda s: s.stream("a").producer("p", in_flight=0), ValueError, "in_flight"),
        (lambda s: s.stream("a").producer("p", limit=0), ValueError, "limit"),
        (lambda s: s.stream("a").producer("p").put(1), RuntimeError, "content type is not known yet"),
        # The device's, and the core's
        (lambda s: Stream(URL + "/a", tokn="x"), TypeError, "^Stream has no option tokn; did you mean token"),
        (lambda s: Stream("https://h/a", tokn="x"), TypeError, "^Stream has no option tokn; did you mean token"),
        (lambda s: Stream(URL + "/a").apend, AttributeError, "^Stream has no apend; did you mean append"),
        (lambda s: Stream(URL + "/a").create(tll=5), TypeError, r"^Stream.create\(\) .* tll; did you mean ttl"),
        (lambda s: Outbox(None, Stream(URL + "/a"), "p").flsh, AttributeError, "^Outbox has no flsh; did .* flush"),
        (lambda s: Backoff(random), TypeError, "random.randrange"),
        (lambda s: Backoff(random.random), TypeError, ""),
        (lambda s: Backoff(random.randrange, 0), ValueError, "first, most"),
        (lambda s: MemoryStore(1, 0, JSON, False, 9, 9, 0, "refuse"), ValueError, "json=False: .* application/json"),
        (lambda s: MemoryStore(1, 0, "text/plain", True, 9, 9, 0, "refuse"), ValueError, "json=True"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_where_it_is(call: Any, kind: type[Exception], text: str) -> None:
    with Client(URL, trust_env=False) as session:
        with pytest.raises(kind, match=text or None):
            call(session)


def test_a_client_is_entered_once_at_a_time() -> None:
    client = Client(URL, trust_env=False)
    for _ in range(2):
        with client as session:
            with pytest.raises(RuntimeError, match="share its session"), client:
                pass
            other = client.open()
            other.close()
            assert session.stream("a")


def test_everything_says_what_it_is() -> None:
    with Client(URL, token="secret", trust_env=False) as session:
        stream = session.stream("a", JSON)
        things = (Client(URL, token="secret"), session, stream, stream.read(), stream.producer("p"))
        shown = [repr(each) for each in things]
    device = Stream(URL + "/a", token="secret")
    shown += [repr(each) for each in (device, device.read(), aio.Stream(URL + "/a"), Outbox(None, device, "p"))]
    assert repr(Cursor(None, "5", 2)) == "<Cursor 5+2>"
    assert repr(Result(204, {"stream-next-offset": "7"})) == "<Result 204 offset 7>"
    for text in shown:
        assert URL in text and "secret" not in text and " object at 0x" not in text


def test_a_devices_stream_is_sealed_by_its_name(gateway: str) -> None:
    stream = Stream(f"{gateway}/{fresh()}", content_type=JSON)
    stream.create()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        stream.disconnect()
        assert not stream.head().closed, "which has connected again"
        assert stream.seal().closed
    with pytest.warns(DeprecationWarning, match=r"seal\(\), or disconnect\(\)") as caught:
        assert stream.close().closed
    assert caught[0].filename == __file__
    stream.disconnect()

    async def main() -> None:
        other = aio.Stream(stream.url)
        assert (await other.head()).closed
        await other.disconnect()
        with pytest.warns(DeprecationWarning) as caught:
            assert (await other.close()).closed
        assert caught[0].filename == __file__
        await other.disconnect()

    asyncio.run(main())


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary()
values = st.recursive(scalars, lambda of: st.lists(of) | st.dictionaries(scalars, of), max_leaves=20)


@given(values)
def test_cbor_is_encoded_as_by_the_device(value: object) -> None:
    """Another encoder, in machine code, and a reader gets the same; what the one refuses, the other does."""
    line = Line(Client(URL, trust_env=False)._settings.pattern, Net(), None)
    line.about(URL + "/a", "/a", "application/cbor-seq")
    try:
        expected = cbor.encode(value)
    except (TypeError, ValueError) as exc:
        with pytest.raises(type(exc)):
            line.encode(value)
        return
    found = []
    for data in (expected, line.encode(value)):
        decoder = cbor.Decoder()
        decoder.feed(data)
        found.append(decoder.next())
    assert repr(found[0]) == repr(found[1])


def test_the_page_does_what_it_says(gateway: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(ds_client.__file__).parent / "README.md").read_text()
    block = page.partition("    from ds_client")[2].partition("\n\nOn asyncio")[0]
    program = "from ds_client" + block.replace("\n    ", "\n")
    program = program.replace("http://127.0.0.1:4437/v1/stream", f"{gateway}/{fresh()}").rstrip().removesuffix("...")
    program += "found.append(item['t'])\n        if len(found) == 3:\n            air.seal()\n"
    monkeypatch.chdir(tmp_path)
    told: dict[str, Any] = {"found": []}
    exec(compile(program, "README.md", "exec"), told)
    assert told["found"] == [21.5, 21.6, 21.7] and json.dumps(told["found"])


def test_no_board_gets_it() -> None:
    root = serve.ROOT
    for file in ("package.json", "micro/manifest.py", "micro/build.py"):
        assert "ds_client" not in (root / file).read_text()
