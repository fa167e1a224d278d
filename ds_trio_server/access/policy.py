"""Rights: what a name may do, and whose a request is.

A token given in a request is hashed under the access file's salt and looked up by that digest. How
long this takes tells nothing: without the salt nobody can steer a digest, and names take no part in
it. Rights to a path are worked out once and kept, within a bound, for the requests that follow.
"""

import hashlib
from collections.abc import Mapping, Sequence

from ds_core.server import requests, targets
from ds_core.server.errors import ProtocolError
from ds_core.server.requests import Append, Create, Delete, Head, Read

from ..globs import Glob
from . import links
from .identity import CERTIFICATE, LINK, TOKEN, Identity

READ, WRITE, CREATE = 1, 2, 4

# What a command needs, and how that is called. A HEAD tells what every append tells as well: where the stream ends.
_NEEDS = {
    requests.READ: (READ, "read"),
    requests.HEAD: (READ | WRITE, "look at"),
    requests.APPEND: (WRITE, "append to"),
    requests.CREATE: (CREATE, "create"),
    requests.DELETE: (CREATE, "delete"),
}
_KNOWN_PATHS = 16384


class Grant:
    """What one name may do. `globs` maps READ, WRITE and CREATE to patterns."""

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


class LinkGrant(Grant):
    """What a link's bearer may do: read that one path."""

    __slots__ = ("path",)

    def __init__(self, path: str) -> None:
        super().__init__("a share link", {})
        self.path = path

    def rights(self, path: str) -> int:
        """READ for that path, nothing for any other."""
        return READ if path == self.path else 0


class Policy:
    """The content of an access file, ready for requests.

    `grants` are by name, `digests` by the hash of a token, `keys` (of links) by their ids.
    """

    def __init__(
        self, salt: bytes, grants: Mapping[str, Grant], digests: Mapping[bytes, Grant], keys: Mapping[str, bytes]
    ) -> None:
        self._salt = salt
        self._names = {name: (grant, Identity(name, CERTIFICATE)) for name, grant in grants.items()}
        self._digests = {found: (grant, Identity(grant.name, TOKEN)) for found, grant in digests.items()}
        self._keys = dict(keys)
        self._known: dict[tuple[Grant, str], int] = {}

    def __len__(self) -> int:
        return len(self._names)

    def check(
        self,
        command: Create | Append | Read | Head | Delete,
        headers: Mapping[str, str],
        target: str,
        certified: Sequence[str] = (),
        wall: float = 0.0,
    ) -> Identity:
        """Who asks; 401 or 403 unless they may do this. To be called before any look at a store."""
        grant, identity = self.identify(headers, target, certified, wall)
        rights, verb = _NEEDS[command.kind]
        self.require(grant, command.path, rights, verb)
        if isinstance(command, Create) and command.source is not None:
            # A fork shows what its source holds.
            self.require(grant, command.source, READ, "fork from")
        return identity

    def check_metrics(
        self, headers: Mapping[str, str], target: str, certified: Sequence[str] = (), wall: float = 0.0
    ) -> Identity:
        """Who asks; 401 or 403 unless they may read the server's metrics."""
        grant, identity = self.identify(headers, target, certified, wall)
        if not grant.metrics:
            raise forbidden(grant, "read the metrics")
        return identity

    def identify(
        self, headers: Mapping[str, str], target: str, certified: Sequence[str] = (), wall: float = 0.0
    ) -> tuple[Grant, Identity]:
        """Whose request this is, and what they may do: by its token, its client certificate's names, or its link.

        `wall` is UNIX time as far as it can be believed. Raises ProtocolError 401.
        """
        given = headers.get("authorization")
        if given is not None:
            scheme, _, token = given.partition(" ")
            if scheme.lower() != "bearer":
                raise unauthorized("send a token as 'Authorization: Bearer <token>'")
            bearer = self._digests.get(digest(self._salt, token.strip(" ")))
            if bearer is None:
                raise unauthorized("this token is not known here, or was revoked", "invalid_token")
            return bearer
        for name in certified:
            owner = self._names.get(name)
            if owner is not None:
                return owner
        if "?" in target and links.PARAMETER in target:
            path, query = targets.split_target(target)
            link = targets.parse_query(query).get(links.PARAMETER)
            if link is not None:
                path = targets.stream_path(path)
                try:
                    key_id = links.verify(self._keys, path, link, wall)
                except ValueError as error:
                    raise unauthorized(str(error), "invalid_token") from None
                return LinkGrant(path), Identity(key_id, LINK)
        raise unauthorized("this server wants a token: 'Authorization: Bearer <token>'")

    def require(self, grant: Grant, path: str, rights: int, verb: str) -> None:
        """403 unless the grant has one of the rights to the path. Never looks at the stream."""
        found = self._known.get((grant, path))
        if found is None:
            found = grant.rights(path)
            if not isinstance(grant, LinkGrant):
                if len(self._known) >= _KNOWN_PATHS:
                    self._known.clear()
                self._known[(grant, path)] = found
        if not found & rights:
            raise forbidden(grant, f"{verb} this path")


def digest(salt: bytes, token: str) -> bytes:
    """What is kept of a token."""
    return hashlib.blake2b(token.encode("utf-8", "replace"), key=salt, digest_size=32).digest()


def unauthorized(message: str, error: str = "") -> ProtocolError:
    """401."""
    challenge = 'Bearer realm="streams"' + (f', error="{error}"' if error else "")
    return ProtocolError(401, "UNAUTHORIZED", message, (("WWW-Authenticate", challenge),))


def forbidden(grant: Grant, what: str) -> ProtocolError:
    """403, the same whatever there is."""
    challenge = 'Bearer realm="streams", error="insufficient_scope"'
    return ProtocolError(403, "FORBIDDEN", f"{grant.name} may not {what}", (("WWW-Authenticate", challenge),))
