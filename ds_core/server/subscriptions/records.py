"""A subscription as it is kept: a text for what changes, one for each link (protocol section 9).

A database has a row for a subscription (id, created, config, state) and one for each link (id, path, kind, cursor);
texts carry their version and are refused where they are not of it.
"""

import json

from .. import targets
from .config import Config
from .state import FIELDS, Link, State, Subscription

_VERSION = 1
_EXPLICIT, _GLOB = 1, 2


def config_text(config: Config) -> str:
    """The configuration, as a create's body would have it."""
    given: "dict[str, object]" = {"v": _VERSION, "type": config.type}
    given["streams"] = [_raw(each) for each in config.streams]
    if config.pattern is not None:
        given["pattern"] = config.pattern
    if config.url is not None:
        given["webhook"] = {"url": config.url}
    given["wake_stream"] = config.wake_stream and _raw(config.wake_stream)
    given["lease_ttl_ms"] = config.lease_ttl_ms
    given["min_interval_ms"] = config.min_interval_ms
    given["description"] = config.description
    return json.dumps(given)


def _raw(path: str) -> str:
    return targets.url_path(path, "")


def state_text(state: State) -> str:
    """The state: all of its fields in order."""
    return json.dumps([_VERSION] + [getattr(state, name) for name in FIELDS])


def subscription(id: str, created: float, config: str, state: str) -> Subscription:
    """One without its links, from its row. Raises ValueError for what it can't be."""
    given, kept = json.loads(config), json.loads(state)
    if given.get("v") != _VERSION or kept[:1] != [_VERSION] or len(kept) != len(FIELDS) + 1:
        raise ValueError("subscription %s is not of version %d" % (id, _VERSION))
    found = Subscription(Config(id, given), created)
    changes = {}
    for index in range(len(FIELDS)):
        changes[FIELDS[index]] = kept[index + 1]
    found.state = State().but(**changes)
    return found


def link_kind(link: Link) -> int:
    """How a stream is followed, as a number."""
    return (_EXPLICIT if link.explicit else 0) | (_GLOB if link.glob else 0)


def link(kind: int, acked: str, tail: "str | None") -> Link:
    """A link from its row and the tail that its stream has now, if it is there."""
    return Link(bool(kind & _EXPLICIT), bool(kind & _GLOB), acked, tail)
