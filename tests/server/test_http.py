"""Requests and responses over real sockets: framing, reuse of connections, the shape of every answer."""

from __future__ import annotations

import json

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.server.site import ROOT, Client, Site, request, running

S = ROOT + "s"


async def test_a_connection_serves_many_requests(site: Site) -> None:
    client = await site.connect()
    assert (await client.ask("PUT", S, content_type="text/plain")).status == 201
    assert (await client.ask("POST", S, b"one", content_type="text/plain")).status == 204
    answer = await client.ask("GET", S)
    assert answer.body == b"one" and answer.header("connection") is None
    assert (await client.ask("HEAD", S)).status == 200
    assert (await client.ask("GET", ROOT + "none")).code == "STREAM_NOT_FOUND"
    assert (await client.ask("DELETE", S)).status == 204
    closing = await client.ask("GET", ROOT + "none", connection="close")
    assert closing.header("connection") == "close"
    await client.ended()


REQUESTS = b"".join(
    (
        request("PUT", S, b"", content_type="text/plain"),
        request("POST", S, b"first", content_type="text/plain"),
        b"POST /v1/stream/s HTTP/1.1\r\nHost: test\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"3\r\n se\r\n4 ; x=y\r\ncond\r\n0\r\nTrailer: t\r\n\r\n",
        request("GET", S),
        request("OPTIONS", S, b"GET /v1/stream/none HTTP/1.1\r\n\r\n"),
        request("BREW", S, b"coffee"),
        request("GET", S, accept="a").replace(b"accept", b"X-Two: 1\r\nX-Two"),
        request("HEAD", S),
        request("GET", S + "?offset=now"),
    )
)
STATUSES = [201, 204, 204, 200, 204, 405, 200, 200, 200]
METHODS = ["PUT", "POST", "POST", "GET", "OPTIONS", "BREW", "GET", "HEAD", "GET"]


async def _check_pipelined(client) -> None:  # type: ignore[no-untyped-def]
    answers = [await client.answer(method) for method in METHODS]
    assert [answer.status for answer in answers] == STATUSES
    assert answers[3].body == answers[6].body == b"first second"
    assert "Allow" not in answers[5].headers and answers[5].header("allow")
    assert all(answer.header("connection") is None for answer in answers)


async def test_pipelined_requests_are_answered_in_order(site: Site) -> None:
    client = await site.connect()
    await client.send(REQUESTS)
    await _check_pipelined(client)


async def test_requests_may_be_split_at_every_byte(site: Site) -> None:
    client = await site.connect()
    for at in range(len(REQUESTS)):
        if at:
            assert (await site.ask("DELETE", S)).status == 204
        await client.send(REQUESTS[:at])
        await trio.testing.wait_all_tasks_blocked()
        await client.send(REQUESTS[at:])
        await _check_pipelined(client)


async def test_requests_may_come_byte_by_byte(site: Site) -> None:
    client = await site.connect()
    for at in range(len(REQUESTS)):
        await client.send(REQUESTS[at : at + 1])
        await trio.testing.wait_all_tasks_blocked()
    await _check_pipelined(client)


async def test_many_requests_in_one_packet(site: Site) -> None:
    await site.create("s")
    client = await site.connect()
    await client.send(request("POST", S, b"x", content_type="text/plain") * 200)
    for _ in range(200):
        assert (await client.answer()).status == 204
    assert (await client.ask("GET", S)).body == b"x" * 200


async def test_the_body_of_a_refused_request_is_no_request(site: Site) -> None:
    hidden = request("DELETE", S)
    await site.create("s")
    client = await site.connect()
    for method, target in (("OPTIONS", S), ("POST", ROOT + "//"), ("BREW", S), ("GET", S), ("HEAD", S), ("PUT", "/")):
        answer = await client.ask(method, target, hidden)
        assert answer.header("connection") is None, (method, answer)
    assert (await client.ask("GET", S)).status == 200
    assert client.buffer == b""


async def test_expect_100_continue(site: Site) -> None:
    await site.create("s")
    client = await site.connect()
    head = "POST /v1/stream/s HTTP/1.1\r\nHost: t\r\nContent-Type: text/plain\r\nExpect: 100-continue\r\n"
    await client.send(head + "Content-Length: 4\r\n\r\n")
    assert (await client.head())[0] == 100
    await client.send("body")
    assert (await client.answer()).status == 204
    await client.send(head + "Transfer-Encoding: chunked\r\n\r\n")
    assert (await client.head())[0] == 100
    await client.send("1\r\n!\r\n0\r\n\r\n")
    assert (await client.answer()).status == 204
    assert (await client.ask("GET", S)).body == b"body!"


@pytest.mark.parametrize(
    ("expect", "asked"),
    [
        # A list, whose members may stand in lines of their own (RFC 9110 sections 5.3 and 10.1.1).
        ("Expect: 100-continue\r\nExpect: 100-continue\r\n", True),
        ("Expect: 100-continue, 100-Continue\r\n", True),
        ("Expect: other\r\nExpect: 100-continue\r\n", True),
        ("Expect: , 100-continue ,\r\n", True),
        # What is not understood may be left alone, and asks for nothing.
        ("Expect: other\r\n", False),
        ("Expect: 100-continue-not\r\n", False),
        ('Expect: other="100-continue"\r\n', False),
    ],
)
async def test_expectations_are_a_list(site: Site, expect: str, asked: bool) -> None:
    await site.create("s")
    client = await site.connect()
    head = "POST /v1/stream/s HTTP/1.1\r\nHost: t\r\nContent-Type: text/plain\r\nContent-Length: 4\r\n"
    await client.send(head + expect + "\r\n" + ("" if asked else "body"))
    if asked:
        assert (await client.head())[0] == 100
        await client.send("body")
    assert (await client.answer()).status == 204


@pytest.mark.parametrize(
    ("change", "status"),
    [(("Content-Length: 4", "Content-Length: 400"), 413), (("/v1/stream/s", "/v1/stream/"), 400), (("POST", "X"), 405)],
)
async def test_a_body_that_is_not_wanted_is_not_asked_for(change: tuple[str, str], status: int) -> None:
    async with running(max_body=100) as site:
        client = await site.connect()
        head = "POST /v1/stream/s HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n"
        await client.send(head.replace(*change))
        answer = await client.answer()
        assert answer.status == status and answer.code
        assert answer.header("connection") == "close"


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE", "OPTIONS"])
@pytest.mark.parametrize("framing", ["Content-Length: 65537", "Transfer-Encoding: chunked",
                                     "Content-Length: 4\r\nExpect: 100-continue"])  # fmt: skip
@pytest.mark.parametrize("target", [S, "/healthz", "*"])
async def test_a_body_that_means_nothing_is_not_waited_for(
    site: Site, method: str, framing: str, target: str
) -> None:
    """Answered at once, though nothing of the body has come; what would be long or has no end ends the connection."""
    await site.create("s")
    client = await site.connect()
    await client.send(f"{method} {target} HTTP/1.1\r\nHost: t\r\n{framing}\r\n\r\n")
    with trio.fail_after(5):
        answer = await client.answer(method)
    assert answer.status in (200, 204, 400, 404, 405) and answer.header("connection") == "close"


async def test_targets_in_absolute_form(site: Site) -> None:
    client = await site.connect()
    created = await client.ask("PUT", "http://elsewhere:80/v1/stream/s", content_type="text/plain")
    assert created.status == 201
    assert (await client.ask("GET", "HTTP://test/v1/stream/s?offset=-1")).status == 200
    assert (await client.ask("GET", "ftp://test/v1/stream/s")).status == 400
    assert (await client.ask("GET", "http://test")).status == 404
    assert (await client.ask("GET", S)).status == 200


async def test_empty_lines_before_a_request_are_passed_over(site: Site) -> None:
    # Some clients send one more line end behind a body (RFC 9112 section 2.2).
    await site.create("s")
    client = await site.connect()
    post, get = request("POST", S, b"a", content_type="text/plain"), request("GET", S)
    await client.send(post + b"\r\n" + get + b"\r\n\r\n" + post)
    assert [(await client.answer()).status for _ in range(3)] == [204, 200, 204]
    await client.send(b"\r\n")
    await trio.sleep(0.01)
    for byte in b"\r\n" + get:
        await client.send(bytes([byte]))
    assert (await client.answer()).body == b"aa"
    await client.send(b"\r\n")
    await client.stream.send_eof()
    await client.ended()


@pytest.mark.parametrize("head", ["GET {} HTTP/1.1\nHost: x\n\n", "GET {} HTTP/1.1\r\nHost: x\n\r", "GET {} \rX"])
async def test_a_head_that_can_never_be_right_is_refused_at_once(site: Site, head: str) -> None:
    client = await site.connect()
    await client.send(head.format(S))
    with trio.fail_after(2):
        assert (await client.answer()).code == "BAD_HTTP"


async def test_an_offer_to_switch_protocols_is_passed_over(site: Site) -> None:
    # Some clients make it with their first request, and go on as if it had not been made.
    await site.create("s", body=b"abc")
    client = await site.connect()
    upgrade = {"connection": "Upgrade, HTTP2-Settings", "upgrade": "h2c", "http2_settings": "AAMAAABkAAQAAP__"}
    await client.send(request("POST", S, b"d", content_type="text/plain", **upgrade) + request("GET", S, **upgrade))
    assert (await client.answer()).status == 204
    assert (await client.answer()).body == b"abcd"
    assert (await client.ask("CONNECT", "elsewhere:80")).status == 400
    assert (await client.ask("GET", S)).body == b"abcd"


async def test_paths_are_percent_decoded_once(site: Site) -> None:
    client = await site.connect()
    created = await client.ask("PUT", ROOT + "caf%c3%a9/%2541/a%20b", content_type="text/plain")
    assert created.header("location") == "http://test/v1/stream/caf%C3%A9/%2541/a%20b"
    assert (await client.ask("GET", ROOT + "%63af%C3%A9/%2541/a%20b")).status == 200
    assert (await client.ask("GET", ROOT + "caf%C3%A9/A/a%20b")).status == 404
    for bad in ("a%2fb", "a//b", "%2e%2e/a", "a/", "%zz", "%ff", "a%00", "a%0d%0ab"):
        assert (await client.ask("GET", ROOT + bad)).status == 400, bad
    assert (await client.ask("GET", ROOT + "x" * 1025)).status == 414
    assert (await client.ask("GET", ROOT + "__ds/x")).status == 404


@pytest.mark.parametrize("method", ["PUT", "POST", "GET", "HEAD", "DELETE"])
@pytest.mark.parametrize("start", ["", "http://test"])
@pytest.mark.parametrize("more", ["", "Upgrade: other\r\n"], ids=["plain", "h11"])
async def test_a_target_with_a_fragment_is_refused(site: Site, method: str, start: str, more: str) -> None:
    await site.create("s", body=b"x")
    for target in (S + "#z", S + "#", S + "?offset=-1#z"):
        client = await site.connect()
        await client.send(
            f"{method} {start}{target} HTTP/1.1\r\nHost: test\r\n{more}Content-Type: text/plain\r\n"
            "Content-Length: 0\r\n\r\n"
        )
        answer = await client.answer(method)
        assert answer.status == 400
        if method != "HEAD":
            assert answer.code == "INVALID_TARGET" and b"fragment" in answer.body and b"%23" in answer.body
    assert (await site.ask("GET", S)).body == b"x"
    await site.create("s%23z")


async def test_http_1_0(site: Site) -> None:
    await site.create("s", body=b"x" * 5000)
    client = await site.connect()
    await client.send("GET /v1/stream/s HTTP/1.0\r\nAccept-Encoding: gzip\r\n\r\n")
    answer = await client.answer()
    assert answer.status == 200 and answer.body == b"x" * 5000
    assert answer.header("connection") == "close" and answer.header("transfer-encoding") is None
    await client.ended()
    client = await site.connect()
    await client.send("PUT /v1/stream/t HTTP/1.0\r\nContent-Length: 1\r\n\r\nx")
    assert (await client.answer()).header("location") == "/v1/stream/t"


async def test_head_has_headers_and_no_body(site: Site) -> None:
    await site.create("s", body=b"abc", stream_ttl="100", stream_closed="true")
    client = await site.connect()
    answer = await client.ask("HEAD", S)
    assert answer.status == 200 and answer.offset.endswith("_0000000000000003")
    assert answer.header("stream-ttl") == "100" and answer.header("stream-closed") == "true"
    assert answer.header("cache-control") == "no-store"
    assert (await client.ask("HEAD", ROOT + "none")).status == 404
    assert (await client.ask("HEAD", ROOT + "")).status == 400
    assert client.buffer == b""


async def test_options_and_cors(site: Site) -> None:
    client = await site.connect()
    answer = await client.ask("OPTIONS", S, origin="https://app.example", access_control_request_method="PUT")
    assert answer.status == 204 and answer.header("access-control-allow-origin") == "*"
    for name in ("Content-Type", "Authorization", "If-None-Match", "Producer-Id", "Stream-Seq"):
        assert name in str(answer.header("access-control-allow-headers"))
    for method in ("GET", "HEAD", "PUT", "POST", "DELETE"):
        assert method in str(answer.header("access-control-allow-methods"))
    await site.create("s")
    posted = await client.ask("POST", S, b"x", content_type="text/plain", origin="https://app.example")
    for answer in (posted, await client.ask("GET", S), await client.ask("GET", ROOT + "none")):
        assert answer.header("access-control-allow-origin") == "*"
        assert "Stream-Next-Offset" in str(answer.header("access-control-expose-headers"))


async def test_every_refusal_has_the_same_shape(site: Site) -> None:
    await site.create("s", stream_closed="true")
    refused = [
        (await site.ask("GET", "/"), 404),
        (await site.ask("GET", S + "?offset="), 400),
        (await site.ask("GET", S + "?live=sse"), 400),
        (await site.ask("GET", S + "?live=telepathy&offset=-1"), 400),
        (await site.ask("GET", S + "?offset=-1&offset=-1"), 400),
        (await site.ask("GET", S + "?offset=0000000000000001_0000000000000009"), 400),
        (await site.ask("POST", S, b"x", content_type="text/plain"), 409),
        (await site.ask("PUT", S, content_type="text/html"), 409),
        (await site.ask("PATCH", S), 405),
        (await site.ask("GET", S, x="y" * 20000), 431),
        (await site.ask("PUT", ROOT + "t", stream_ttl="1", stream_expires_at="2030-01-01T00:00:00Z"), 400),
    ]
    for answer, status in refused:
        assert answer.status == status, answer
        assert answer.code
        assert answer.header("cache-control") == "no-store"
    assert refused[8][0].header("allow") == "GET, HEAD, OPTIONS, PUT, POST, DELETE"


async def test_a_refusal_names_what_the_client_sent_as_a_json_string(site: Site) -> None:
    await site.create("s", content_type='text/plain; x="y"')
    answer = await site.ask("POST", S, b"x", content_type='a/b; \xe9="\\"')
    assert answer.status == 409 and 'a/b; \xe9="\\"' in json.loads(answer.body)["error"]["message"]


@pytest.mark.parametrize(
    ("what", "request_"),
    [
        ("look_nowait", request("GET", S)),
        ("look", request("HEAD", S)),
        ("look", request("GET", S + "?offset=-1&live=sse")),
        ("transact_nowait", request("POST", S, b"x", content_type="text/plain")),
        ("transact", request("POST", S, b"x", content_type="text/plain", expect="100-continue")),
    ],
)
async def test_a_failure_inside_is_an_answer_too(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, what: str, request_: bytes
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("a bug")

    with monkeypatch.context() as patch:
        patch.setattr(site.store, what, fail)
        client = await site.connect()
        await client.send(request_)
        if b"expect" in request_:
            assert (await client.answer()).status == 100
        answer = await client.answer("HEAD" if request_.startswith(b"HEAD") else "GET")
    assert answer.status == 500
    if answer.body:
        assert answer.code == "INTERNAL_ERROR"
    await client.ended()
    assert "a bug" in caplog.text
    assert site.server.app.stats.rejected == {(500, "INTERNAL_ERROR"): 1}
    assert (await site.ask("PUT", S)).status == 201


SMUGGLING = {
    "content length and chunked": "POST {s} HTTP/1.1\r\nHost: t\r\nContent-Length: 4\r\nTransfer-Encoding: chunked",
    "two content lengths": "POST {s} HTTP/1.1\r\nHost: t\r\nContent-Length: 4\r\nContent-Length: 5",
    "a list of content lengths": "POST {s} HTTP/1.1\r\nHost: t\r\nContent-Length: 4, 5",
    "a signed content length": "POST {s} HTTP/1.1\r\nHost: t\r\nContent-Length: +4",
    "a hexadecimal content length": "POST {s} HTTP/1.1\r\nHost: t\r\nContent-Length: 0x4",
    "an unknown coding": "POST {s} HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: cow",
    "chunked twice": "POST {s} HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked, chunked",
    "gzip and chunked": "POST {s} HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: gzip, chunked",
    "a bare LF": "POST {s} HTTP/1.1\r\nHost: t\nContent-Length: 4",
    "a bare LF before a space": "GET {s} HTTP/1.1\nHost: t",
    "a bare CR": "GET {s} HTTP/1.1\r\nHost: t\r\nX: a\rContent-Length: 4",
    "folding": "POST {s} HTTP/1.1\r\nHost: t\r\nX: a\r\n Content-Length: 4",
    "folding with a tab": "POST {s} HTTP/1.1\r\nHost: t\r\nX: a\r\n\tb",
    "a space before the colon": "POST {s} HTTP/1.1\r\nHost: t\r\nContent-Length : 4",
    "a space before a name": "POST {s} HTTP/1.1\r\n Host: t",
    "a name with a space": "POST {s} HTTP/1.1\r\nHost: t\r\nContent Length: 4",
    "no name": "GET {s} HTTP/1.1\r\nHost: t\r\n: x",
    "no colon": "GET {s} HTTP/1.1\r\nHost: t\r\nx",
    "a control character": "GET {s} HTTP/1.1\r\nHost: t\r\nX: a\x00b",
    "no host": "GET {s} HTTP/1.1\r\nX: y",
    "two hosts": "GET {s} HTTP/1.1\r\nHost: t\r\nHost: u",
    "no version": "GET {s}\r\nHost: t",
    "another version": "GET {s} HTTP/2.0\r\nHost: t",
    "two spaces": "GET  {s} HTTP/1.1\r\nHost: t",
    "a space in the target": "GET {s} x HTTP/1.1\r\nHost: t",
    "noise": "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
}


@pytest.mark.parametrize("case", SMUGGLING)
async def test_what_two_parsers_could_read_differently_is_refused_and_ends_the_connection(
    site: Site, case: str
) -> None:
    await site.create("s")
    client = await site.connect()
    await client.send(SMUGGLING[case].replace("{s}", S) + "\r\n\r\n0\r\n\r\n")
    await client.send(request("DELETE", S))
    answer = await client.answer()
    assert answer.status in (400, 501, 505), answer
    assert answer.code == "BAD_HTTP" and answer.header("connection") == "close"
    await client.ended()
    assert (await site.ask("HEAD", S)).status == 200


@pytest.mark.parametrize(
    "body",
    [b"3\nabc\r\n0\r\n\r\n", b"-3\r\nabc\r\n", b"0x3\r\nabc\r\n", b"3\r\nabcd\r\n", b"g\r\n", b"\r\n",
     b"fffffffffffffffffffff\r\nabc", b"1" * 9000,
     # What others might read differently: bare CR, bare LF and NUL in extensions and trailers, a space before CRLF.
     b"3;a\rb\r\nabc\r\n0\r\n\r\n", b"3;a\nb\r\nabc\r\n0\r\n\r\n", b"3;a=\0\r\nabc\r\n0\r\n\r\n",
     b"3 \r\nabc\r\n0\r\n\r\n", b"3\r\nabc\r\n0\n\n", b"3\r\nabc\r\n0\r\n\n", b"3\r\nabc\r\n0\r\nX: a\n\n",
     b"3\r\nabc\r\n0\r\nX: a\nY: b\r\n\r\n", b"3\r\nabc\r\n0\r\nX: a\rb\r\n\r\n",
     # Trailers that are no field lines: space before the colon, junk, folding.
     b"3\r\nabc\r\n0\r\nX : a\r\n\r\n", b"3\r\nabc\r\n0\r\njunk\r\n\r\n", b"3\r\nabc\r\n0\r\nX: a\r\n b\r\n\r\n",
     b"3  \r\nabc\r\n0\r\n\r\n", b"3\r\nabc\r\n0 \r\n\r\n",
     # More framing than any honest body has.
     (b"1;" + b"a" * 4000 + b"\r\nx\r\n") * 20],
)  # fmt: skip
async def test_bad_chunks_are_refused_and_end_the_connection(site: Site, body: bytes) -> None:
    await site.create("s")
    client = await site.connect()
    await client.send("POST /v1/stream/s HTTP/1.1\r\nHost: t\r\nContent-Type: text/plain\r\n")
    await client.send(b"Transfer-Encoding: chunked\r\n\r\n" + body + request("DELETE", S))
    answer = await client.answer()
    assert answer.status in (400, 413) and answer.code and answer.header("connection") == "close"
    await client.ended()
    assert (await site.ask("GET", S)).body == b""


@pytest.mark.parametrize("last", ["close", "HTTP/1.0", "refused"])
async def test_an_answer_that_ends_its_connection_is_not_cut_by_what_was_sent_behind_the_request(
    site: Site, last: str
) -> None:
    body = b"x" * 700_000
    await site.create("s", body=body)
    sock = trio.socket.socket()
    sock.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_RCVBUF, 20_000)
    await sock.connect(("127.0.0.1", site.port))
    client = Client(trio.SocketStream(sock))
    version, more = ("1.0", "") if last == "HTTP/1.0" else ("1.1", "Connection: close\r\n")
    target = S if last != "refused" else S + "?offset=wrong"
    behind = request("GET", S + "?offset=now") * 2000
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.send, f"GET {target} HTTP/{version}\r\nHost: t\r\n{more}\r\n".encode() + behind)
        await trio.sleep(0.1)
        answer = await client.answer()
        nursery.cancel_scope.cancel()
    assert answer.body == body if last != "refused" else answer.status == 400


async def test_a_head_under_way_when_the_server_stops_is_told_so(site: Site) -> None:
    client = await site.connect()
    await client.send("POST /v1/stream/s HTTP/1.1\r\nHost: t")
    await wait_all_tasks_blocked(0.01)
    site.server.stop()
    answer = await client.answer()
    assert (answer.status, answer.code) == (503, "STOPPING") and answer.header("retry-after")
    await client.ended()


async def test_a_client_may_leave_at_any_point(site: Site) -> None:
    await site.create("s")
    whole = request("POST", S, b"x" * 20, content_type="text/plain")
    for at in range(0, len(whole) - 1, 7):
        client = await site.connect()
        await client.send(whole[:at])
        client.close()
    assert (await site.ask("GET", S)).body == b""


async def test_a_client_that_has_said_all_still_hears_the_answers(site: Site) -> None:
    await site.create("s")
    for whole in (
        request("POST", S, b"x", content_type="text/plain"),
        request("POST", S, b"x", content_type="text/plain") * 3,
        request("POST", S, b"x" * 100_000, content_type="text/plain"),
        b"POST /v1/stream/s HTTP/1.0\r\nContent-Type: text/plain\r\nContent-Length: 1\r\n\r\nx",
    ):
        client = await site.connect()
        await client.send(whole)
        await client.stream.send_eof()
        for _ in range(max(1, whole.count(b"HTTP/1.1"))):
            assert (await client.answer()).status == 204
        await client.ended()
    assert len((await site.ask("GET", S)).body) == 100_005
