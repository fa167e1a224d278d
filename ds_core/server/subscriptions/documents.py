"""What is said of a subscription: its document, the bodies of wakes and claims, the event on a wake
stream (protocol section 9).

Paths are relative to the root and percent-encoded, as in a target: one can be read there, and be acknowledged as shown.
"""

import json

from ds_core.wire import names

from .. import targets
from . import tokens
from .config import WEBHOOK
from .state import Link, Subscription

TYPE_CHECKING = False  # type checkers take this name for true; MicroPython has no collections.abc
if TYPE_CHECKING:
    from collections.abc import Callable

JSON_TYPE = "application/json"


def url(base: str, id: str, action: str = "") -> str:
    """The address of a subscription, or of what is done to it. `base` has no path, and no slash at its end."""
    segment = targets.url_path(id, "").replace("/", "%2F")
    return base + names.ROOT + names.RESERVED + "/subscriptions/" + segment + ("/" + action if action else "")


def keys_url(base: str) -> str:
    """Where the keys are that webhooks are signed with."""
    return base + names.ROOT + names.RESERVED + "/jwks.json"


def document(
    subscription: Subscription, base: str, kid: "str | None", shown: "Callable[[str], bool] | None" = None
) -> "dict[str, object]":
    """All that a client sees (201, 200 and GET). `kid` names the key that signs now; `shown` says which paths this one
    may see, all without it. Times are ISO 8601; what has no value is left out."""
    config, state = subscription.config, subscription.state
    paths = [path for path in sorted(subscription.links) if shown is None or shown(path)]
    found: "dict[str, object]" = {"id": config.id, "subscription_id": config.id, "type": config.type}
    if config.pattern is not None:
        found["pattern"] = config.pattern
    found["streams"] = [_link(path, subscription.links[path]) for path in paths]
    if config.type == WEBHOOK:
        webhook: "dict[str, object]" = {"url": config.url}
        if kid is not None:
            webhook["signing"] = {"alg": "ed25519", "kid": kid, "jwks_url": keys_url(base)}
        found["webhook"] = webhook
    else:
        assert config.wake_stream is not None
        found["wake_stream"] = targets.url_path(config.wake_stream, "")
    found["lease_ttl_ms"] = config.lease_ttl_ms
    if config.min_interval_ms:
        found["min_interval_ms"] = config.min_interval_ms
    if config.description is not None:
        found["description"] = config.description
    found["created_at"] = iso(subscription.created)
    found["status"] = "failed" if state.failures else "active"
    if state.failing_since is not None:
        found["last_error"] = state.error
        found["failing_since"] = iso(state.failing_since)
    found["lag"] = lag(subscription, paths)
    return found


def lag(subscription: Subscription, paths: "list[str]") -> "dict[str, int]":
    """How many of these streams have work, and how many bytes of it, as far as positions tell."""
    count = size = 0
    for path in paths:
        link = subscription.links[path]
        if link.pending and link.tail is not None:
            count += 1
            same = link.acked[:16] == link.tail[:16]
            size += int(link.tail[17:]) - (int(link.acked[17:]) if same else 0)
    return {"streams": count, "bytes": size}


def wake(subscription: Subscription, base: str, sign: "Callable[[bytes], bytes]") -> "dict[str, object]":
    """The body of a webhook's request."""
    return {
        "subscription_id": subscription.id,
        "wake_id": subscription.state.wake_id,
        "generation": subscription.state.generation,
        "streams": _snapshot(subscription),
        "callback_url": url(base, subscription.id, "callback"),
        "callback_token": tokens.mint(subscription.id, subscription.state.generation, sign),
    }


def claimed(subscription: Subscription, sign: "Callable[[bytes], bytes]") -> "dict[str, object]":
    """The answer to a claim."""
    return {
        "wake_id": subscription.state.wake_id,
        "generation": subscription.state.generation,
        "token": tokens.mint(subscription.id, subscription.state.generation, sign),
        "streams": _snapshot(subscription),
        "lease_ttl_ms": subscription.config.lease_ttl_ms,
    }


def event(subscription: Subscription, generation: int, path: str, wall: float) -> "dict[str, object]":
    """What a wake puts on the wake stream: `path` is where the work is."""
    return {
        "type": "wake",
        "subscription_id": subscription.id,
        "stream": targets.url_path(path, ""),
        "generation": generation,
        "ts": int(wall * 1000),
    }


def encode(document: "dict[str, object]") -> bytes:
    """As a body: JSON in ASCII."""
    return json.dumps(document).encode()


def _link(path: str, link: Link) -> "dict[str, object]":
    kind = "explicit" if link.explicit else "glob"
    return {"path": targets.url_path(path, ""), "link_type": kind, "acked_offset": link.acked}


def _snapshot(subscription: Subscription) -> "list[dict[str, object]]":
    found = []
    for path in sorted(subscription.links):
        link = subscription.links[path]
        shown = _link(path, link)
        shown["tail_offset"] = link.tail or link.acked
        shown["has_pending"] = link.pending
        found.append(shown)
    return found


def iso(seconds: float) -> str:
    """A UNIX time as in 2026-11-25T21:40:50.687Z."""
    whole = int(seconds)
    days, rest = whole // 86400, whole % 86400
    # Years are counted from March, so that the leap day comes last: see `fields.instant`, which is the way back.
    days += 719468
    era, day = days // 146097, days % 146097
    year = (day - day // 1460 + day // 36524 - day // 146096) // 365
    day -= 365 * year + year // 4 - year // 100
    month = (5 * day + 2) // 153
    day -= (153 * month + 2) // 5
    month += 3 if month < 10 else -9
    year += era * 400 + (1 if month <= 2 else 0)
    clock = (rest // 3600, rest // 60 % 60, rest % 60, int((seconds - whole) * 1000))
    return "%04d-%02d-%02dT%02d:%02d:%02d.%03dZ" % ((year, month, day + 1) + clock)
