"""Fuzzes JSON splitting: the core's splitter, msgspec's and CPython's json agree on what is JSON and on its values.

    python tests/fuzz/fuzz_json.py -max_total_time=60 tests/fuzz/corpus/json

Needs `pip install atheris`. The first byte chooses the window that a chunk of the stored messages is cut
with. test_corpus.py runs the corpus without atheris.
"""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path

if __name__ == "__main__":
    import atheris

    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    instrumented = atheris.instrument_imports(include=["ds_core", "ds_trio_server.parsers"])
else:
    instrumented = contextlib.nullcontext()

with instrumented:
    from ds_core.server import json_text, messages
    from ds_core.wire import media
    from ds_trio_server.parsers import FastParsers

FAST = FastParsers()


def outcome(split, text: bytes) -> list[bytes] | str:  # type: ignore[no-untyped-def]
    try:
        return split(text)
    except ValueError as error:
        return str(error)


def constant(name: str) -> None:
    raise ValueError(name)


def parse(text: bytes) -> object:
    """Numbers and repeated names stay as they are written: nothing is lost by being understood. What has half of a
    surrogate pair is no text, though `json` takes it."""
    value = json.loads(
        text.decode(), parse_int=str, parse_float=str, parse_constant=constant, object_pairs_hook=lambda pairs: pairs
    )
    json.dumps(value, ensure_ascii=False).encode()
    return value


def one_input(data: bytes) -> None:
    limit = data[0] if data else 0
    text = data[1:]
    found = outcome(json_text.split, text)
    assert outcome(FAST.split_json, text) == found, found
    if isinstance(found, str):
        try:
            value = parse(text)
        except (ValueError, RecursionError):
            return
        assert "nested deeper" in found, (found, value)
        return
    values = [parse(message) for message in found]
    whole = parse(text)
    assert values == (whole if text.lstrip(b" \t\n\r")[:1] == b"[" else [whole])
    for message in found:
        assert message in text and message.strip(b" \t\n\r") == message != b""
        assert outcome(json_text.split, b"[" + message + b"]") == [message]
    if not found:
        return
    stored = messages.stored_form(media.JSON, text, messages.Parsers())
    assert parse(messages.body(media.JSON, stored)) == values
    assert messages.body_size(media.JSON, len(stored)) == len(messages.body(media.JSON, stored))
    # Messages end where readers may begin, and chunks of any size put together are the whole.
    ends = list(messages.ends(media.JSON, stored))
    assert [stored[start : end - 1] for start, end in zip([0, *ends], ends, strict=False)] == found
    at = 0
    pieces = []
    while at < len(stored):
        end = messages.cut(media.JSON, stored, at, limit)
        assert end in ends and end > at
        pieces.append(stored[at:end])
        at = end
    assert b"".join(pieces) == stored
    for at in range(min(len(stored), 64) + 1):
        assert messages.is_boundary(media.JSON, stored, at) == (at in (0, *ends)), at


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
