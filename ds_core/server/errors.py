"""The one exception for what a client did wrong or cannot have now (protocol section 11)."""


class ProtocolError(Exception):
    """A refusal: HTTP status, machine-readable code, a message for people, extra headers.

    The message says what was wrong and what would be right. Nothing was stored.
    """

    def __init__(
        self, status: int, code: str, message: str, headers: "tuple[tuple[str, str], ...]" = ()
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.headers = headers


def bad_request(message: str, code: str = "INVALID_REQUEST") -> ProtocolError:
    """400: the request itself is wrong, whatever the state of the stream."""
    return ProtocolError(400, code, message)
