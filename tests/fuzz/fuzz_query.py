"""Fuzzes request targets and header values: a command or a refusal, and one spelling for every path.

    python tests/fuzz/fuzz_query.py -max_total_time=60 tests/fuzz/corpus/query

Needs `pip install atheris`. The first byte chooses the method; the first line of the rest is the target,
behind the root unless it begins with / or h, the others are headers. test_corpus.py runs the corpus
without atheris.
"""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

if __name__ == "__main__":
    import atheris

    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    instrumented = atheris.instrument_imports(include=["ds_core"])
else:
    instrumented = contextlib.nullcontext()

with instrumented:
    from ds_core.server import offsets, requests, targets
    from ds_core.server.errors import ProtocolError

ROOT = "/v1/stream/"
PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~")


def encoded(text: str) -> str:
    return "".join(char if char in PLAIN else "".join(f"%{byte:02x}" for byte in char.encode()) for char in text)


def refused(error: ProtocolError) -> None:
    assert 400 <= error.status < 500 and error.code and error.message


def check_path(raw: str) -> None:
    try:
        path = targets.stream_path(raw)
    except ProtocolError as error:
        refused(error)
        return
    segments = path.split("/")
    assert all(segment not in ("", ".", "..") for segment in segments) and segments[0] != "__ds"
    assert not any(ord(char) < 32 or char == "\x7f" or 0xD800 <= ord(char) < 0xE000 for char in path)
    canonical = targets.url_path(path)
    assert canonical.isascii() and canonical.startswith(ROOT)
    assert not set(canonical) & set(' "#<>?\\^`{|}\r\n')
    if len(canonical) <= len(ROOT) + targets.MAX_PATH:
        assert targets.stream_path(canonical) == path
        assert targets.split_target(canonical) == (canonical, "")
    elif len(path) < targets.MAX_PATH // 4:
        raise AssertionError("a short path has a long name")


def check_query(query: str) -> None:
    try:
        found = targets.parse_query(query)
    except ProtocolError as error:
        refused(error)
        return
    again = "&".join(f"{encoded(name)}={encoded(value)}" for name, value in found.items())
    assert targets.parse_query(again) == (found if again else {})
    if "offset" in found:
        try:
            offset = offsets.parse(found["offset"])
        except ProtocolError as error:
            refused(error)
        else:
            assert found["offset"] in ("-1", "now") or offsets.token(*offset) == found["offset"]


def one_input(data: bytes) -> None:
    method = (*requests.METHODS, "BREW")[data[0] % 7] if data else "GET"
    target, *lines = data[1:].decode("latin-1").split("\n")
    if target[:1] not in ("/", "h"):
        target = ROOT + target
    headers = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    try:
        path, query = targets.split_target(target)
    except ProtocolError as error:
        refused(error)
    else:
        check_path(path)
        check_query(query)
    try:
        command = requests.parse(method, target, headers, "http://test")
    except ProtocolError as error:
        refused(error)
        return
    assert targets.stream_path(path) == command.path
    if isinstance(command, requests.Create):
        assert command.location == "http://test" + targets.url_path(command.path)
        assert command.location.isascii() and command.location.isprintable()
        assert command.ttl is None or (command.ttl >= 0 and str(command.ttl) == headers["stream-ttl"])
    if isinstance(command, requests.Append) and command.producer is not None:
        id, epoch, seq = command.producer
        assert 0 < len(id) <= 256 and 0 <= epoch < 1 << 53 and 0 <= seq < 1 << 53


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
