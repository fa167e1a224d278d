"""Access control over real sockets: what is answered to whom, and what nobody learns."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import trio

from ds_trio_server.access import file as access_file
from ds_trio_server.access.file import Access
from ds_trio_server.clock import Clock
from ds_trio_server.store.memory import MemoryStore
from tests.access.conftest import Keys
from tests.server.site import ROOT, Site, request, running


class Guarded:
    """A server with access control and a client that has every right."""

    def __init__(self, site: Site, control: Access, keys: Keys, admin: str) -> None:
        self.site = site
        self.control = control
        self.keys = keys
        self.ask = site.ask
        self.admin = {"authorization": "Bearer " + admin}

    def token(self, name: str, **rights: list[str]) -> dict[str, str]:
        token = self.keys.token(name, **rights)
        self.control.reload()
        return {"authorization": "Bearer " + token}

    async def create(self, path: str) -> None:
        answer = await self.ask("PUT", ROOT + path, b"data", content_type="text/plain", **self.admin)
        assert answer.status == 201, answer


@pytest.fixture
async def guarded(keys: Keys) -> AsyncIterator[Guarded]:
    admin = keys.token("admin", read=["**"], write=["**"], create=["**"])
    control = Access(keys.file)
    async with running(access=control) as site:
        yield Guarded(site, control, keys, admin)


METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE")


async def test_without_a_token_everything_is_401(guarded: Guarded) -> None:
    await guarded.create("a")
    for method in METHODS:
        for headers in ({}, {"authorization": "Bearer ds_nobody"}, {"authorization": "Basic YTpi"}):
            answer = await guarded.ask(method, ROOT + "a", **headers)
            assert answer.status == 401, answer
            assert answer.headers["www-authenticate"].startswith('Bearer realm="streams"')
            assert answer.headers["cache-control"] == "no-store"
            invalid = 'error="invalid_token"' in answer.headers["www-authenticate"]
            assert invalid == (headers.get("authorization") == "Bearer ds_nobody")


async def test_options_needs_no_token(guarded: Guarded) -> None:
    answer = await guarded.ask("OPTIONS", ROOT + "a", origin="https://elsewhere.test")
    assert answer.status == 204
    assert "Authorization" in answer.headers["access-control-allow-headers"]


@pytest.mark.parametrize("kind", ["missing", "there", "closed", "deleted", "forked from"])
@pytest.mark.parametrize("method", METHODS)
async def test_403_does_not_tell_whether_a_stream_exists(guarded: Guarded, kind: str, method: str) -> None:
    if kind != "missing":
        await guarded.create("secret")
    if kind == "closed":
        await guarded.ask("POST", ROOT + "secret", stream_closed="true", **guarded.admin)
    if kind in ("deleted", "forked from"):
        await guarded.ask("PUT", ROOT + "fork", stream_forked_from=ROOT + "secret", **guarded.admin)
    if kind == "deleted":
        await guarded.ask("DELETE", ROOT + "secret", **guarded.admin)
    other = guarded.token("other", read=["other/**"], write=["other/**"], create=["other/**"])
    answer = await guarded.ask(method, ROOT + "secret", None if method != "POST" else b"x", **other)
    if method == "HEAD":
        assert answer.status == 403
    else:
        assert (answer.status, answer.code) == (403, "FORBIDDEN")
        verb = {"GET": "read", "POST": "append to", "PUT": "create", "DELETE": "delete"}[method]
        assert answer.body.endswith(f'"other may not {verb} this path"}}}}'.encode())
    nothing = await guarded.ask(method, ROOT + "nothing", None if method != "POST" else b"x", **other)
    assert (nothing.status, nothing.body) == (answer.status, answer.body)
    assert {**nothing.headers, "date": ""} == {**answer.headers, "date": ""}, "as where there is no stream"
    assert "www-authenticate" in answer.headers and not [name for name in answer.headers if "stream" in name]


@pytest.mark.parametrize("exists", [True, False])
async def test_a_fork_tells_nothing_about_its_source(guarded: Guarded, exists: bool) -> None:
    if exists:
        await guarded.create("secret")
    other = guarded.token("other", create=["**"], write=["**"])
    for extra in ({}, {"stream_fork_offset": "-1"}, {"stream_fork_offset": "9999999999999999_9999999999999999"}):
        answer = await guarded.ask("PUT", ROOT + "mine", stream_forked_from=ROOT + "secret", **extra, **other)
        assert (answer.status, answer.code) == (403, "FORBIDDEN")
    assert (await guarded.ask("HEAD", ROOT + "mine", **guarded.admin)).status == 404


async def test_a_refused_append_is_not_read(guarded: Guarded) -> None:
    client = await guarded.site.connect()
    await client.send(f"POST {ROOT}a HTTP/1.1\r\nHost: test\r\nContent-Length: 10000000\r\n\r\n")
    answer = await client.answer()
    assert answer.status == 401 and answer.headers["connection"] == "close"
    client = await guarded.site.connect()
    await client.send(
        f"POST {ROOT}a HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
    )
    assert (await client.answer()).status == 401


async def test_each_request_of_a_connection_shows_its_own_token(guarded: Guarded) -> None:
    await guarded.create("a")
    client = await guarded.site.connect()
    assert (await client.ask("GET", ROOT + "a", **guarded.admin)).body == b"data"
    assert (await client.ask("GET", ROOT + "a")).status == 401
    assert (await client.ask("GET", ROOT + "a", **guarded.admin)).body == b"data"


async def test_a_repeated_authorization_is_nobody(guarded: Guarded) -> None:
    await guarded.create("a")
    client = await guarded.site.connect()
    await client.send(
        f"GET {ROOT}a HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer x\r\n"
        f"Authorization: {guarded.admin['authorization']}\r\n\r\n"
    )
    assert (await client.answer()).status == 401


@pytest.mark.parametrize("size", [1, 2000])
async def test_answers_are_for_their_client_alone(guarded: Guarded, size: int) -> None:
    await guarded.create("a")
    waiter = await _opened(guarded.site, f"{ROOT}a?offset=now&live=long-poll", **guarded.admin)
    while not guarded.site.server.app.fanout.count():
        await trio.sleep(0)
    await guarded.ask("POST", ROOT + "a", b"x" * size, content_type="text/plain", **guarded.admin)
    answers = [await waiter.answer()]
    not_plain = {"x": "1\r\nx: 2"}  # a repeated field keeps a request off the hot path
    for query in ("?offset=-1", "?offset=-1&live=long-poll"):
        for more in ({}, {"accept_encoding": "gzip"}, not_plain):
            answers.append(await guarded.ask("GET", ROOT + "a" + query, **more, **guarded.admin))
    etag = answers[1].headers["etag"]
    for more in ({}, not_plain):
        answers.append(await guarded.ask("GET", ROOT + "a", if_none_match=etag, **more, **guarded.admin))
    assert [answer.status for answer in answers] == [200] * 7 + [304] * 2
    for answer in answers:
        assert answer.headers["cache-control"].startswith("private,")
        assert answer.headers["vary"] == ("Authorization" if size == 1 else "Accept-Encoding, Authorization")


async def test_without_access_control_answers_are_for_everybody() -> None:
    async with running() as site:
        await site.create("a", body=b"x")
        for query in ("", "?offset=-1&live=long-poll"):
            answer = await site.ask("GET", ROOT + "a" + query)
            assert answer.headers["cache-control"].startswith("public,") and "vary" not in answer.headers


async def test_a_revoked_token_ends_with_the_reload(guarded: Guarded) -> None:
    await guarded.create("a")
    client = await guarded.site.connect()
    reader = guarded.token("reader", read=["a"])
    assert (await client.ask("GET", ROOT + "a", **reader)).status == 200
    guarded.keys.revoke("reader")
    assert (await client.ask("GET", ROOT + "a", **reader)).status == 200
    guarded.control.reload()
    assert (await client.ask("GET", ROOT + "a", **reader)).status == 401


async def test_a_link_reads_and_follows_until_it_expires(keys: Keys) -> None:
    tick, wall = [0.0], [1800000000.0]
    store = MemoryStore(Clock(monotonic=lambda: tick[0], system=lambda: wall[0]))
    admin = {"authorization": "Bearer " + keys.token("admin", create=["a"], write=["a"])}
    async with running(store, access=Access(keys.file)) as site:
        await site.ask("PUT", ROOT + "a", b"one", content_type="text/plain", **admin)
        target = f"{ROOT}a?{access_file.link(keys.file, 'a', int(wall[0]) + 3600)}"
        first = await site.ask("GET", target)
        assert (first.status, first.body) == (200, b"one")
        assert first.headers["cache-control"].startswith("private,")
        assert (await site.ask("HEAD", target)).offset == first.offset
        events = await (await _opened(site, f"{target}&offset=-1&live=sse")).events()
        assert await events.data() == b"one"
        waiting = await _opened(site, f"{target}&offset=now&live=long-poll")
        await site.append("a", b"two", **admin)
        assert (await waiting.answer()).body == b"two"
        assert (await site.ask("POST", target, b"x", content_type="text/plain")).status == 403
        assert (await site.ask("GET", target.replace("/a?", "/b?"))).status == 401
        tick[0] += 3601
        wall[0] += 3601
        assert (await site.ask("GET", target)).status == 401
        wall[0] -= 7200  # nor does a clock that is set back bring it back at once
        assert (await site.ask("GET", target)).status == 401


async def _opened(site: Site, target: str, **headers: str):  # type: ignore[no-untyped-def]
    client = await site.connect()
    await client.send(request("GET", target, **headers))
    return client


async def test_tokens_and_links_are_never_logged(guarded: Guarded, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    await guarded.create("a")
    target = f"{ROOT}a?{access_file.link(guarded.keys.file, 'a', 4000000000)}"
    await guarded.ask("GET", target)
    await guarded.ask("GET", target + "x")
    await guarded.ask("GET", ROOT + "a", **guarded.admin)
    await guarded.ask("GET", ROOT + "a", authorization="Bearer ds_wrong")
    client = await guarded.site.connect()
    await client.send(f"GET {target} HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer ds_wrong\r\nBad Line\r\n\r\n")
    assert (await client.answer()).status == 400
    logged = caplog.text
    for secret in (guarded.admin["authorization"][7:], "ds_wrong", target.partition("share=")[2]):
        assert secret not in logged
