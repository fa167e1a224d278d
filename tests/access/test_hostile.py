"""Named attacks and their answers: paths, smuggled requests, split responses, forged events, bombs.

More ambiguous heads and bodies are in tests/server/test_http.py, nested bombs in tests/server/test_limits.py, payloads
that look like events in tests/server/test_live.py; here is what those leave.
"""

from __future__ import annotations

import gzip
import time
from pathlib import Path

import pytest

from ds_trio_server.parsers import FastParsers
from ds_trio_server.store.sqlite.engine import SQLiteStore
from tests.server.site import ROOT, Events, Site, request, running


@pytest.fixture
async def site() -> object:
    async with running() as site:
        yield site


# Paths: one canonical form or a refusal

REFUSED_PATHS = {
    "a dot segment": ("a/./b", 400),
    "a parent segment": ("a/../b", 400),
    "a parent of the root": ("../../etc/passwd", 400),
    "an encoded dot segment": ("a/%2e/b", 400),
    "an encoded parent segment": ("%2e%2E/b", 400),
    "a half-encoded parent segment": (".%2e/b", 400),
    "an encoded slash": ("a%2fb", 400),
    "an encoded slash in capitals": ("a%2Fb", 400),
    "parents behind encoded slashes": ("..%2f..%2fetc%2fpasswd", 400),
    "an empty segment": ("a//b", 400),
    "an empty segment at the end": ("a/", 400),
    "nothing": ("", 400),
    "NUL": ("a%00b", 400),
    "NUL at the end": ("a%00", 400),
    "a line feed": ("a%0ab", 400),
    "a carriage return and line feed": ("a%0d%0aX-Evil:%201", 400),
    "DEL": ("a%7fb", 400),
    "an escape that is cut": ("a%2", 400),
    "an escape that is none": ("a%zz", 400),
    "a percent sign alone": ("100%", 400),
    "bytes that are no UTF-8": ("%ff%fe", 400),
    "a cut UTF-8 character": ("%c3", 400),
    "an overlong slash": ("a%c0%afb", 400),
    "an overlong dot": ("%c0%ae%c0%ae/b", 400),
    "an overlong NUL": ("a%c0%80", 400),
    "an encoded surrogate": ("%ed%a0%80", 400),
    "beyond Unicode": ("%f4%90%80%80", 400),
    "the reserved prefix": ("__ds/subscriptions", 404),
    "the reserved prefix, encoded": ("%5f%5fds/subscriptions", 404),
    "a long path": ("a" * 1025, 414),
    "many segments": ("a/" * 600 + "a", 414),
    "a long path when encoded": ("%61" * 400, 414),
}


@pytest.mark.parametrize("case", REFUSED_PATHS)
async def test_a_path_without_a_canonical_form_is_refused(site: Site, case: str) -> None:
    path, status = REFUSED_PATHS[case]
    for method in ("PUT", "GET", "POST", "DELETE", "HEAD"):
        answer = await site.ask(method, ROOT + path, content_type="text/plain")
        assert answer.status == status, (method, answer)
    forked = await site.ask("PUT", ROOT + "fork", stream_forked_from=ROOT + path)
    assert forked.status == status
    assert await site.store.paths() == []


SAME_PATHS = {
    "a%62c": "abc",
    "%61%62%63": "abc",
    "%E2%82%AC": "€",
    "%e2%82%ac": "€",
    "a%20b": "a b",
    "a+b": "a+b",
    "%2561": "%61",
    "%252e%252e": "%2e%2e",
    "...": "...",
    ".hidden": ".hidden",
    "~": "~",
    "C:%5Cx": "C:\\x",
    "%24(reboot)": "$(reboot)",
    "';drop%20table%20streams;--": "';drop table streams;--",
    "streams.db": "streams.db",
    "e%CC%81": "e\u0301",
    "%C3%A9": "\u00e9",
}


@pytest.mark.parametrize("spelling", SAME_PATHS)
async def test_every_spelling_is_one_stream(site: Site, spelling: str) -> None:
    created = await site.ask("PUT", ROOT + spelling, b"here", content_type="text/plain")
    assert created.status == 201
    assert await site.store.paths() == [SAME_PATHS[spelling]]
    location = created.headers["location"].removeprefix("http://test")
    assert (await site.ask("GET", location)).body == b"here"
    assert (await site.ask("GET", f"http://test{ROOT}{spelling}")).body == b"here"


async def test_case_and_normalisation_tell_streams_apart(site: Site) -> None:
    for path in ("a", "A", "%C3%A9", "e%CC%81"):
        assert (await site.ask("PUT", ROOT + path, path.encode(), content_type="text/plain")).status == 201
    for path in ("a", "A", "%C3%A9", "e%CC%81"):
        assert (await site.ask("GET", ROOT + path)).body == path.encode()


async def test_nothing_a_path_says_reaches_the_file_system(tmp_path: Path) -> None:
    folder = tmp_path / "gateway" / "data"
    async with running(SQLiteStore(folder)) as site:
        for path in [*SAME_PATHS, *(path for path, _ in REFUSED_PATHS.values())]:
            await site.ask("PUT", ROOT + path, b"x", content_type="text/plain")
        assert len(await site.store.paths()) == len(set(SAME_PATHS.values()))
        found = {path.name for path in folder.iterdir()}
        assert found <= {"streams.db", "streams.db-wal", "streams.db-shm", "lock", "reserve"}
    assert [path.name for path in (tmp_path / "gateway").iterdir()] == ["data"]


# Request smuggling: what two parsers could read differently has one reading here or none

POST = "POST {s} HTTP/1.1\r\nHost: t\r\nContent-Type: text/plain\r\n"
SMUGGLED = {
    "chunked before a content length": POST + "Transfer-Encoding: chunked\r\nContent-Length: 4",
    "chunked before no content": POST + "Transfer-Encoding: chunked\r\nContent-Length: 0",
    "an empty content length": POST + "Content-Length:",
    "a negative content length": POST + "Content-Length: -5",
    "a content length with a fraction": POST + "Content-Length: 5.0",
    "a content length with an underscore": POST + "Content-Length: 1_0",
    "a content length of other digits": POST + "Content-Length: \xb2",
    "a content length beyond all": POST + "Content-Length: " + "9" * 40,
    "different lengths in one list": POST + "Content-Length: 5, 6",
    "different lengths around another field": POST + "Content-Length: 5\r\nX: y\r\nContent-Length: 0",
    "a tab before the colon of a length": POST + "Content-Length\t: 5",
    "a CR before the colon of a length": POST + "Content-Length\r: 5",
    "chunked in two lines": POST + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
    "chunked and then identity": POST + "Transfer-Encoding: chunked, identity",
    "identity": POST + "Transfer-Encoding: identity",
    "almost chunked": POST + "Transfer-Encoding: xchunked",
    "chunked behind a vertical tab": POST + "Transfer-Encoding: \x0bchunked",
    "chunked in quotes": POST + 'Transfer-Encoding: "chunked"',
    "chunked with a parameter": POST + "Transfer-Encoding: chunked;a=b",
    "chunked on a folded line": POST + "Transfer-Encoding:\r\n chunked",
    "NUL in the name of a coding": POST + "Transfer-Encoding\x00: chunked\r\nContent-Length: 5",
    "bare LF everywhere": "POST {s} HTTP/1.1\nHost: t\nContent-Length: 5\n",
    "a bare LF before all": "\n" + POST + "Content-Length: 5",
    "the version in small letters": "POST {s} http/1.1\r\nHost: t\r\nContent-Length: 5",
    "a version of two digits": "POST {s} HTTP/1.10\r\nHost: t\r\nContent-Length: 5",
}


@pytest.mark.parametrize("case", SMUGGLED)
async def test_a_request_that_hides_another_is_refused_and_ends_the_connection(site: Site, case: str) -> None:
    await site.create("s")
    client = await site.connect()
    head = SMUGGLED[case].replace("{s}", ROOT + "s")
    await client.send(head + "\r\n\r\n0\r\n\r\n" + request("DELETE", ROOT + "s").decode())
    answer = await client.answer()
    assert answer.status in (400, 501) and answer.code == "BAD_HTTP", answer
    assert answer.header("connection") == "close"
    await client.ended()
    found = await site.ask("GET", ROOT + "s")
    assert (found.status, found.body) == (200, b""), "something of it was obeyed"


ONE_READING = {
    "the same length twice": (POST + "Content-Length: 5\r\nContent-Length: 5", 204),
    "a list of one length": (POST + "Content-Length: 5, 5", 204),
    "a length with leading zeros": (POST + "Content-Length: 0005", 204),
    "an empty line before all": ("\r\n" + POST + "Content-Length: 5", 204),
    "chunked in capitals": (POST + "Transfer-Encoding: CHUNKED", 400),  # a body of nothing
    "chunked before a tab": (POST + "Transfer-Encoding: chunked\t", 400),
    "an underscore is no hyphen": (POST + "Transfer_Encoding: chunked\r\nContent-Length: 5", 204),
    "a method in small letters": ("post {s} HTTP/1.1\r\nHost: t\r\nContent-Length: 5", 405),
    "a body where none belongs": ("GET {s} HTTP/1.1\r\nHost: t\r\nContent-Length: 5", 200),
}


@pytest.mark.parametrize("case", ONE_READING)
async def test_what_has_one_reading_ends_where_it_says(site: Site, case: str) -> None:
    await site.create("s")
    client = await site.connect()
    head, status = ONE_READING[case]
    await client.send(head.replace("{s}", ROOT + "s") + "\r\n\r\n0\r\n\r\n")
    assert (await client.answer()).status == status
    assert (await client.ask("DELETE", ROOT + "s")).status == 204, "the next request begins right behind it"


async def test_a_chunked_body_in_http_1_0_ends_the_connection(site: Site) -> None:
    await site.create("s")
    client = await site.connect()
    head = (POST + "Transfer-Encoding: chunked").replace("{s}", ROOT + "s").replace("HTTP/1.1", "HTTP/1.0")
    await client.send(head + "\r\n\r\n0\r\n\r\n" + request("DELETE", ROOT + "s").decode())
    assert (await client.answer()).status == 400
    await client.ended()
    assert (await site.ask("HEAD", ROOT + "s")).status == 200


async def test_nobody_changes_the_protocol(site: Site) -> None:
    await site.create("s", body=b"x")
    client = await site.connect()
    upgrade = {"connection": "Upgrade, HTTP2-Settings", "upgrade": "h2c", "http2_settings": "AAMAAABk"}
    answer = await client.ask("GET", ROOT + "s", **upgrade)
    assert (answer.status, answer.body) == (200, b"x")
    assert (await client.ask("GET", ROOT + "s")).body == b"x", "it goes on as HTTP/1.1"


# Response splitting: nothing a client sends ends a line of a head


SPLITS = ["%0d%0aX-Evil:%201", "%0aX-Evil:%201", "%0d", "%E5%98%8A%E5%98%8DX-Evil:%201", "%00", "\\r\\nX-Evil: 1"]


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("name", ["cursor", "offset", "live", "max-bytes", "share", "x"])
async def test_no_parameter_ends_a_line(site: Site, name: str, split: str) -> None:
    await site.create("a", body=b"x")
    query = {"offset": "-1", "live": "long-poll"} | {name: split.replace(" ", "%20")}
    client = await site.connect()
    answer = await client.ask("GET", f"{ROOT}a?" + "&".join(f"{key}={value}" for key, value in query.items()))
    assert answer.status in (200, 400)
    assert "x-evil" not in answer.headers
    assert (await client.ask("HEAD", ROOT + "a")).status == 200  # and the framing is sound


EVENTS = ["%0a%0aevent:%20data%0adata:%20evil%0a%0a", "%0ddata:%20evil", "%22,%22streamClosed%22:true,%22x%22:%22"]


@pytest.mark.parametrize("cursor", EVENTS)
async def test_no_cursor_forges_an_event(site: Site, cursor: str) -> None:
    """A client's cursor may have a part in the next one, which its proxy keeps for others."""
    await site.create("a", body=b"x")
    client = await site.connect()
    await client.send(request("GET", f"{ROOT}a?offset=-1&live=sse&cursor={cursor}"))
    status = (await client.head())[0]
    if status == 200:
        events = Events(client, {})
        assert await events.data() == b"x"
        control = await events.control()
        assert set(control) == {"streamNextOffset", "streamCursor", "upToDate"} and control["upToDate"]
        assert str(control["streamCursor"]).isalnum()
        assert b"evil" not in events.raw
    else:
        assert status == 400


@pytest.mark.parametrize("value", ["text/plain; x=\xe9", "text/\xff", 'text/plain; x="a\tb"', "text/plain;\x0bx"])
async def test_a_content_type_comes_back_in_one_line(site: Site, value: str) -> None:
    client = await site.connect()
    created = await client.ask("PUT", ROOT + "a", content_type=value)
    if created.status == 201:
        assert created.headers["content-type"] == value
        assert (await client.ask("HEAD", ROOT + "a")).headers["content-type"] == value
    else:
        assert created.status == 400


@pytest.mark.parametrize("how", ["", "X: 1\r\nX: 2\r\n"], ids=["plain", "h11"])
@pytest.mark.parametrize("host", ["evil.test", "a b", 'a"b', "\xe9", "evil.test/x?", "x" * 8000, "me@evil", "[evil]"])
async def test_a_host_is_one_and_is_repeated_to_its_sender_only(site: Site, host: str, how: str) -> None:
    client = await site.connect()
    await client.send(f"PUT {ROOT}a HTTP/1.1\r\nHost: {host}\r\n{how}\r\n")
    answer = await client.answer()
    if host == "evil.test":
        assert answer.status == 201 and answer.headers["location"] == f"http://{host}{ROOT}a"
        assert host not in (await site.ask("GET", ROOT + "a")).headers.values()
        return
    assert (answer.status, answer.code) == (400, "INVALID_HOST")
    for method in ("GET", "POST", "DELETE", "OPTIONS"):
        await client.send(f"{method} {ROOT}a HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n{how}\r\n")
        assert (await client.answer()).status == 400
    assert (await site.ask("GET", ROOT + "a")).status == 404


@pytest.mark.parametrize("value", ["<script>", '"', "\\", "\x80\xff"])
async def test_a_message_is_json_whatever_it_quotes(site: Site, value: str) -> None:
    answer = await site.ask("PUT", ROOT + "a", stream_ttl=value)
    assert answer.status == 400 and answer.code == "INVALID_REQUEST"  # .code parses the whole body
    assert answer.header("x-content-type-options") == "nosniff"


# Bombs


async def _stored_as_sent(site: Site, content_type: str, body: bytes, shown: bytes | None = None) -> None:
    await site.create("a", content_type)
    began = time.process_time()
    assert (await site.ask("POST", ROOT + "a", body, content_type=content_type)).status == 204
    assert (await site.ask("GET", ROOT + "a")).body == (body if shown is None else shown)
    assert time.process_time() - began < 10


@pytest.mark.parametrize("number", [b"9" * 100_000, b"-" + b"9" * 100_000, b"1e999999999", b"0." + b"1" * 50_000])
async def test_big_json_numbers_are_text(site: Site, number: bytes) -> None:
    await _stored_as_sent(site, "application/json", b"[%b]" % number)


async def test_duplicate_json_keys_are_kept_as_sent(site: Site) -> None:
    await _stored_as_sent(site, "application/json", b'[{"a":1,"a":2}]')


async def test_many_json_keys(site: Site) -> None:
    body = b"[{%b}]" % b",".join(b'"k%d":1' % number for number in range(50_000))
    await _stored_as_sent(site, "application/json", body)


CBOR = "application/cbor-seq"


async def test_big_cbor_numbers_are_bytes(site: Site) -> None:
    await _stored_as_sent(site, CBOR, b"\xc2\x5a\x00\x08\x00\x00" + b"\xff" * 0x80000)


async def test_duplicate_cbor_keys_are_kept_as_sent(site: Site) -> None:
    await _stored_as_sent(site, CBOR, b"\xa2\x61a\x01\x61a\x02" + b"\xbf\x01\x01\x01\x02\xff")


async def test_cbor_tags_do_nothing(site: Site) -> None:
    # A pattern to compile, a fraction with a zero below, a date that is none, references to nothing.
    odd = (b"\xd8\x23\x66(a+)+$", b"\xd8\x1e\x82\x01\x00", b"\xc0\x61x", b"\xd8\x1d\x18\x63", b"\xd8\x19\x05")
    await _stored_as_sent(site, CBOR, b"".join(odd))


async def test_cbor_keys_that_collide_cost_no_more_than_others() -> None:
    body = _colliding_keys(15_000)
    began = time.process_time()
    FastParsers().check_cbor(body)
    took = time.process_time() - began
    assert took < 1.0, f"{took} s; with a table of them it takes seconds, and four times that for twice as many"


def _colliding_keys(count: int) -> bytes:
    """A map whose keys are pairs of integers, all with one hash in CPython."""
    whole, prime1, prime2, prime5 = 1 << 64, 11400714785074694791, 14029467366897019727, 2870177450012600261

    def after(first: int) -> int:
        lane = (prime5 + first * prime2) % whole
        return (lane << 31 | lane >> 33) * prime1 % whole

    inverse = pow(prime2, -1, whole)
    target = after(1) + 2 * prime2
    pairs = []
    first = 0
    while len(pairs) < count:
        first += 1
        second = (target - after(first)) * inverse % whole
        if second < (1 << 61) - 1:
            pairs.append((first, second))
    assert len({hash(pair) for pair in pairs}) == 1
    keys = [b"\x82\x1b%b\x1b%b\x00" % (a.to_bytes(8, "big"), b.to_bytes(8, "big")) for a, b in pairs]
    return b"\xba" + count.to_bytes(4, "big") + b"".join(keys)


async def test_a_compressed_body_is_not_unpacked(site: Site) -> None:
    bomb = gzip.compress(bytes(10_000_000))
    await site.create("a", "application/octet-stream")
    for coding in ("gzip", "deflate", "br", "gzip, gzip"):
        answer = await site.ask(
            "POST", ROOT + "a", bomb, content_type="application/octet-stream", content_encoding=coding
        )
        assert (answer.status, answer.code) == (415, "UNSUPPORTED_CODING")
    assert (await site.ask("GET", ROOT + "a")).body == b""
    put = await site.ask("PUT", ROOT + "b", bomb, content_encoding="gzip")
    assert put.status == 415 and await site.store.paths() == ["a"]
    same = await site.ask(
        "POST", ROOT + "a", b"x", content_type="application/octet-stream", content_encoding="identity"
    )
    assert same.status == 204


async def test_a_head_of_many_fields_is_read_in_time(site: Site) -> None:
    fields = "".join(f"X{number}: {number}\r\n" for number in range(1000))
    began = time.process_time()
    client = await site.connect()
    await client.send(f"GET {ROOT}a HTTP/1.1\r\nHost: t\r\n{fields}\r\n")
    answer = await client.answer()
    assert (answer.status, answer.code) == (431, "HEAD_TOO_LARGE")
    assert time.process_time() - began < 2


async def test_a_query_of_many_parameters_is_read_in_time(site: Site) -> None:
    began = time.process_time()
    assert (await site.ask("GET", f"{ROOT}a?" + "&" * 8000 + "a=%41&" * 500)).status == 404
    assert time.process_time() - began < 2


async def test_chunks_of_one_byte_cost_what_they_are(site: Site) -> None:
    await site.create("a")
    client = await site.connect()
    head = f"POST {ROOT}a HTTP/1.1\r\nHost: t\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n"
    await client.send(head.encode() + b"1\r\nx\r\n" * 20_000 + b"0\r\n\r\n")
    assert (await client.answer()).status == 204
    assert len((await site.ask("GET", ROOT + "a")).body) == 20_000


# Pages: a stream must not become a page of this server


PAGES = ("text/html", "TEXT/HTML; charset=utf-8", "image/svg+xml", "application/xhtml+xml", "text/xml")


@pytest.mark.parametrize("content_type", PAGES)
async def test_active_content_runs_nothing(site: Site, content_type: str) -> None:
    await site.create("page", content_type, b"<script>alert(1)</script>")
    for query in ("", "?offset=-1&live=long-poll"):
        answer = await site.ask("GET", ROOT + "page" + query)
        assert answer.status == 200 and answer.header("content-security-policy") == "sandbox"
    await site.create("data", "application/json")
    assert (await site.ask("GET", ROOT + "data")).header("content-security-policy") is None


async def test_a_client_that_says_it_is_a_proxy_gains_nothing(site: Site) -> None:
    await site.create("a")
    answer = await site.ask(
        "GET", ROOT + "a", x_http_method_override="DELETE", x_original_url="/metrics", x_forwarded_proto="https"
    )
    assert answer.status == 200
    assert (await site.ask("HEAD", ROOT + "a")).status == 200
    client = await site.connect()
    await client.send(request("CONNECT", "other.test:443"))
    assert (await client.answer()).status in (400, 405)
