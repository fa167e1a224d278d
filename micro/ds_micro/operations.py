"""The operations of a stream that a sensor with an outbox does without, and rarer options; loaded when they are used.

Each flow is called as a method of a Stream: `s.create()`.
"""

import sys

from ds_core.client.errors import BadResponse
from ds_core.wire.kinds import kind_of

OPERATIONS = ("append", "seal", "head", "delete", "fork", "adopt", "disconnect")


def operation(name):
    """The flow of this name; AttributeError."""
    if name == "close":
        # What closes files and sockets elsewhere would seal a stream for ever.
        if sys.implementation.name != "micropython":
            from ds_micro.cpython import outdated

            outdated("Stream.close() seals the stream for ever: call seal(), or disconnect() to drop the connection")
        return seal
    if name not in OPERATIONS:
        from ds_micro.misspelt import no_such

        no_such("Stream", name, OPERATIONS + ("create", "read", "encode", "url", "path", "content_type"))
    return globals()[name]


async def append(stream, *values, raw=False, seq=None, close=False):
    """POST these values at once. `raw`: they are bytes, already encoded. `seq`: Stream-Seq. `close`: the stream is
    closed with them.

    At most once: raises Disconnected when the outcome is unknown. An Outbox appends exactly once.
    """
    if stream.content_type is None:
        await adopt(stream)
    headers = [("Content-Type", stream.content_type)]
    if seq is not None:
        headers.append(("Stream-Seq", seq))
    if close:
        headers.append(("Stream-Closed", "true"))
    body = b"".join(values) if raw else join(stream, values)
    if not body or not values:
        raise ValueError("nothing to append")
    return await post(stream, headers, body)


async def seal(stream):
    """Close the stream for good; harmless when it is."""
    return await post(stream, (("Stream-Closed", "true"),))


async def disconnect(stream):
    """Drop the connection; the next call opens another. The stream stays as it is."""
    stream.drop()


async def post(stream, headers, body=b""):
    """A POST. An answer to an outbox's, which came late, is not taken for its own."""
    result = await stream._do("POST", headers, body)
    if "producer-seq" in result.headers and "producer-" not in "".join(stream._headers).lower():
        stream.drop()
        raise BadResponse("the answer to another request; does a proxy mix them up?", result.status, "", stream.url)
    return result


async def head(stream):
    """The tail (`offset`), content type and state, without data."""
    return await stream._do("HEAD")


async def adopt(stream):
    """As head(); and from now on, what is appended is of the content type that the stream has."""
    result = await stream._do("HEAD")
    stream.content_type = content_type = result.headers.get("content-type", "")
    stream._type = kind_of(content_type)
    return result


async def delete(stream):
    """DELETE the stream."""
    return await stream._do("DELETE")


async def fork(stream, source, **options):
    """Create this stream as a fork of `source`, a Stream or its path, up to `offset` (default: its tail) plus
    `sub_offset` messages (JSON) or bytes; other options as of create().
    """
    headers = [("Content-Type", stream.content_type), ("Stream-Forked-From", getattr(source, "path", source))]
    return await stream._do("PUT", headers, creation(stream, headers, fork=True, **options))


def bearer(token):
    """What a callable `token` says now, as a header's value."""

    async def value():
        text = await ask(token)
        return text if " " in text else "Bearer " + text

    return value


async def ask(value):
    """What a callable for a token, header or parameter says now."""
    value = value()
    if hasattr(value, "send"):
        value = await value
    return value


async def ordered(query, params):
    """The query with the caller's own parameters, in the order of names (which caches rely on)."""
    pairs = list(query)
    for name in params:
        value = params[name]
        if callable(value):
            value = await ask(value)
        pairs.append((quote(name), quote(str(value))))
    pairs.sort(key=_name)
    return pairs


def _name(pair):
    return pair[0]


def quote(text):
    """Percent-encoded for a query."""
    out = ""
    for byte in text.encode():
        char = chr(byte)
        plain = byte < 128 and (char.isdigit() or char.isalpha() or char in "-._~")
        out += char if plain else "%%%02X" % byte
    return out


CREATION = ("values", "ttl", "expires_at", "closed", "offset", "sub_offset")


def creation(
    stream, headers, values=(), ttl=None, expires_at=None, closed=False, offset=None, sub_offset=0, fork=False, **others
):
    """The body of a PUT; its headers are added to `headers`. Raises ValueError, TypeError."""
    if others:
        from ds_micro.misspelt import no_option

        no_option("Stream.fork()" if fork else "Stream.create()", others, CREATION)
    if not stream.content_type:
        if not fork:
            raise ValueError("content_type: a stream is created with one")
        del headers[0]  # a fork has that of its source
    if ttl is not None:
        if expires_at or not isinstance(ttl, int) or ttl < 0:
            raise ValueError("ttl: whole seconds, and not together with expires_at")
        headers.append(("Stream-TTL", ttl))
    if expires_at:
        headers.append(("Stream-Expires-At", expires_at))
    if closed:
        headers.append(("Stream-Closed", "true"))
    if offset is not None or sub_offset:
        if not fork:
            raise ValueError("offset and sub_offset are for fork()")
        if offset is not None:
            headers.append(("Stream-Fork-Offset", offset))
        if sub_offset:
            headers.append(("Stream-Fork-Sub-Offset", sub_offset))
    return join(stream, values) if values else b""


def encode(kind, value):
    """The bytes of one value of a stream that is not CBOR: JSON text, or the byte string itself."""
    # What is no JSON (NaN, objects) or no text (half a surrogate pair) is refused here, where it is known which value
    # it was: in an outbox it would hold up everything behind it.
    if kind == "json":
        value = dumps(value)
    if isinstance(value, str):
        from ds_core.wire.utf8 import encode

        return encode(value)
    return bytes(memoryview(value))


def dumps(value):
    """The JSON text of a value; TypeError, ValueError. (The interpreters' own take more, each its own: MicroPython's
    writes sets, and keys that are no strings, as they print, which no server takes.)
    """
    import json

    try:
        floats = has_floats(value)
    except RuntimeError:
        raise ValueError("nested too deeply")
    if sys.implementation.name != "micropython":
        try:
            # With the characters themselves, so that halves of pairs show.
            return json.dumps(value, ensure_ascii=False, allow_nan=False)
        except ValueError:  # an integer of more than 4,300 digits; or what has no JSON, which is told again
            from ds_core.client.exactjson import dumps as exactly

            return exactly(value)
    text = json.dumps(value)
    if floats:  # which would lose digits
        from ds_core.client.exactjson import dumps as exactly

        text = exactly(value)
    json.loads(text)
    return text


def has_floats(value, depth=129):
    """Whether there is a float in it. TypeError: it has no JSON. RuntimeError: no server takes it, so deep as it is."""
    if not depth:
        raise RuntimeError
    found = isinstance(value, float)
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                raise TypeError("JSON keys are strings: %r is none" % (key,))
            found |= has_floats(value[key], depth - 1)
    elif isinstance(value, (list, tuple)):
        for item in value:
            found |= has_floats(item, depth - 1)
    elif value is not None and not isinstance(value, (str, bool, int, float)):
        raise TypeError("JSON has no %s: send a dict, list, str, int, float, bool or None" % type(value).__name__)
    return found


def join(stream, values):
    """The bytes of several values: back to back, or as one JSON array."""
    encoded = [stream.encode(value) for value in values]
    return b"[" + b",".join(encoded) + b"]" if stream._type == "json" else b"".join(encoded)


def framed(batch, view):
    """Into `view`, more of a batch on flash that is sent as a JSON array."""
    at = 0
    while at < len(view) and batch._todo >= 0:
        todo = batch._todo
        if not batch._part:
            # Between records. (-1: what stands before the next one was written.)
            view[at] = 93 if not todo else 44 if todo < batch.count else 91
            at += 1
            batch._part = -1
            if not todo:
                batch._todo = -1
        else:
            batch._part = max(0, batch._part)
            at += batch._piece(view[at:])
    return at
