"""Fuzzes the parser of server-sent events: any cut reads alike, parts add up, and no payload forges an event.

    python tests/fuzz/fuzz_sse.py -max_total_time=60 tests/fuzz/corpus/sse

Needs `pip install atheris`. The first byte chooses how the rest is cut. test_corpus.py runs the corpus
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
    from ds_core.wire.sse import NEED_DATA, Parser, SSEError, control_event, data_event


def parse(data: bytes, size: int, kind: type, **options: object) -> list[tuple[str, bytes]] | str:
    parser = Parser(**options)  # type: ignore[arg-type]
    found = []
    part = b""
    try:
        for at in range(0, len(data), size):
            parser.feed(kind(data[at : at + size]))
            while (result := parser.next()) is not NEED_DATA:
                name, value = result
                assert len(value) <= options.get("limit", 65536)
                part += value
                if not parser.more:
                    found.append((name, part))
                    part = b""
    except SSEError as exc:
        return str(exc)
    return found


def one_input(data: bytes) -> None:
    size = data[0] % 16 + 1 if data else 1
    data = data[1:]
    whole = parse(data, len(data) or 1, bytes)
    assert parse(data, size, memoryview) == whole
    assert parse(data, size, bytearray) == whole
    limited = parse(data, len(data) or 1, bytes, limit=20)
    assert parse(data, 1, memoryview, limit=20) == limited
    parts = parse(data, size, memoryview, limit=20, partial=True)
    assert parse(data, len(data) or 1, bytes, limit=20, partial=True) == parts
    if isinstance(whole, list) and isinstance(parts, list):
        assert [value for _, value in parts] == [value for _, value in whole]
    if isinstance(limited, list):
        assert limited == whole == parts

    stream = data_event(data, False) + control_event("1") + data_event(data, True)
    found = parse(stream, size, memoryview)
    assert [name for name, _ in found] == ["data", "control", "data"]
    assert found[0][1] == data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
