"""One door to every decision but a read's: what it must be shown, and which function makes it (sections 3 to 8).

A shell makes `needs(command)`, loads a `View` by it from wherever it keeps its streams, and asks `decide`: a
decision sees its view and nothing else. A read is not here because its answer needs bytes, and time when it is live:
see `reads`.
"""

from . import create, requests, stream
from .messages import Parsers
from .responses import Response

_PURE = Parsers()


class Needs:
    """What a decision's view must hold: the stream at `path`; the state that the producer with the id `producer`
    has there; for a fork the stream at the path `source`. None where nothing is asked for.

    `piece` is the append that a fork's offset falls into, as (position, stored bytes): the shell has read it before
    (see `create.fork_position`), because reading takes time.
    """

    __slots__ = ("path", "piece", "producer", "source")

    def __init__(
        self,
        path: str,
        producer: "str | None" = None,
        source: "str | None" = None,
        piece: "tuple[int, bytes] | None" = None,
    ) -> None:
        self.path = path
        self.producer = producer
        self.source = source
        self.piece = piece


def needs(
    command: "requests.Create | requests.Append | requests.Head | requests.Delete",
    piece: "tuple[int, bytes] | None" = None,
) -> Needs:
    """What a command's decision needs to see; `piece` as in `Needs`, for a fork."""
    if isinstance(command, requests.Append):
        return Needs(command.path, None if command.producer is None else command.producer[0])
    if isinstance(command, requests.Create):
        return Needs(command.path, None, command.source, piece)
    return Needs(command.path)


def decide(
    view: stream.View,
    command: "requests.Create | requests.Append | requests.Head | requests.Delete",
    parsers: Parsers = _PURE,
) -> "tuple[Response, stream.Created | stream.Appended | stream.Renewed | stream.Removed | None]":
    """The response to a command, and the change to make durable before it is sent.

    `view` holds what `needs(command)` names. Raises ProtocolError.
    """
    if isinstance(command, requests.Append):
        return stream.append(view, command, parsers)
    if isinstance(command, requests.Create):
        return create.create(view, command, parsers)
    if isinstance(command, requests.Head):
        return stream.head(view, command)
    assert isinstance(command, requests.Delete)
    return stream.delete(view, command)
