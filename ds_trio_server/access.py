"""Who may do what: tokens with path globs, client certificates, and signed read-only links.

One JSON file holds it all; ``ds token`` and ``ds share`` write it, a server reads it at its start and
at SIGHUP. A token is 192 random bits. Nobody can guess or enumerate those, so a slow password hash
would protect nothing and cost a small gateway its throughput: what the file keeps is a keyed BLAKE2b
digest under a salt of its own. A token given in a request is only ever hashed and looked up by that
digest. How long this takes tells nothing: without the salt nobody can steer a digest, and names take
no part in it. The server holds no token in memory and logs none.

A link is ``share=<expiry>.<key id>.<signature>`` on a stream's URL. The signature is HMAC-SHA256, 128
bits of it, over the expiry and the canonical path; its secret lives in the file, so the file is for
the server's eyes only.
"""

import fcntl
import hashlib
import hmac
import json
import os
import secrets
from base64 import urlsafe_b64encode
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ds_core.server import requests, targets
from ds_core.server.errors import ProtocolError
from ds_core.server.requests import Create

READ, WRITE, CREATE = 1, 2, 4

SHARE = "share"
"""The query parameter of a link."""

_PREFIX = "ds_"
_SECRET = 24
_VERSION = 1
_KNOWN_PATHS = 16384
_LIST = {"read": READ, "write": WRITE, "create": CREATE}
_FIELDS = {"name", "hash", "created", "metrics", *_LIST}

# A HEAD tells what every append tells as well: where the stream ends.
_NEEDS = {
    requests.READ: READ,
    requests.HEAD: READ | WRITE,
    requests.APPEND: WRITE,
    requests.CREATE: CREATE,
    requests.DELETE: CREATE,
}
_VERBS = {
    requests.READ: "read",
    requests.HEAD: "look at",
    requests.APPEND: "append to",
    requests.CREATE: "create",
    requests.DELETE: "delete",
}


class AccessFileError(Exception):
    """The access file can't be used; one line for the operator."""


# Globs


class Glob:
    """A path pattern: ``*`` is one segment or a part of one, ``**`` any number of segments.

    ``a/**`` is everything below ``a`` and not ``a`` itself. Raises ValueError.
    """

    __slots__ = ("text", "_parts")

    def __init__(self, text: str) -> None:
        parts: list[str | tuple[str, str] | None] = []
        segments = text.split("/")
        for segment in segments:
            if segment in ("", ".", ".."):
                raise ValueError(f"'{text}' has an empty or a dot segment; write it as in 'greenhouse/*/temperature'")
            if segment == "**":
                parts.append(None)
            elif segment.count("*") > 1:
                raise ValueError(f"'{text}' has a segment with several '*'; one is enough, or '**' for any segments")
            elif "*" in segment:
                before, _, after = segment.partition("*")
                parts.append((before, after))
            else:
                parts.append(segment)
        if parts[-1] is None:
            parts.insert(-1, ("", ""))
        self.text = text
        self._parts = parts

    def matches(self, segments: Sequence[str]) -> bool:
        """Whether the path of these segments fits; in time in proportion to its length."""
        parts = self._parts
        at = done = 0
        # Where the last ** stands, and how many segments it has taken so far.
        star, taken = -1, 0
        while done < len(segments):
            part = parts[at] if at < len(parts) else ""
            if part is None:
                star, taken = at, done
                at += 1
            elif _fits(part, segments[done]):
                at += 1
                done += 1
            elif star >= 0:
                taken += 1
                at, done = star + 1, taken
            else:
                return False
        return all(part is None for part in parts[at:])


def _fits(part: str | tuple[str, str], segment: str) -> bool:
    if isinstance(part, str):
        return part == segment
    before, after = part
    return len(segment) >= len(before) + len(after) and segment.startswith(before) and segment.endswith(after)


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
        segments = path.split("/")
        found = 0
        for right, globs in self.globs.items():
            if any(glob.matches(segments) for glob in globs):
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
            raise _forbidden(grant, f"{verb} this path")


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


def _forbidden(grant: Grant, what: str) -> ProtocolError:
    challenge = 'Bearer realm="streams", error="insufficient_scope"'
    return ProtocolError(403, "FORBIDDEN", f"{grant.name} may not {what}", (("WWW-Authenticate", challenge),))


class Access:
    """The access control of a running server: an access file's policy, replaced as a whole."""

    def __init__(self, file: str | Path) -> None:
        self.file = Path(file)
        self.policy = read(self.file)

    def __str__(self) -> str:
        count = len(self.policy)
        return f"{self.file} ({count} name{'' if count == 1 else 's'})"

    def reload(self) -> None:
        """Take on the file as it is now; when that can't be used raise, and go on with the old one."""
        self.policy = read(self.file)

    def check_metrics(
        self, headers: dict[str, str], target: str, certified: Sequence[str] = (), wall: float = 0.0
    ) -> None:
        """401 or 403 unless the request may read the server's metrics."""
        grant = self.policy.identify(headers, target, certified, wall)
        if not grant.metrics:
            raise _forbidden(grant, "read the metrics")

    def check(
        self,
        command: requests.Create | requests.Append | requests.Read | requests.Head | requests.Delete,
        headers: dict[str, str],
        target: str,
        certified: Sequence[str] = (),
        wall: float = 0.0,
    ) -> None:
        """401 or 403 unless the request may do what it asks; to be called before any look at a store."""
        policy = self.policy
        grant = policy.identify(headers, target, certified, wall)
        policy.require(grant, command.path, _NEEDS[command.kind], _VERBS[command.kind])
        if isinstance(command, Create) and command.source is not None:
            # A fork shows what its source holds.
            policy.require(grant, command.source, READ, "fork from")


# The file


def read(file: Path) -> Policy:
    """The policy in a file. Raises AccessFileError."""
    return _policy(_load(file), file)


def _policy(content: dict[str, Any], file: Path) -> Policy:
    try:
        salt = bytes.fromhex(_text(content, "salt"))
        if not 16 <= len(salt) <= 64:
            raise ValueError("the salt must have 16 to 64 bytes")
        keys = {kid: bytes.fromhex(secret) for kid, secret in _table(content, "share_keys").items()}
        if any(len(key) < 16 for key in keys.values()):
            raise ValueError("a share key must have at least 16 bytes")
    except (ValueError, TypeError) as error:
        raise AccessFileError(f"{file}: {error}") from None
    grants: dict[str, Grant] = {}
    digests: dict[bytes, Grant] = {}
    for number, entry in enumerate(content["tokens"], 1):
        try:
            grant = _grant(entry)
            if grant.name in grants:
                raise ValueError("another token has this name")
            grants[grant.name] = grant
            if entry.get("hash") is not None:
                found = bytes.fromhex(_text(entry, "hash"))
                if len(found) != 32:
                    raise ValueError("its hash must have 32 bytes")
                digests[found] = grant
        except (ValueError, TypeError) as error:
            name = entry.get("name") if isinstance(entry, dict) else None
            raise AccessFileError(f"{file}: token {name or f'number {number}'}: {error}") from None
    return Policy(salt, grants, digests, keys)


def _grant(entry: Any) -> Grant:
    if not isinstance(entry, dict):
        raise ValueError("it must be an object")
    unknown = set(entry) - _FIELDS
    if unknown:
        # A right that was misspelt would be one that silently isn't there.
        raise ValueError(f"it has an unknown field '{min(unknown)}'; known are {', '.join(sorted(_FIELDS))}")
    metrics = entry.get("metrics", False)
    if not isinstance(metrics, bool):
        raise ValueError("its metrics must be true or false")
    globs: dict[int, list[Glob]] = {}
    for name, right in _LIST.items():
        patterns = entry.get(name, [])
        if not isinstance(patterns, list) or not all(isinstance(pattern, str) for pattern in patterns):
            raise ValueError(f"its {name} must be a list of globs")
        globs[right] = [Glob(pattern) for pattern in patterns]
    return Grant(checked_name(_text(entry, "name")), globs, metrics)


def checked_name(name: str) -> str:
    """A name as it may be; raises ValueError for any other."""
    if not 0 < len(name) <= 128 or not name.isprintable() or name != name.strip():
        raise ValueError("a name has 1 to 128 printable characters and no space around it")
    return name


def _text(content: dict[str, Any], name: str) -> str:
    value = content.get(name)
    if not isinstance(value, str):
        raise ValueError(f"'{name}' must be a text")
    return value


def _table(content: dict[str, Any], name: str) -> dict[str, str]:
    value = content.get(name)
    if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        raise ValueError(f"'{name}' must be an object of texts")
    return value


def _load(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_bytes())
    except OSError as error:
        raise AccessFileError(f"{file}: {error.strerror}; 'ds token new --access {file} ...' makes one") from None
    except (ValueError, RecursionError) as error:
        raise AccessFileError(f"{file}: not JSON: {error}") from None
    if not isinstance(content, dict) or content.get("version") != _VERSION:
        raise AccessFileError(f"{file}: not an access file of version {_VERSION}")
    if not isinstance(content.get("tokens"), list):
        raise AccessFileError(f"{file}: 'tokens' must be a list")
    return content


@contextmanager
def edit(file: Path, create: bool = False) -> Iterator[dict[str, Any]]:
    """The content of a file, to be changed in place; written back whole, or not at all.

    Raises AccessFileError, also when the result could not be used by a server.
    """
    folder = file.absolute().parent
    try:
        lock = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise AccessFileError(f"{folder}: {error.strerror}") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two commands at once, not a server: that reads whole files
        content = _fresh() if create and not file.exists() else _load(file)
        yield content
        _policy(content, file)
        _write(file, content)
        os.fsync(lock)
    except OSError as error:
        raise AccessFileError(f"{error.filename or file}: {error.strerror}") from None
    finally:
        os.close(lock)


def _write(file: Path, content: dict[str, Any]) -> None:
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "w") as out:
            json.dump(content, out, indent=2)
            out.write("\n")
            if file.exists():
                # An administrator's edit must not lock the server's account out.
                before = file.stat()
                os.fchmod(out.fileno(), before.st_mode & 0o777)
                if (before.st_uid, before.st_gid) != (os.geteuid(), os.getegid()):
                    os.fchown(out.fileno(), before.st_uid, before.st_gid)
            out.flush()
            os.fsync(out.fileno())
        os.replace(draft, file)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def _fresh() -> dict[str, Any]:
    content: dict[str, Any] = {"version": _VERSION, "salt": secrets.token_hex(32), "share_keys": {}, "tokens": []}
    renew_share_key(content)
    return content


def renew_share_key(content: dict[str, Any]) -> None:
    """Forget the secrets that links were signed with: all links given out end."""
    content["share_keys"] = {secrets.token_hex(4): secrets.token_hex(32)}


def add_token(content: dict[str, Any], entry: dict[str, Any], with_token: bool = True) -> str:
    """Add an entry (name, globs, ...) with a new token, which is returned and kept nowhere.

    Without a token only a client certificate can claim the entry. Raises ValueError.
    """
    grant = _grant(entry)
    if any(other.get("name") == grant.name for other in content["tokens"]):
        raise ValueError(f"there is a token named '{grant.name}'; revoke it first, or take another name")
    token = ""
    if with_token:
        token = _PREFIX + secrets.token_urlsafe(_SECRET)
        entry = {**entry, "hash": digest(bytes.fromhex(content["salt"]), token).hex()}
    content["tokens"].append(entry)
    return token


def link(file: Path, path: str, expiry: int) -> str:
    """The query of a link to a canonical path. Raises AccessFileError."""
    content = _load(file)
    keys = _table(content, "share_keys")
    if not keys:
        raise AccessFileError(f"{file}: no share key; 'ds share --revoke-all --access {file}' makes one")
    kid, secret = list(keys.items())[-1]
    return f"{SHARE}={expiry}.{kid}.{sign(bytes.fromhex(secret), path, expiry).decode()}"


def entries(file: Path) -> list[dict[str, Any]]:
    """The tokens in a file, as they stand there. Raises AccessFileError."""
    content = _load(file)
    _policy(content, file)
    found: list[dict[str, Any]] = content["tokens"]
    return found


def open_to_others(file: Path) -> bool:
    """Whether accounts that are not the file's may read it."""
    return bool(file.stat().st_mode & 0o004)
