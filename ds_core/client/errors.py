"""What can go wrong, a class each: `status` (0: no answer), `code` and `message` (the server's, or ours), `url`.

`retry` says whether the same call may succeed later. Protocol section 11.
"""


class StreamError(Exception):
    """The root of all errors here; itself only for answers that have no class of their own."""

    retry = False
    hint = ""

    def __init__(self, message: str, status: int = 0, code: str = "", url: str = "", retry_after=None):
        self.message = message
        self.status = status
        self.code = code
        self.url = url
        self.retry_after = retry_after
        if self.hint:
            message += "; " + self.hint
        if status:
            message = "%d %s: %s" % (status, code, message)
        super().__init__(message + " (" + url + ")" if url else message)


class Disconnected(StreamError):
    """No answer: not resolved, not connected, or broken on the way. Whether the request took effect is unknown."""

    retry = True


class Timeout(Disconnected):
    """A deadline passed without progress."""


class BadResponse(Disconnected):
    """The peer's answer is not HTTP/1.1, not this protocol, or not of the content type it names."""

    retry = False


class BadRequest(StreamError):
    """400"""


class Unauthorized(StreamError):
    """401"""


class Forbidden(StreamError):
    """403"""


class Fenced(Forbidden):
    """403 with a newer epoch, again and again: somebody else appends under this producer id."""

    hint = "give each device its own producer id"


class NotFound(StreamError):
    """404"""

    hint = "create() the stream first; it may have expired"


class Conflict(StreamError):
    """409: exists with another configuration, another content type, or Stream-Seq not greater."""


class Closed(Conflict):
    """409: the stream is closed for good."""


class Gone(StreamError):
    """410"""

    hint = "deleted, created anew, or trimmed before this offset: start again with offset '-1' or 'now'"


class TooLarge(StreamError):
    """413"""


class Busy(StreamError):
    """429 or 503"""

    retry = True


class ServerError(StreamError):
    """500 and other 5xx"""

    retry = True


class NoSpace(ServerError):
    """507"""


class OutboxFull(StreamError):
    """The outbox holds `limit` bytes and `when_full` is "refuse"."""

    retry = True


_CLASSES = {
    400: BadRequest,
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    408: Busy,
    409: Conflict,
    410: Gone,
    413: TooLarge,
    429: Busy,
    503: Busy,
    507: NoSpace,
}


def error_for(status: int, headers: dict, text: str, url: str) -> StreamError:
    """The error for an answer that is not a success; `text` is the beginning of its body."""
    kind = _CLASSES.get(status, ServerError if status >= 500 else StreamError)
    if status == 409 and headers.get("stream-closed", "").lower() == "true":
        kind = Closed
    code = kind.__name__
    if text[:1] == "{":
        import json

        try:
            error = json.loads(text)["error"]
            code = error["code"]
            text = error["message"]
        except (ValueError, KeyError, TypeError):
            pass
    return kind(text or kind.__name__, status, code, url, headers.get("retry-after"))
