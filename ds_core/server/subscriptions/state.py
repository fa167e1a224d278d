"""What a subscription is: its configuration, its state and links, and a step to the next (protocol section 9)."""

from .config import Config

IDLE = "idle"
SENDING = "sending"
BACKOFF = "backoff"
WOKEN = "woken"
LEASED = "leased"

NONE = "-1"
"""The cursor of a stream of which nothing was processed."""
ABSENT = "0000000000000000_0000000000000000"
"""The cursor of a stream that was followed before it was there."""


class Link:
    """A stream that is followed: by name (`explicit`), because it matches (`glob`), or both. `acked` is the offset up
    to which it is processed; `tail` where it ends, None while it isn't there."""

    __slots__ = ("explicit", "glob", "acked", "tail")

    def __init__(self, explicit: bool, glob: bool, acked: str, tail: "str | None") -> None:
        self.explicit = explicit
        self.glob = glob
        self.acked = acked
        self.tail = tail

    @property
    def pending(self) -> bool:
        """Whether there is something beyond the cursor. Offsets compare byte by byte, `-1` before all others."""
        return self.tail is not None and self.tail > self.acked

    def at(self, acked: str) -> "Link":
        """The same with its cursor there, or where it is if that is further on."""
        return Link(self.explicit, self.glob, max(acked, self.acked), self.tail)


FIELDS = (
    "phase", "generation", "wake_id", "holder", "due", "failures", "error", "failing_since", "woken_at", "announced",
)  # fmt: skip


class State:
    """What changes of a subscription, but for its links; itself it never does (`but` makes the next one).

    `due` is on the steady clock. `failures` in a row, the last with `error`, since `failing_since` (UNIX seconds).
    `woken_at`, on the steady clock, is when the last wake was. `announced`: its event is on the wake stream.
    """

    __slots__ = FIELDS

    phase: str
    generation: int
    wake_id: "str | None"
    holder: "str | None"
    due: "float | None"
    failures: int
    error: "str | None"
    failing_since: "float | None"
    woken_at: "float | None"
    announced: bool

    def __init__(self) -> None:
        self.phase = IDLE
        self.generation = self.failures = 0
        self.wake_id = self.holder = self.due = self.error = self.failing_since = self.woken_at = None
        self.announced = False

    def but(self, **changes: object) -> "State":
        """Another one, with these fields changed."""
        other = State()
        for name in FIELDS:
            setattr(other, name, changes[name] if name in changes else getattr(self, name))
        for name in changes:
            assert name in FIELDS, name
        return other


class Subscription:
    """`created` is in UNIX seconds. `links` by path."""

    __slots__ = ("config", "created", "state", "links")

    def __init__(self, config: Config, created: float) -> None:
        self.config = config
        self.created = created
        self.state = State()
        self.links: "dict[str, Link]" = {}

    @property
    def id(self) -> str:
        """What its client calls it."""
        return self.config.id

    def pending(self, links: "dict[str, Link | None] | None" = None) -> "str | None":
        """The path of a stream with work, if there is one, with these links changed."""
        changed = links or {}
        for path in changed:
            link = changed[path]
            if link is not None and link.pending:
                return path
        for path in self.links:
            if path not in changed and self.links[path].pending:
                return path
        return None

    def apply(self, step: "Step") -> None:
        """Take in a step that is durable."""
        self.state = step.state
        for path in step.links:
            link = step.links[path]
            old = self.links.pop(path, None)
            if link is not None:
                if old is not None:
                    link.tail = old.tail  # which may have moved since
                self.links[path] = link


class Step:
    """A change to make durable: the next `state`, and `links` by path (None: gone). `announce`: the path whose work an
    event on the wake stream tells of, in the same transaction. `deliver`: the webhook is to be asked, after it."""

    __slots__ = ("state", "links", "announce", "deliver")

    def __init__(
        self,
        state: State,
        links: "dict[str, Link | None] | None" = None,
        announce: "str | None" = None,
        deliver: bool = False,
    ) -> None:
        self.state = state
        self.links: "dict[str, Link | None]" = links or {}
        self.announce = announce
        self.deliver = deliver


class Chance:
    """What a step may need of luck: `wake_id`, unique; `share`, from 0 to 1."""

    __slots__ = ("wake_id", "share")

    def __init__(self, wake_id: str, share: float) -> None:
        self.wake_id = wake_id
        self.share = share
