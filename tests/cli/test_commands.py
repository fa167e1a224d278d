"""Every command of the client: what it does to a stream, what it prints, and how it fails."""

from __future__ import annotations

import io
import json
import socket
from collections.abc import Callable
from pathlib import Path
from urllib.request import Request, urlopen

import cbor2
import pytest

from tests.tools import serve

from .conftest import Recorder, Shell


def body(ds: Shell, name: str) -> bytes:
    with urlopen(f"{ds.url}/{name}", timeout=60) as answer:
        return answer.read()


def one_line(text: bytes) -> str:
    assert text.count(b"\n") == 1 and text.endswith(b"\n"), text
    return text.decode().rstrip()


def test_without_a_command_it_explains_itself(ds: Shell) -> None:
    text = ds().stdout.decode()
    for command in ("serve", "create", "append", "read", "tail", "head", "close", "delete", "fork"):
        assert f"\n    {command} " in text
    for command in ("create", "append", "read", "tail", "head", "close", "delete", "fork"):
        text = ds(command, "--help").stdout.decode()
        assert "STREAM_URL" in text and "Exit status" in text


def test_the_life_of_a_stream(ds: Shell, name: str) -> None:
    assert ds("create", name).stdout.decode() == f"created {ds.url}/{name}\n"
    assert ds("create", name).stdout.decode() == f"exists {ds.url}/{name}\n"
    assert ds("append", name, '{"t":21.5}', "7", input="ignored").stdout == b""
    assert body(ds, name) == cbor2.dumps({"t": 21.5}, canonical=True) + b"\x07"
    assert ds("read", name).stdout == b'{"t":21.5}\n7\n'
    facts = json.loads(ds("head", name, "--json").stdout)
    assert facts["content_type"] == "application/cbor-seq" and facts["closed"] is False and facts["ttl"] is None
    shown = ds("head", name).stdout.decode()
    assert facts["next_offset"] in shown and "open" in shown
    assert facts["next_offset"] in ds("close", name).stdout.decode()
    assert json.loads(ds("head", name, "--json").stdout)["closed"] is True
    assert "closed" in one_line(ds("append", name, "8", status=1).stderr)
    assert ds("delete", name).stdout.decode() == f"deleted {ds.url}/{name}\n"
    assert "404" in one_line(ds("read", name, status=1).stderr)


def test_a_quiet_command_says_nothing(ds: Shell, name: str) -> None:
    for words in (("create", name), ("append", name, "1"), ("close", name), ("delete", name)):
        done = ds(*words, "-q")
        assert done.stdout == done.stderr == b""


def test_a_stream_can_be_given_in_three_ways(ds: Shell, server: serve.Server, name: str) -> None:
    ds("create", f"{server.url}/{name}", STREAM_URL="http://127.0.0.1:1")
    ds("append", name, "1")
    ds("append", f"/v1/stream/{name}", "2", STREAM_URL=server.origin + "/elsewhere")
    ds("append", name, "3", "--url", server.origin, STREAM_URL="http://127.0.0.1:1")
    assert ds("read", name).stdout == b"1\n2\n3\n"


def test_a_path_may_have_any_characters(ds: Shell) -> None:
    ds("create", "cli/Gewächshaus 7?")
    ds("append", "cli/Gewächshaus 7?", "1")
    assert ds("read", "cli/Gew%C3%A4chshaus%207%3F").stdout == b"1\n"


def test_json(ds: Shell, name: str) -> None:
    ds("create", name, "--json", "--ttl", "3600")
    ds("append", name, "[1,2]", '{"a":"\x9b\\u2028"}')
    ds("append", name, "--json", input='{"n": 1}\n\n  "two"\r\n3')
    assert json.loads(body(ds, name)) == [[1, 2], {"a": "\x9b\u2028"}, {"n": 1}, "two", 3]
    shown = ds("read", name).stdout
    assert shown == b'[1,2]\n{"a":"\\u009b\\u2028"}\n{"n":1}\n"two"\n3\n'
    assert json.loads(ds("read", name, "--raw").stdout) == json.loads(body(ds, name))
    assert json.loads(ds("head", name, "--json").stdout)["ttl"] == 3600
    assert "3600 s" in ds("head", name).stdout.decode()


def test_text_keeps_its_lines(ds: Shell, name: str) -> None:
    ds("create", name, "--text")
    ds("append", name, "hello", "world")
    ds("append", name, input="one\n\ntwo\r\nthree")
    assert ds("read", name).stdout == b"hello\nworld\none\n\ntwo\r\nthree\n"


def test_raw_bytes_from_files(ds: Shell, name: str, tmp_path: Path) -> None:
    data = bytes(range(256)) * 5000
    for part in (1, 2):
        (tmp_path / f"part{part}").write_bytes(data[: 1000 * part])
    ds("create", name, "--content-type", "image/png")
    ds("append", name, "--raw", "-f", tmp_path / "part1", "--file", "-", "-f", tmp_path / "part2", input=data)
    assert ds("read", name).stdout == data[:1000] + data + data[:2000]
    ds("append", name, "--raw", "--producer", "me", "--batch", "10K", input=data)
    assert ds("read", name).stdout == data[:1000] + data + data[:2000] + data


def test_cbor_that_json_has_no_word_for_survives_a_round_trip(ds: Shell, name: str) -> None:
    items = [
        b"\x00\xff",
        {"b": b"", "deep": [b"x", {"y": b"z"}]},
        cbor2.CBORTag(1234, [b"k", {"v": cbor2.CBORTag(4321, "x")}]),
        cbor2.undefined,
        cbor2.CBORSimpleValue(99),
        {1: "a", -2: b"b", "c": {"$hex": "00"}},
        {(1, b"2"): None},
        {"$tag": 1, "$value": 2},
        {},
        [1.0, 1, -0.0, 1e300, float("inf"), float("-inf"), 2**70, -(2**70)],
        "\x1b\x9b$",
        True,
        None,
    ]
    data = b"".join(cbor2.dumps(item) for item in items) + bytes.fromhex("f97e00")
    ds("create", name)
    ds("append", name, "--raw", input=data)
    shown = ds("read", name).stdout
    first = shown.splitlines()
    assert first[:3] == [
        b'{"$hex":"00ff"}',
        b'{"b":{"$hex":""},"deep":[{"$hex":"78"},{"y":{"$hex":"7a"}}]}',
        b'{"$tag":1234,"$value":[{"$hex":"6b"},{"v":{"$tag":4321,"$value":"x"}}]}',
    ]
    assert b"\x1b" not in shown and "\x9b".encode() not in shown
    for line in first:
        json.loads(line, parse_constant=pytest.fail)
    ds("create", name + "-copy")
    ds("append", name + "-copy", "--cbor", input=shown)
    assert ds("read", name + "-copy").stdout == shown
    want, got = io.BytesIO(data), io.BytesIO(body(ds, name + "-copy"))
    for _ in items:
        assert cbor2.load(got) == cbor2.load(want)
    assert got.read() == bytes.fromhex("f97e00")


def test_read_from_an_offset(ds: Shell, name: str) -> None:
    ds("create", name)
    ds("append", name, "1", "2")
    middle = json.loads(ds("head", name, "--json").stdout)["next_offset"]
    ds("append", name, "3")
    assert ds("read", name, "--offset", middle).stdout == b"3\n"
    assert ds("read", name, "--offset", "-1").stdout == b"1\n2\n3\n"
    assert ds("read", name, "--offset", "now").stdout == b""
    assert "400" in one_line(ds("read", name, "--offset", "never", status=1).stderr)


def test_an_integer_of_any_length_is_read_as_it_was_sent(ds: Shell, name: str) -> None:
    ds("create", name, "--json")
    digits = "12345" * 1200
    ds("append", name, input=f"{digits}\n7\n")
    assert ds("read", name).stdout == f"{digits}\n7\n".encode()


def test_fork(ds: Shell, name: str) -> None:
    ds("create", name, "--json")
    ds("append", name, "1")
    here = json.loads(ds("head", name, "--json").stdout)["next_offset"]
    ds("append", name, "2", "3")
    assert ds("fork", name + "-a", "--from", name).stdout.decode() == f"forked {ds.url}/{name}-a\n"
    assert ds("fork", name + "-a", "--from", name).stdout.decode().startswith("exists")
    ds("fork", name + "-b", "--from", f"{ds.url}/{name}", "--offset", here, "--sub-offset", "1")
    ds("append", name + "-a", "4")
    assert ds("read", name + "-a").stdout == b"1\n2\n3\n4\n"
    assert ds("read", name + "-b").stdout == b"1\n2\n"
    assert ds("read", name).stdout == b"1\n2\n3\n"
    assert "404" in one_line(ds("fork", name + "-c", "--from", name + "-none", status=1).stderr)


WRONG = {
    "no such command": ("frob",),
    "no stream": ("read",),
    "not a URL": ("read", "ftp://host/x"),
    "no path": ("read", "http://127.0.0.1:1"),
    "bad port": ("read", "http://127.0.0.1:x/v1/stream/a"),
    "IPv6 without brackets": ("read", "http://::1/v1/stream/a"),
    "IPv6 without an end": ("read", "http://[::1/v1/stream/a"),
    "a base like that": ("read", "a", "--url", "http://[::1"),
    "not IPv6": ("read", "http://[localhost]/v1/stream/a"),
    "credentials in a URL": ("read", "http://me:secret@127.0.0.1:1/v1/stream/a"),
    "two formats": ("append", "a", "1", "--json", "--cbor"),
    "records and a file": ("append", "a", "1", "--file", "x"),
    "state without a producer": ("append", "a", "1", "--producer-state", "x"),
    "an empty producer": ("append", "a", "1", "--producer", ""),
    "not JSON": ("append", "a", "--json", "1", "{"),
    "not JSON either": ("append", "a", "--json", "NaN"),
    "no float": ("append", "a", "--cbor", "1e400"),
    "a long producer": ("append", "a", "--json", "--producer", "p" * 257, "1"),
    "a producer of long characters": ("append", "a", "--json", "--producer", "é" * 129, "1"),
    "a producer of two lines": ("append", "a", "--json", "--producer", "a\nb", "1"),
    "raw JSON": ("append", "a", "--raw", "--content-type", "application/json", "1"),
    "an unknown escape": ("append", "a", "--cbor", '{"$hexx":"00"}'),
    "format and type at odds": ("append", "a", "1", "--json", "--content-type", "text/plain"),
    "a size": ("append", "a", "1", "--batch", "0"),
    "a time": ("read", "a", "--timeout", "soon"),
    "a header": ("read", "a", "--header", "no colon"),
    "a header of the connection": ("read", "a", "--header", "content-length: 5"),
    "a header with a line break": ("read", "a", "--auth", "a\r\nb: c"),
    "tls options": ("read", "http://127.0.0.1:1/v1/stream/a", "--insecure"),
    "a pin": ("read", "https://127.0.0.1:1/v1/stream/a", "--pin", "12"),
    "ttl": ("create", "a", "--ttl", "-1"),
    "fork of nothing": ("fork", "a"),
    "fork elsewhere": ("fork", "a", "--from", "http://127.0.0.2:1/v1/stream/b"),
    "sub-offset": ("fork", "a", "--from", "b", "--sub-offset", "1"),
}


@pytest.mark.parametrize("words", WRONG.values(), ids=WRONG.keys())
def test_wrong_usage_is_one_line_and_status_2(ds: Shell, words: tuple[str, ...]) -> None:
    done = ds(*words, status=2, STREAM_URL="http://127.0.0.1:1")
    assert done.stdout == b""
    assert one_line(done.stderr).startswith("ds")


def test_a_server_that_is_down(ds: Shell, name: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        for words in (("create", name), ("append", name, "1"), ("read", name), ("tail", name), ("head", name)):
            text = one_line(ds(*words, status=1, STREAM_URL=url).stderr)
            assert f"ds {words[0]}: no answer from {url}" in text
        ds("append", name, "1", "--producer", "p", "--retry-for", "1", "--cbor", status=1, STREAM_URL=url)


def test_a_name_that_does_not_exist(ds: Shell) -> None:
    text = one_line(ds("head", "x", "--url", "http://nowhere.invalid", status=1).stderr)
    assert "no answer from http://nowhere.invalid" in text


def test_a_server_that_is_not_one(ds: Shell, recorder: Callable[..., Recorder]) -> None:
    assert one_line(ds("read", "x", "--url", recorder().url, status=1).stderr).startswith("ds read: ")
    text = one_line(ds("read", "x", "--url", recorder(404).url, status=1).stderr)
    assert "404 Not Found" in text


def test_credentials_are_sent_and_refusals_explained(ds: Shell, recorder: Callable[..., Recorder]) -> None:
    refuses = recorder(401)
    for words in (("create", "x"), ("append", "x", "1"), ("read", "x"), ("head", "x"), ("delete", "x"), ("close", "x")):
        text = one_line(ds(*words, "--url", refuses.url, status=1, STREAM_AUTH="Bearer s3cret").stderr)
        assert "401" in text and "STREAM_AUTH" in text and "s3cret" not in text
    assert len(refuses.requests) == 6
    assert {request[2].get("Authorization") for request in refuses.requests} == {"Bearer s3cret"}
    ds("head", "x", "--url", refuses.url, "--auth", "Basic Zm9v", "-H", "X-Site: 7", status=1, STREAM_AUTH="no")
    ds("head", f"{refuses.url}/x?token=a%20b", "--auth", "", status=1, STREAM_AUTH="no")
    last, query = refuses.requests[-2:]
    assert last[2]["Authorization"] == "Basic Zm9v" and last[2]["X-Site"] == "7"
    assert "Authorization" not in query[2] and query[1].endswith("/x?token=a%20b")


def test_expiry_is_sent(ds: Shell, name: str) -> None:
    ds("create", name, "--expires-at", "2099-01-01T00:00:00Z", "--text")
    request = Request(f"{ds.url}/{name}", method="HEAD")
    with urlopen(request, timeout=60) as answer:
        assert answer.headers["Stream-Expires-At"].startswith("2099-01-01T00:00:00")
        assert answer.headers["Content-Type"] == "text/plain"
