"""Rights: what a name may do, and whose a request is.

A token given in a request is hashed under the access file's salt and looked up by that digest. How
long this takes tells nothing: without the salt nobody can steer a digest, and names take no part in
it. Rights to a path are worked out once and kept, within a bound, for the requests that follow.
"""

import hashlib
import hmac
from base64 import urlsafe_b64encode
from collections.abc import Sequence

from ds_core.server import targets
from ds_core.server.errors import ProtocolError

from ..globs import Glob

READ, WRITE, CREATE = 1, 2, 4

SHARE = "share"
"""The query parameter of a link."""

_KNOWN_PATHS = 16384


# Rights


class Grant:
    """What one name may do. ``globs`` maps READ, WRITE and CREATE to patterns."""

    __slots__ = ("name", "metrics", "globs")

    def __init__(self, name: str, globs: dict[int, list[Glob]], metrics: bool = False) -> None:
        self.name = name
        self.globs = globs
        self.metrics = metrics

    def rights(self, path: str) -> int:
        """The rights to a canonical path, as bits."""
        found = 0
        for right, globs in self.globs.items():
            if any(glob.matches(path) for glob in globs):
                found |= right
        return found


class Link(Grant):
    """What a link's bearer may do: read that one path."""

    __slots__ = ("path",)

    def __init__(self, path: str) -> None:
        super().__init__("a share link", {})
        self.path = path

    def rights(self, path: str) -> int:
        return READ if path == self.path else 0


class Policy:
    """The content of an access file, ready for requests."""

    def __init__(self, salt: bytes, grants: dict[str, Grant], digests: dict[bytes, Grant], keys: dict[str, bytes]):
        self._salt = salt
        self._grants = grants
        self._digests = digests
        self._keys = keys
        self._known: dict[tuple[Grant, str], int] = {}

    def __len__(self) -> int:
        return len(self._grants)

    def identify(
        self, headers: dict[str, str], target: str, certified: Sequence[str] = (), wall: float = 0.0
    ) -> Grant:
        """Whose request this is: by its token, its client certificate's names, or its link.

        ``wall`` is UNIX time as far as it can be believed. Raises ProtocolError 401.
        """
        given = headers.get("authorization")
        if given is not None:
            scheme, _, token = given.partition(" ")
            if scheme.lower() != "bearer":
                raise _unauthorized("send a token as 'Authorization: Bearer <token>'")
            grant = self._digests.get(digest(self._salt, token.strip(" ")))
            if grant is None:
                raise _unauthorized("this token is not known here, or was revoked", "invalid_token")
            return grant
        for name in certified:
            grant = self._grants.get(name)
            if grant is not None:
                return grant
        if "?" in target and SHARE in target:
            path, query = targets.split_target(target)
            link = targets.parse_query(query).get(SHARE)
            if link is not None:
                return self._linked(targets.stream_path(path), link, wall)
        raise _unauthorized("this server wants a token: 'Authorization: Bearer <token>'")

    def _linked(self, path: str, link: str, wall: float) -> Grant:
        parts = link.split(".")
        key = self._keys.get(parts[1]) if len(parts) == 3 else None
        expiry = parts[0]
        if key is None or not (expiry.isascii() and expiry.isdigit() and len(expiry) <= 12):
            raise _unauthorized("this link is not valid, or was revoked", "invalid_token")
        if not hmac.compare_digest(sign(key, path, int(expiry)), parts[2].encode()):
            raise _unauthorized("this link is not valid, or was revoked", "invalid_token")
        if int(expiry) <= wall:
            raise _unauthorized("this link has expired; ask for a new one", "invalid_token")
        return Link(path)

    def require(self, grant: Grant, path: str, rights: int, verb: str) -> None:
        """403 unless the grant has one of the rights to the path. Never looks at the stream."""
        found = self._known.get((grant, path))
        if found is None:
            found = grant.rights(path)
            if not isinstance(grant, Link):
                if len(self._known) >= _KNOWN_PATHS:
                    self._known.clear()
                self._known[(grant, path)] = found
        if not found & rights:
            raise forbidden(grant, f"{verb} this path")


def digest(salt: bytes, token: str) -> bytes:
    """What is kept of a token."""
    return hashlib.blake2b(token.encode("utf-8", "replace"), key=salt, digest_size=32).digest()


def sign(key: bytes, path: str, expiry: int) -> bytes:
    """The signature of a link."""
    mac = hmac.digest(key, f"share 1\n{expiry}\n{path}".encode(), "sha256")
    return urlsafe_b64encode(mac[:16]).rstrip(b"=")


def _unauthorized(message: str, error: str = "") -> ProtocolError:
    challenge = 'Bearer realm="streams"' + (f', error="{error}"' if error else "")
    return ProtocolError(401, "UNAUTHORIZED", message, (("WWW-Authenticate", challenge),))


def forbidden(grant: Grant, what: str) -> ProtocolError:
    """403, the same whatever there is."""
    challenge = 'Bearer realm="streams", error="insufficient_scope"'
    return ProtocolError(403, "FORBIDDEN", f"{grant.name} may not {what}", (("WWW-Authenticate", challenge),))
