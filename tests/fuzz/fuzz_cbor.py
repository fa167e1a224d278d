"""Fuzzes the CBOR decoder and checks: with themselves, however the input is cut, and against cbor2 where
comparable.

    python tests/fuzz/fuzz_cbor.py -max_total_time=60 tests/fuzz/corpus/cbor

Needs `pip install atheris`. The first byte chooses how the rest is cut. test_corpus.py runs the corpus
without atheris.
"""

from __future__ import annotations

import contextlib
import sys
from io import BytesIO
from pathlib import Path

if __name__ == "__main__":
    import atheris

    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    instrumented = atheris.instrument_imports(include=["ds_core"])
else:
    instrumented = contextlib.nullcontext()

import cbor2

with instrumented:
    from ds_core.wire.cbor import (
        NEED_DATA,
        NO_LIMIT,
        CBORError,
        CBORTruncated,
        Decoder,
        Simple,
        decode,
        encode,
        items,
        undefined,
    )
    from ds_core.wire.cbor_check import boundaries


def outcome(function) -> list | str:  # type: ignore[no-untyped-def,type-arg]
    try:
        return list(function())
    except CBORTruncated:
        return "truncated"
    except CBORError as exc:
        return str(exc)


def fed(data: bytes, size: int) -> list[object]:
    decoder = Decoder(max_bytes=NO_LIMIT)
    found = []
    for at in range(0, len(data), size):
        decoder.feed(memoryview(data)[at : at + size])
        while (item := decoder.next()) is not NEED_DATA:
            found.append(item)
    decoder.end()
    assert decoder.items == len(found) and decoder.consumed == len(data)
    return found


def theirs(data: bytes) -> list[object] | str:
    decoder = cbor2.CBORDecoder(BytesIO(data), read_size=1, max_depth=1000)
    found = []
    try:
        while decoder.fp.tell() < len(data):
            found.append(decoder.decode())
    except cbor2.CBORDecodeEOF:
        return "truncated"
    except cbor2.CBORDecodeError as exc:
        return "truncated" if "chunk too long" in str(exc) else "malformed"
    return found


def ours(value: object) -> object:
    """cbor2's value with our types."""
    if value is cbor2.undefined:
        return undefined
    if isinstance(value, cbor2.CBORSimpleValue):
        return Simple(value.value)
    if isinstance(value, dict):
        return {ours(one): ours(other) for one, other in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(ours(one) for one in value)
    return value


def one_input(data: bytes) -> None:
    size = data[0] % 16 + 1 if data else 1
    data = data[1:]
    found = outcome(lambda: items(data))
    # repr tells 0.0 from -0.0 and True from 1, and calls one NaN like another.
    assert repr(outcome(lambda: fed(data, size))) == repr(found)
    ends = outcome(lambda: boundaries(data))
    if isinstance(found, list):
        assert isinstance(ends, list) and len(ends) == len(found)
        for value in found:
            # A map within a map's key is a tuple of pairs, and so deeper when it is encoded again.
            assert repr(decode(encode(value, 100), 100)) == repr(value), value
    else:
        assert ends == found, (ends, found)
    if not any(0xC0 <= byte < 0xE0 for byte in data) and "nesting" not in str(found):
        other = theirs(data)
        if isinstance(found, list):
            # cbor2's simple value 7 equals 7, also as the key of a map; to ours, within a key, {} is [].
            vague = "Simple(" in repr(found) or "frozendict(" in repr(other)
            assert vague or repr(found) == repr(ours(other)), (found, other)
        else:
            assert other == ("truncated" if found == "truncated" else "malformed"), (found, other)


if __name__ == "__main__":
    sys.set_int_max_str_digits(0)
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
