"""Content types: one place that says what a stream's bytes are (protocol section 10).

A stream is opaque bytes, a sequence of JSON messages or a sequence of CBOR items; the content type
given at creation decides, by `ds_core.wire.kinds`, and nothing else in the project looks at content types.
"""

from ds_core.wire import kinds

OCTETS = "application/octet-stream"
JSON_TYPE = "application/json"
CBOR_TYPE = "application/cbor-seq"

# Kinds of stream.
BYTES = 0
JSON = 1
CBOR = 2

_KINDS = {"bytes": BYTES, "json": JSON, "cbor": CBOR}
_TOKEN = "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz"


def essence(content_type: str) -> str:
    """The `type/subtype` of a content type in lower case, its parameters left out.

    Two content types are the same stream type exactly when their essences are equal.
    Raises ValueError when it is not of the form `type/subtype` (RFC 9110 section 8.3.1).
    """
    text = content_type.split(";", 1)[0].strip().lower()
    kind, slash, subtype = text.partition("/")
    if not (slash and kind and subtype and _is_token(kind) and _is_token(subtype)):
        raise ValueError("Content-Type must be type/subtype, such as application/cbor-seq")
    return text


def kind_of(content_type: str) -> int:
    """BYTES, JSON or CBOR for a valid content type."""
    return _KINDS[kinds.kind_of(essence(content_type))]


def is_text(content_type: str) -> bool:
    """Whether SSE carries it as UTF-8 lines; everything else goes as base64 (section 6)."""
    text = essence(content_type)
    return text.startswith("text/") or kinds.kind_of(text) == "json"


def _is_token(text: str) -> bool:
    for char in text:
        if char not in _TOKEN:
            return False
    return True
