"""What is asked under `/v1/stream/__ds`: targets and bodies to commands (protocol section 9).

All that is wrong with them ends here. A command names a subscription by `id`; what depends on whether it is there, and
on its state, is decided in the order that the protocol has, by `machine` and the shell: token, body, existence, type,
fence.
"""

import json

from ds_core.wire import names

from .. import json_text, targets
from ..errors import ProtocolError, bad_request
from . import config

TYPE_CHECKING = False  # type checkers take this name for true; MicroPython has no collections.abc
if TYPE_CHECKING:
    from typing import NamedTuple

    class Target(NamedTuple):
        """What a target names: its `action`, the subscription's `id` and, of a link, the stream's `path`."""

        action: str
        id: str
        path: str
else:
    from collections import namedtuple

    Target = namedtuple("Target", ("action", "id", "path"))

KEYS = "jwks"
SUBSCRIPTION = "subscription"
STREAMS = "streams"
STREAM = "stream"
CALLBACK = "callback"
CLAIM = "claim"
ACK = "ack"
RELEASE = "release"
_ACTIONS = (STREAMS, CALLBACK, CLAIM, ACK, RELEASE)
METHODS = {
    KEYS: ("GET", "HEAD"), SUBSCRIPTION: ("GET", "HEAD", "PUT", "DELETE"), STREAMS: ("POST",), STREAM: ("DELETE",),
    CALLBACK: ("POST",), CLAIM: ("POST",), ACK: ("POST",), RELEASE: ("POST",),
}  # fmt: skip

MOST_ACKS = 10000
LONGEST_WAIT = 60.0
_LONGEST_WORKER = 256


def target(method: str, raw: str, root: str = names.ROOT) -> Target:
    """What a path (without its query) under the reserved prefix names. 404 for what is not there, 405."""
    prefix = root + names.RESERVED + "/"
    parts = raw[len(prefix) :].split("/") if raw.startswith(prefix) else [""]
    found = None
    if parts == ["jwks.json"]:
        found = Target(KEYS, "", "")
    elif parts[0] == "subscriptions" and len(parts) > 1 and parts[1]:
        id = config.identifier(parts[1])
        if len(parts) == 2:
            found = Target(SUBSCRIPTION, id, "")
        elif len(parts) == 3 and parts[2] in _ACTIONS:
            found = Target(parts[2], id, "")
        elif parts[2] == STREAMS and parts[3]:
            # An encoded slash is one here: it is a path within a segment.
            text = targets.percent_decode("/".join(parts[3:]), "path")
            found = Target(STREAM, id, _again(text))
    if found is None:
        raise ProtocolError(404, "SUBSCRIPTION_NOT_FOUND", "there is nothing here: see the protocol's section 9")
    allowed = METHODS[found.action]
    if method not in allowed:
        listed = ", ".join(allowed)
        raise ProtocolError(405, "METHOD_NOT_ALLOWED", "this takes %s" % listed, (("Allow", listed),))
    return found


def _is_strict() -> bool:
    try:
        json.loads("{")  # MicroPython's is not: it takes what ends too early
        return False
    except ValueError:
        return True


_STRICT = _is_strict()


def _again(text: str) -> str:
    return config.path(targets.url_path(text, ""), "the stream")


def fields(body: bytes) -> "dict[str, object]":
    """The object that a body is; an empty body is an empty object."""
    if not body:
        return {}
    try:
        if not _STRICT:
            json_text.split(body)
        found = json.loads(str(body, "utf-8"))
    except (ValueError, RuntimeError):  # nested too deeply, the second, on every interpreter
        raise bad_request("the body must be JSON") from None
    if not isinstance(found, dict):
        raise bad_request("the body must be a JSON object")
    return found


def unknown(id: str) -> ProtocolError:
    """404."""
    return ProtocolError(404, "SUBSCRIPTION_NOT_FOUND", "there is no subscription %s" % id)


def streams(given: "dict[str, object]") -> "tuple[str, ...]":
    """The paths to follow; there may be none."""
    return config.paths(given.get("streams"), "streams")


class Claim:
    """`worker` is who wants it; for at most `wait` seconds (ours) where there is nothing to do yet."""

    __slots__ = ("worker", "wait")

    worker: str
    wait: float

    def __init__(self, given: "dict[str, object]") -> None:
        worker = given.get("worker")
        if not isinstance(worker, str) or not 0 < len(worker) <= _LONGEST_WORKER:
            raise bad_request("worker must be a text of 1 to %d characters" % _LONGEST_WORKER)
        self.worker = worker
        wait = given.get("wait", 0)
        if isinstance(wait, bool) or not isinstance(wait, (int, float)) or not 0 <= wait <= LONGEST_WAIT:
            raise bad_request("wait must be from 0 to %d seconds" % LONGEST_WAIT)
        self.wait = float(wait)


class Ack:
    """A callback, an ack or a release. `generation` and `wake_id` are as given, to be compared; `acks` are (path,
    offset); `done`: the wake is over."""

    __slots__ = ("generation", "wake_id", "acks", "done")

    generation: object
    wake_id: object
    acks: "list[tuple[str, str]]"
    done: bool

    def __init__(self, given: "dict[str, object]") -> None:
        self.generation = given.get("generation")
        self.wake_id = given.get("wake_id")
        self.done = given.get("done") is True
        self.acks = []
        acks = given.get("acks", [])
        if not isinstance(acks, list) or len(acks) > MOST_ACKS:
            raise bad_request("acks must be a list of at most %d {stream, offset}" % MOST_ACKS)
        for each in acks:
            stream = each.get("stream", each.get("path")) if isinstance(each, dict) else None
            offset = each.get("offset") if isinstance(each, dict) else None
            if not isinstance(stream, str) or not isinstance(offset, str):
                raise bad_request("each of acks is an object with stream, a path, and offset, both texts")
            self.acks.append((config.path(stream, "acks"), offset))


def check_type(kind: str, action: str) -> None:
    """400 for what only workers of a pull-wake subscription do (a callback is for both)."""
    if action != CALLBACK and kind != config.PULL:
        raise bad_request("%s is for pull-wake subscriptions; this is a webhook's" % action)
