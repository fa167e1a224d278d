"""Messages: how a body becomes stored bytes, and stored bytes a body (protocol section 10).

| kind | stored form of an append | body of a read |
| --- | --- | --- |
| BYTES | the body | the stored bytes |
| JSON | every message followed by one comma | `[` messages `]` |
| CBOR | the body, a sequence of whole items | the stored bytes |

So any range between message boundaries is readable without parsing, and a position is simply the
number of stored bytes before it. Messages are byte for byte what was sent.
"""

from ds_core.wire import media

from . import json_text
from .errors import bad_request

TYPE_CHECKING = False  # type checkers take this name for true; MicroPython has no collections.abc
if TYPE_CHECKING:
    from collections.abc import Iterator

# What is stored can be read, however deep the shell's own parser let it be nested.
_NO_LIMIT = 0x3FFFFFFF


class Parsers:
    """The parsers a shell lends to the core; these defaults are pure and run everywhere.

    `split_json(body) -> list of messages` and `check_cbor(body) -> None` both raise ValueError
    with a message for the client; `split_json` must return the exact bytes that were sent.
    """

    def split_json(self, body: bytes) -> "list[bytes]":
        """The messages of a JSON body, each the exact bytes that were sent. ValueError for what is not JSON."""
        return json_text.split(body)

    def check_cbor(self, body: bytes) -> None:
        """ValueError unless the body is one whole CBOR item or several."""
        from ds_core.wire import cbor_check

        cbor_check.check(body)


def stored_form(kind: int, body: bytes, parsers: Parsers) -> bytes:
    """The stored form of an append's body; empty only for the JSON body `[]`.

    Raises ProtocolError 400 when the body is not what the stream's kind asks for.
    """
    if kind == media.BYTES:
        return body
    try:
        if kind == media.CBOR:
            parsers.check_cbor(body)
            return body
        messages = parsers.split_json(body)
    except ValueError as error:
        raise bad_request(str(error), "INVALID_CBOR" if kind == media.CBOR else "INVALID_JSON") from None
    if not messages:
        return b""
    return b",".join(messages + [b""])


def body(kind: int, data: bytes) -> bytes:
    """The response body for stored bytes that begin and end on message boundaries."""
    if kind == media.JSON:
        return b"[" + data[:-1] + b"]"
    return data


def body_size(kind: int, size: int) -> int:
    """The length of `body` for that many stored bytes, without having them."""
    if kind == media.JSON:
        return size + 1 if size else 2
    return size


def ends(kind: int, data: bytes) -> "Iterator[int]":
    """Where each message of a whole append ends. A BYTES append is one message.

    Parses as it goes and allocates nothing per message, so a caller can stop early.
    """
    at = 0
    size = len(data)
    if kind == media.BYTES:
        yield size
    elif kind == media.JSON:
        while at < size:
            at = json_text.value_end(data, at, _NO_LIMIT) + 1
            yield at
    else:
        from ds_core.wire import cbor_check

        while at < size:
            at = cbor_check.next_end(data, at, _NO_LIMIT)
            yield at


def is_boundary(kind: int, data: bytes, at: int) -> bool:
    """Whether a reader may begin `at` bytes into an append: bytes anywhere, else between messages."""
    if kind == media.BYTES or at in (0, len(data)):
        return True
    for end in ends(kind, data):
        if end >= at:
            return end == at
    return False


def cut(kind: int, data: bytes, at: int, limit: int) -> int:
    """Where a chunk that begins `at` bytes into an append and is limited to `limit` bytes ends.

    At least one whole message is included, whatever its size; BYTES are cut anywhere.
    """
    if kind == media.BYTES:
        return min(at + max(limit, 1), len(data))
    last = at
    for end in ends(kind, data):
        if end <= at:
            continue
        if end - at > limit and last > at:
            break
        last = end
        if end - at >= limit:
            break
    return last


def skip(kind: int, data: bytes, at: int, count: int) -> "int | None":
    """Where `count` messages (JSON, CBOR) or bytes past `at` lead, None if past the append's end.

    Serves Stream-Fork-Sub-Offset (section 8).
    """
    if kind == media.BYTES:
        return at + count if at + count <= len(data) else None
    for end in ends(kind, data):
        if end <= at:
            continue
        count -= 1
        if count == 0:
            return end
    return None
