"""The errors that an answer's status stands for; see ds_core.client.errors."""

import sys

from ds_core.client.errors import BadResponse, Disconnected, StreamError, kind
from ds_core.wire.http1 import BadMessage, Truncated

# A deadline passed without progress.
Timeout = kind("Timeout", Disconnected, hint="; no progress in time")
# The server is not whom `ca` or `pin` trusts: another certificate or host, or the dates are wrong (is the clock set?).
# Nothing was sent, and nothing will be until somebody does something.
Untrusted = kind("Untrusted", Disconnected, retry=False, lasting=True, hint="; see ca=, pin= and the clock")
# 400
BadRequest = kind("BadRequest")
# 401
Unauthorized = kind("Unauthorized", hint="; see token=")
# 403
Forbidden = kind("Forbidden")
# 403 with a newer epoch, again and again: somebody else appends under this producer id.
Fenced = kind("Fenced", Forbidden, hint="; is this producer id used twice?")
# 404
NotFound = kind("NotFound", hint="; not created, or expired")
# 409: exists with another configuration, another content type, or Stream-Seq not greater.
Conflict = kind("Conflict")
# 409: the stream is closed for good.
Closed = kind("Closed", Conflict)
# 410
Gone = kind("Gone", hint="; deleted, created anew or trimmed: read from '-1' or 'now'")
# 413
TooLarge = kind("TooLarge", hint="; append less at once, or give Outbox a smaller segment")
# 408, 429 or 503
Busy = kind("Busy", retry=True)
# 500 and other 5xx
ServerError = kind("ServerError", retry=True)
# 507
NoSpace = kind("NoSpace", ServerError)
# The outbox holds `limit` bytes and `when_full` is "refuse".
OutboxFull = kind("OutboxFull", retry=True)

# mbedTLS: the certificate's verification failed, it is bad, there is no CA.
_UNTRUSTED = (-9984, -31232, -30336)
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

# EPIPE; ECONNRESET and ECONNABORTED, of Linux and lwIP and of BSD. On CPython asyncio's have no number, and those of
# TLS another.
_CLOSED: "tuple[object, ...]" = (32, 104, 103, 54, 53)
_CLOSED += ("BrokenPipeError", "ConnectionResetError", "ConnectionAbortedError", "SSLEOFError", "SSLZeroReturnError")


def error_for(status: int, headers: dict[str, str], body: bytes, url: str, fenced: bool = False) -> StreamError:
    """The error for an answer that is not a success, whose body begins with `body`."""
    found = _CLASSES.get(status, ServerError if status > 499 else StreamError)
    if status < 300:
        # It would have named the next offset and echoed the producer.
        text = "a success that is not a Durable Stream's: a login page, or another server?"
        return BadResponse(text, status, "", url)
    if status == 409 and headers.get("stream-closed", "").lower() == "true":
        found = Closed
    if fenced:
        found = Fenced
    code = text = ""
    try:
        text = body.decode()
    except UnicodeError:
        pass
    if not text:
        text = "no reason given"
    if text[:1] == "<":
        text = "a page of HTML: not from a stream's server?"
    if 300 < status < 400:
        text = "moved to %s; use that URL" % headers.get("location", "nowhere")
    if text[:1] == "{":
        try:
            import json

            error = json.loads(text)["error"]
            code = error["code"]
            text = error["message"]
        except (ValueError, KeyError, TypeError, RuntimeError):
            pass  # (RuntimeError: nested too deeply)
    return found(text, status, code, url, headers.get("retry-after"))


def failure(exc: Exception, url: str, sending: int = 0) -> Exception | None:
    """The error for what went wrong on a connection. None: while `sending` the peer has closed, so no more can be sent
    for good, but an answer may be there. (A server that refuses a request by its head need not read the rest of it:
    RFC 9110 section 10.1.1, RFC 9112 section 9.5.)
    """
    found = Disconnected
    text = str(exc)
    code = exc.args[0] if exc.args else 0  # CPython has no errno when that is all
    if sending > 0 and isinstance(exc, OSError) and (code in _CLOSED or exc.__class__.__name__ in _CLOSED):
        return None
    if isinstance(exc, BadMessage):
        if not isinstance(exc, Truncated):
            found = BadResponse
    elif isinstance(exc, UnicodeError) and sys.implementation.name == "micropython":
        found = BadResponse  # MicroPython has no text of other bytes
        text = "a header that is not UTF-8"
    elif isinstance(exc, UnicodeError):
        text = "the host's name was not found: " + text
    elif url[:5] == "https" and (isinstance(exc, ValueError) or code in _UNTRUSTED):
        # So says a certificate that is rejected on MicroPython, and (it is an OSError as well) on CPython.
        found = Untrusted
    elif not isinstance(exc, OSError):
        return exc
    elif code in (110, 116, 60):
        found = Timeout
    elif "addrinfo" in text or isinstance(code, int) and -1000 < code < 0:
        # What getaddrinfo raises has a number or text of its own on each port. (TLS has those further below zero.)
        text = "the host's name was not found: " + text
    elif text.isdigit():
        text = "OSError " + text  # MicroPython has no texts for the rarer ones
    return found(text, url=url)


def __getattr__(name: str) -> None:
    raise AttributeError("ds_micro has no " + name)  # where it was asked for
