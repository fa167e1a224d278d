"""What can go wrong, a class each: `status` (0: no answer), `code` and `message` (the server's, or ours), `url`.

`retry` says whether the same call may succeed later. Protocol section 11. The errors that a status stands for are in
`ds_core.client.refusals`, which a device loads when it meets the first; their names work here too.
"""


class StreamError(Exception):
    """The root of all errors here; itself only for answers that have no class of their own."""

    retry = False
    hint = ""

    def __init__(
        self, message: str, status: int = 0, code: str = "", url: str = "", retry_after: str | None = None
    ) -> None:
        where = url and " (%s)" % url
        super().__init__(("%s %s %s%s%s" % (status or "", code, message, self.hint, where)).strip())
        self.message = message
        self.status = status
        self.code = code
        self.url = url
        self.retry_after = retry_after


def kind(name: str, base: "type[StreamError]" = StreamError, **attributes: object) -> "type[StreamError]":
    """A new class of error. (A class statement costs a device three times as much.)"""
    return type(name, (base,), attributes)


# No answer: not resolved, not connected, or broken on the way. Whether the request took effect is unknown.
Disconnected = kind("Disconnected", retry=True)
# The peer's answer is not HTTP/1.1, not this protocol, or not of the content type it names.
BadResponse = kind("BadResponse", Disconnected, retry=False)


def __getattr__(name: str):  # type: ignore[no-untyped-def]
    from ds_core.client import refusals

    return getattr(refusals, name)
