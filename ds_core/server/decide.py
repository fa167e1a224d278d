"""One door to every decision but a read's: which function decides which command.

A read is not here because its answer needs bytes, and time when it is live: see ``reads``.
"""

from . import create, requests, stream
from .messages import Codecs
from .responses import Response

_PURE = Codecs()


def decide(
    view: stream.View,
    command: "requests.Create | requests.Append | requests.Head | requests.Delete",
    codecs: Codecs = _PURE,
) -> "tuple[Response, stream.Created | stream.Appended | stream.Renewed | stream.Removed | None]":
    """The response to a command, and the change to make durable before it is sent.

    For a fork the view needs ``source`` and ``piece`` (see ``create.fork_position``). Raises ProtocolError.
    """
    if isinstance(command, requests.Append):
        return stream.append(view, command, codecs)
    if isinstance(command, requests.Create):
        return create.create(view, command, codecs)
    if isinstance(command, requests.Head):
        return stream.head(view, command)
    assert isinstance(command, requests.Delete)
    return stream.delete(view, command)
