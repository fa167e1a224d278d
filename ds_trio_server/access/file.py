"""The access file: tokens with path globs and the keys of links, on disk; and as `Access` in a running server.

`ds token` and `ds share` write the file, a server reads it at its start and at SIGHUP. A token is
192 random bits. Nobody can guess or enumerate those, so a slow password hash would protect nothing
and cost a small gateway its throughput: what the file keeps is a keyed BLAKE2b digest under a salt
of its own. The server holds no token in memory and logs none. The keys of links are secrets, so the
file is for the server's eyes only.
"""

import fcntl
import json
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from ..config import Unusable
from ..globs import Glob
from . import links
from .policy import CREATE, READ, WRITE, Grant, Policy, digest

_PREFIX = "ds_"
_SECRET = 24
_VERSION = 1
_LIST = {"read": READ, "write": WRITE, "create": CREATE}
_FIELDS = {"name", "hash", "created", "metrics", *_LIST}


class AccessFileError(Unusable):
    """The access file can't be used; one line for the operator."""


class Access:
    """The access control of a running server: an access file's policy, replaced as a whole.

    `check` and `check_metrics` are the policy's. Raises AccessFileError when the file can't be used.
    """

    def __init__(self, file: str | Path) -> None:
        self.file = Path(file)
        self._take(read(self.file))

    def __str__(self) -> str:
        count = len(self.policy)
        return f"{self.file} ({count} name{'' if count == 1 else 's'})"

    def reload(self) -> None:
        """Take on the file as it is now; when that can't be used raise, and go on with the old one."""
        self.look()()

    def look(self) -> Callable[[], None]:
        """Read the file, which may take long; then there is what takes it on."""
        return partial(self._take, read(self.file))

    def _take(self, policy: Policy) -> None:
        self.policy = policy
        self.check = policy.check
        self.check_metrics = policy.check_metrics


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
                if digests.setdefault(found, grant) is not grant:
                    raise ValueError(f"it has the token of '{digests[found].name}' (the same hash)")
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
    except FileNotFoundError as error:
        raise AccessFileError(f"{file}: {error.strerror}; 'ds token new --access {file} ...' makes one") from None
    except PermissionError as error:
        raise AccessFileError(f"{file}: {error.strerror}; it must belong to the server's account") from None
    except OSError as error:
        raise AccessFileError(f"{file}: {error.strerror}") from None
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
    file = Path(os.path.realpath(file))  # a link to it stays one
    folder = file.parent
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
    return links.query(kid, bytes.fromhex(secret), path, expiry)


def entries(file: Path) -> list[dict[str, Any]]:
    """The tokens in a file, as they stand there. Raises AccessFileError."""
    content = _load(file)
    _policy(content, file)
    found: list[dict[str, Any]] = content["tokens"]
    return found


def open_to_others(file: Path) -> bool:
    """Whether accounts that are not the file's may read it."""
    try:
        return bool(file.stat().st_mode & 0o004)
    except OSError:
        return False  # it was taken away just now
