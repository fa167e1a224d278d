"""What a subscription was created as: its configuration, checked (protocol section 9)."""

from ds_core.wire import names

from .. import targets
from ..errors import ProtocolError, bad_request
from . import patterns, urls

TYPE_CHECKING = False  # type checkers take this name for true; MicroPython has no collections.abc
if TYPE_CHECKING:
    from collections.abc import Callable

WEBHOOK = "webhook"
PULL = "pull-wake"
TYPES = (WEBHOOK, PULL)

LEASE_MS = 30000
SHORTEST_LEASE_MS = 1000
LONGEST_LEASE_MS = 600000
LONGEST_INTERVAL_MS = 86400000
MAX_ID = 256
MOST_STREAMS = 10000
_LONGEST_TEXT = 1024


class Config:
    """`type` is WEBHOOK or PULL; `pattern` a pattern's text, `streams` canonical paths, sorted; at least one is given.
    Of a webhook `url`, of the other `wake_stream`, a path. `lease_ttl_ms`; `min_interval_ms` (ours): so long at least
    from one wake to the next. `description` is the client's own."""

    __slots__ = (
        "id", "type", "pattern", "segments", "streams", "url", "wake_stream", "lease_ttl_ms", "min_interval_ms",
        "description",
    )  # fmt: skip

    id: str
    type: str
    pattern: "str | None"
    segments: "tuple[int | str, ...] | None"
    streams: "tuple[str, ...]"
    url: "str | None"
    wake_stream: "str | None"
    lease_ttl_ms: int
    min_interval_ms: int
    description: "str | None"

    def __init__(self, id: str, given: "dict[str, object]") -> None:
        """Of the fields of a create's body, in the protocol's order of checks; what is unknown is ignored. Raises
        ProtocolError 400. Whether a webhook may be where it is, is `check_url`'s: a subscription that exists is
        compared before."""
        self.id = id
        self.url = self.wake_stream = self.pattern = self.segments = None
        type = given.get("type")
        if not isinstance(type, str) or type not in TYPES:
            raise bad_request("type must be webhook or pull-wake")
        self.type = type
        self.streams = paths(given["streams"], "streams") if isinstance(given.get("streams"), list) else ()
        pattern = given.get("pattern")
        if isinstance(pattern, str) and pattern.strip("/"):
            self.pattern = pattern.strip("/")
            self.segments = patterns.parse(self.pattern)
        if self.pattern is None and not self.streams:
            raise bad_request("give a pattern, or streams as a list of paths")
        self.lease_ttl_ms = _milliseconds(given, "lease_ttl_ms", LEASE_MS, SHORTEST_LEASE_MS, LONGEST_LEASE_MS)
        self.min_interval_ms = _milliseconds(given, "min_interval_ms", 0, 0, LONGEST_INTERVAL_MS)
        if type == WEBHOOK:
            webhook = given.get("webhook")
            url = webhook.get("url") if isinstance(webhook, dict) else None
            if not isinstance(url, str) or not url:
                raise bad_request("a webhook subscription needs webhook.url")
            self.url = url
        else:
            wake = given.get("wake_stream")
            if not isinstance(wake, str) or not wake.strip("/"):
                raise bad_request("a pull-wake subscription needs wake_stream, the path of a stream")
            self.wake_stream = path(wake, "wake_stream")
            if self.wake_stream in self.streams:
                raise bad_request("a subscription can't follow the stream that its own wakes go to")
        description = given.get("description")
        self.description = description if isinstance(description, str) else None
        if self.description is not None and len(self.description) > _LONGEST_TEXT:
            raise bad_request("a description has at most %d characters" % _LONGEST_TEXT)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Config):
            return False
        for name in _COMPARED:
            if getattr(self, name) != getattr(other, name):
                return False
        return True

    __hash__ = None  # type: ignore[assignment]

    def check_url(self, allowed: "Callable[[str, str, int], bool] | None" = None) -> None:
        """Raise ProtocolError 400 when the webhook may not be there (see `urls.check`)."""
        if self.url is not None:
            urls.check(self.url, allowed)

    def matches(self, path: str) -> bool:
        """Whether a stream's path fits the pattern. The stream of its own wakes never does: it would wake for ever."""
        if self.segments is None or path == self.wake_stream:
            return False
        return patterns.matches(self.segments, path)


_COMPARED = ("type", "pattern", "streams", "url", "wake_stream", "lease_ttl_ms", "min_interval_ms", "description")


def path(text: str, where: str) -> str:
    """The canonical path of a stream that a body names: relative to the root, slashes around it stripped,
    percent-encoded as in a target (`targets.url_path` is the way back), or in plain text where that has no `%`."""
    try:
        text = "".join([char if char <= "~" else targets.url_path(char, "") for char in text.strip("/")])
        return targets.stream_path(names.ROOT + text)
    except UnicodeError:  # half a character
        raise bad_request("%s: a path is text" % where) from None
    except ProtocolError as error:
        raise bad_request("%s: %s" % (where, error.message)) from None


def paths(given: object, where: str) -> "tuple[str, ...]":
    """Canonical paths of a list of them, sorted, each once."""
    if not isinstance(given, list) or len(given) > MOST_STREAMS:
        raise bad_request("%s must be a list of at most %d paths" % (where, MOST_STREAMS))
    found = set()
    for each in given:
        if not isinstance(each, str) or not each:
            raise bad_request("%s must be a list of paths, each a text that is not empty" % where)
        found.add(path(each, where))
    return tuple(sorted(found))


def identifier(text: str) -> str:
    """A subscription's id, out of the segment of a target that names it. Raises ProtocolError."""
    found = targets.percent_decode(text, "subscription's id")
    valid = 0 < len(found) <= MAX_ID
    for char in found:
        valid = valid and char >= " " and char != "\x7f"
    if not valid:
        raise bad_request("a subscription's id has 1 to %d characters, and no control characters" % MAX_ID)
    return found


def _milliseconds(given: "dict[str, object]", name: str, default: int, least: int, most: int) -> int:
    if name not in given:
        return default
    value = given[name]
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise bad_request("%s must be a whole number from %d to %d" % (name, least, most))
    return value
