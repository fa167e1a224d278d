"""Our CBOR against cbor2, in both directions, and our checks against our decoder.

Where they differ, and why that is right here:

- cbor2 turns tags it knows into objects (datetimes, decimals, sets, shared references, ...) and refuses
  their content when it does not fit, though RFC 8949 calls such items well-formed, only not valid. Ours
  keeps every tag but 2 and 3 as Tag, whatever is in it. Of random bytes we therefore compare only those
  without tags that cbor2 knows.
- A tag 2 or 3 on anything but a byte string stays a Tag; cbor2 refuses it.
- cbor2's limit on nesting is 400 and does not count strings; ours is 32 and counts indefinite-length strings.
- A simple value equals its number to cbor2, so that they are one key of a map.
- A chunk of 2**63 bytes or more is malformed to cbor2; ours waits for it, up to its limit.
- A map within a map key is a tuple of pairs here, a frozendict there; within a tag, cbor2 gives tuples and
  frozendicts. So to us {} and [] are the same key of a map.
"""

from __future__ import annotations

import json
import math
import random
import struct
import subprocess
from io import BytesIO
from pathlib import Path

import cbor2
import pytest
from hypothesis import example, given, strategies as st

from ds_core.wire.cbor import (
    NEED_DATA,
    NO_LIMIT,
    CBORError,
    CBORTruncated,
    Decoder,
    Simple,
    Tag,
    decode,
    encode,
    encode_into,
    items,
    undefined,
)
from ds_core.wire.cbor_check import boundaries, check, next_end
from tests.tools import ci, micropython

ROOT = Path(__file__).resolve().parents[3]

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
# Tag numbers without a meaning in cbor2.
TAGS = st.one_of(st.integers(6, 20), st.integers(1 << 17, (1 << 64) - 1))
INTEGERS = st.one_of(
    st.integers(),
    st.integers(-70, 70),
    st.builds(lambda bits, change: (1 << bits) + change, st.integers(0, 140), st.integers(-2, 2)),
    st.builds(lambda bits, change: change - (1 << bits), st.integers(0, 140), st.integers(-2, 2)),
)
FLOATS = st.one_of(st.floats(), st.floats(width=32), st.floats(width=16))
SIMPLE = st.one_of(st.integers(0, 19), st.integers(32, 255))
SCALARS = st.one_of(
    st.none(), st.booleans(), INTEGERS, FLOATS, TEXT, st.binary(), SIMPLE.map(Simple), st.just(undefined)
)
KEYS = st.one_of(INTEGERS, TEXT, st.binary(), st.booleans(), st.none(), st.tuples(INTEGERS, TEXT))
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=5),
        st.dictionaries(KEYS, inner, max_size=5),
        st.builds(Tag, TAGS, inner),
    ),
    max_leaves=20,
)
CUTS = st.lists(st.integers(0, 12), max_size=60)


def same(one: object, other: object) -> bool:
    """Equal in type and value, through cbor2's types and ours; NaN equals NaN, 0.0 does not equal -0.0."""
    if isinstance(other, cbor2.CBORTag):
        return isinstance(one, Tag) and one.tag == other.tag and same(one.value, other.value)
    if isinstance(other, cbor2.CBORSimpleValue):
        return isinstance(one, Simple) and one.value == other.value
    if other is cbor2.undefined:
        return one is undefined
    if isinstance(other, cbor2.frozendict):
        other = dict(other) if isinstance(one, dict) else tuple(other.items())
    elif isinstance(other, tuple) and isinstance(one, list):
        other = list(other)
    if type(one) is not type(other):
        return False
    if isinstance(one, float):
        return (math.isnan(one) and math.isnan(other)) or repr(one) == repr(other)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return same(list(one.items()), list(other.items()))
    if isinstance(one, Tag):
        return one.tag == other.tag and same(one.value, other.value)
    return one == other


def to_cbor2(value: object) -> object:
    if isinstance(value, Tag):
        return cbor2.CBORTag(value.tag, to_cbor2(value.value))
    if value is undefined:
        return cbor2.undefined
    if isinstance(value, Simple):
        return cbor2.CBORSimpleValue(value.value)
    if isinstance(value, list):
        return [to_cbor2(item) for item in value]
    if isinstance(value, dict):
        return {key: to_cbor2(item) for key, item in value.items()}
    return value


def cut(data: bytes, sizes: list[int]) -> list[bytes]:
    found = []
    for size in sizes:
        found.append(data[:size])
        data = data[size:]
    return [*found, data]


def fed(chunks: list[bytes], drain: bool = True) -> list[object]:
    decoder = Decoder(max_bytes=NO_LIMIT)
    found: list[object] = []
    for number, chunk in enumerate(chunks):
        decoder.feed((bytes, bytearray, memoryview)[number % 3](chunk))
        if drain or number == len(chunks) - 1:
            while (item := decoder.next()) is not NEED_DATA:
                found.append(item)
    decoder.end()
    return found


@given(VALUES)
def test_cbor2_reads_what_we_encode(value: object) -> None:
    assert same(value, cbor2.loads(encode(value)))


@given(VALUES, st.booleans(), st.booleans())
def test_we_read_what_cbor2_encodes(value: object, canonical: bool, indefinite: bool) -> None:
    theirs = cbor2.dumps(to_cbor2(value), canonical=canonical, indefinite_containers=indefinite)
    found = decode(theirs)
    assert same(found, cbor2.loads(theirs))
    assert check(theirs) == 1
    if not canonical:
        assert same(found, value)


@given(st.one_of(SCALARS, st.lists(SCALARS, max_size=30)))
def test_what_both_encode_is_the_same_bytes(value: object) -> None:
    # Canonical, for floats: only then cbor2 takes the shortest width.
    assert encode(value) == cbor2.dumps(to_cbor2(value), canonical=True)


@given(VALUES)
def test_what_we_encode_we_decode(value: object) -> None:
    data = encode(value)
    assert same(decode(data), value)
    out = bytearray(b"x")
    encode_into(out, value)
    assert out == b"x" + data
    assert encode(decode(data)) == data


@given(st.lists(VALUES, max_size=5), CUTS)
def test_cuts_change_nothing(values: list[object], sizes: list[int]) -> None:
    encoded = [encode(value) for value in values]
    data = b"".join(encoded)
    for drain in (True, False):
        assert same(fed(cut(data, sizes), drain), values)
    ends = [sum(map(len, encoded[: n + 1])) for n in range(len(encoded))]
    assert boundaries(data) == ends
    for start, end in zip([0, *ends], ends, strict=False):
        assert next_end(data, start) == end


# Random bytes are mostly malformed at once; these pieces go deeper.
PIECES = st.sampled_from(
    [bytes([byte]) for byte in range(256)]
    + [b"\x9f", b"\xbf", b"\x5f", b"\x7f", b"\xff", b"\xff\xff", b"\x61a", b"\x41b", b"\x82", b"\xa1"] * 8
)
WIRE = st.one_of(st.binary(max_size=40), st.lists(PIECES, max_size=25).map(b"".join), VALUES.map(encode))


def outcome(function, *arguments):  # type: ignore[no-untyped-def]
    try:
        return function(*arguments)
    except CBORTruncated:
        return "truncated"
    except CBORError as exc:
        return str(exc)


@given(WIRE, CUTS)
@example(b"\x5f\x79", [])
@example(b"\x5b" + b"\xff" * 8, [])
@example(b"\xbb" + b"\xff" * 8, [3])
@example(b"\x7f\x61\xc3\x61\xa9\xff", [])
def test_checks_and_decoder_agree(data: bytes, sizes: list[int]) -> None:
    found = outcome(lambda: list(items(data)))
    again = outcome(lambda: fed(cut(data, sizes)))
    assert found == again or same(found, again)
    ends = outcome(boundaries, data)
    if isinstance(ends, list):
        assert isinstance(found, list) and len(found) == len(ends)
        assert not data or (check(data) == len(ends) and ends[-1] == len(data))
    else:
        assert found == ends
        assert outcome(check, data) == ends


def theirs(data: bytes) -> list[object] | str:
    """What cbor2 makes of a sequence: its values, "truncated" or "malformed"."""
    stream = BytesIO(data)
    decoder = cbor2.CBORDecoder(stream, read_size=1, max_depth=1000)
    found = []
    try:
        while decoder.fp.tell() < len(data):
            found.append(decoder.decode())
    except cbor2.CBORDecodeEOF:
        return "truncated"
    except cbor2.CBORDecodeError as exc:
        return "truncated" if "chunk too long" in str(exc) else "malformed"
    return found


@given(WIRE)
def test_random_bytes_against_cbor2(data: bytes) -> None:
    if any(0xC0 <= byte < 0xE0 for byte in data):
        return  # perhaps a tag, see above; the other tests have tags
    ours = outcome(lambda: list(items(data)))
    other = theirs(data)
    if isinstance(ours, list):
        vague = "Simple(" in repr(ours) or "frozendict(" in repr(other)
        assert vague or same(ours, other), (ours, other)
    elif "nesting" not in ours:
        assert other == ("truncated" if ours == "truncated" else "malformed"), (ours, other)


def sample(rng: random.Random, depth: int = 0) -> object:
    """A value; maps have one entry, for MicroPython's dicts have an order of their own."""
    kind = rng.randrange(12 if depth < 4 else 7)
    if kind == 0:
        return rng.choice([None, True, False, undefined, Simple(rng.randrange(20)), Simple(rng.randrange(32, 256))])
    if kind in (1, 2):
        return rng.choice([1, -1]) * ((1 << rng.randrange(90)) + rng.randrange(-2, 3))
    if kind == 3:
        return struct.unpack(">e", rng.randbytes(2))[0]
    if kind == 4:
        return struct.unpack(*rng.choice([(">f", rng.randbytes(4)), (">d", rng.randbytes(8))]))[0]
    if kind == 5:
        return rng.randbytes(rng.randrange(40))
    if kind == 6:
        return "".join(chr(rng.choice([65, 0xFC, 0x6C34, 0x10151])) for _ in range(rng.randrange(30)))
    if kind in (7, 8):
        return [sample(rng, depth + 1) for _ in range(rng.randrange(6))]
    if kind in (9, 10):
        return {rng.choice([1, -300, "key", b"\0", 1 << 70]): sample(rng, depth + 1)}
    return Tag(rng.choice([4, 30, 300, 55799, (1 << 64) - 1]), sample(rng, depth + 1))


SCRIPT = """
import json, sys
from ds_core.wire.cbor import Decoder, NEED_DATA, encode
from ds_core.wire.cbor_check import boundaries
for line in open(sys.argv[1]):
    data = bytes.fromhex(line.strip())
    decoder = Decoder()
    out = []
    for byte in range(0, len(data), 3):
        decoder.feed(data[byte : byte + 3])
        while (item := decoder.next()) is not NEED_DATA:
            out.append(encode(item).hex())
    decoder.end()
    print(json.dumps([out, boundaries(data)]))
"""


@pytest.mark.parametrize("build", [64, 32])
def test_micropython_decodes_and_encodes_the_same_bytes(build: int, tmp_path: Path) -> None:
    try:
        argv = micropython.find(build)
    except micropython.Unavailable as exc:
        ci.missing(exc)
    (tmp_path / "script.py").write_text(f"import sys; sys.path[:] = [{str(ROOT)!r}]\n{SCRIPT}")
    rng = random.Random(8949)
    sequences = [b"".join(encode(sample(rng)) for _ in range(rng.randrange(4))) for _ in range(400)]
    (tmp_path / "lines").write_text("".join(data.hex() + "\n" for data in sequences))
    done = subprocess.run(
        [*argv, "-X", "heapsize=256k", str(tmp_path / "script.py"), str(tmp_path / "lines")],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == len(sequences)
    for data, line in zip(sequences, lines, strict=True):
        found, ends = json.loads(line)
        assert ends == boundaries(data)
        assert found == [encode(item).hex() for item in items(data)], data.hex()
