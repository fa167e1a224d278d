"""Share links: `share=<expiry>.<key id>.<signature>` on a stream's URL lets anybody read that one path until then.

The signature is HMAC-SHA256, 128 bits of it, over the expiry (UNIX seconds) and the canonical path. Its keys are
secrets in the access file; to forget a key is to end all links that were signed with it.
"""

import hmac
from base64 import urlsafe_b64encode
from collections.abc import Mapping

PARAMETER = "share"
"""The query parameter of a link."""

_INVALID = "this link is not valid, or was revoked"


def query(key_id: str, key: bytes, path: str, expiry: int) -> str:
    """The query that makes a link of the URL of a canonical path."""
    return f"{PARAMETER}={expiry}.{key_id}.{sign(key, path, expiry).decode()}"


def verify(keys: Mapping[str, bytes], path: str, link: str, wall: float) -> str:
    """The id of the key that signed a link to this path, at a UNIX time; ValueError says what is wrong with it."""
    parts = link.split(".")
    key = keys.get(parts[1]) if len(parts) == 3 else None
    expiry = parts[0]
    if key is None or not (expiry.isascii() and expiry.isdigit() and len(expiry) <= 12):
        raise ValueError(_INVALID)
    if not hmac.compare_digest(sign(key, path, int(expiry)), parts[2].encode()):
        raise ValueError(_INVALID)
    if int(expiry) <= wall:
        raise ValueError("this link has expired; ask for a new one")
    return parts[1]


def sign(key: bytes, path: str, expiry: int) -> bytes:
    """The signature of a link."""
    mac = hmac.digest(key, f"share 1\n{expiry}\n{path}".encode(), "sha256")
    return urlsafe_b64encode(mac[:16]).rstrip(b"=")
