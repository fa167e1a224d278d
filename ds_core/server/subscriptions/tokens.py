"""The tokens of a lease: whose they are and of which generation, signed (protocol section 9).

They end with their lease, by its fence, and so never under a worker that keeps it alive. They are secrets: in the
Authorization header only, never in a URL or a log. `sign` is a keyed hash of 16 bytes or more, such as HMAC-SHA256
under a secret of the server's own.
"""

import binascii
import json

from ..errors import ProtocolError

TYPE_CHECKING = False  # type checkers take this name for true; MicroPython has no collections.abc
if TYPE_CHECKING:
    from collections.abc import Callable

_LONGEST = 2048


def mint(id: str, generation: int, sign: "Callable[[bytes], bytes]") -> str:
    """A token for a subscription's lease."""
    body = _base64(json.dumps([id, generation]).encode())
    return body + "." + _base64(sign(body.encode()))


def generation(authorization: "str | None", id: str, sign: "Callable[[bytes], bytes]") -> int:
    """The generation that the token in an Authorization header is of. 401 unless it is this subscription's."""
    check_present(authorization)
    assert authorization is not None
    text = authorization.partition(" ")[2].strip()
    body, _, signature = text.partition(".")
    if len(text) <= _LONGEST and _equal(signature, _base64(sign(body.encode()))):
        found = json.loads(binascii.a2b_base64(_padded(body)))
        if found[0] == id:
            return int(found[1])
    raise _invalid("the token is not one of this subscription's")


def check_present(authorization: "str | None") -> None:
    """401 unless there is a bearer token: this is asked before anything else, for unknown subscriptions too."""
    if authorization is None or authorization[:7].lower() != "bearer " or not authorization[7:].strip():
        raise _invalid("give the token of the wake: Authorization: Bearer ...")


def _invalid(message: str) -> ProtocolError:
    return ProtocolError(401, "TOKEN_INVALID", message, (("WWW-Authenticate", "Bearer"),))


def _base64(data: bytes) -> str:
    """Unpadded base64url."""
    return binascii.b2a_base64(data).decode().strip().rstrip("=").replace("+", "-").replace("/", "_")


def _padded(text: str) -> str:
    return text.replace("-", "+").replace("_", "/") + "=" * (-len(text) % 4)


def _equal(one: str, other: str) -> bool:
    """Whether they are the same, in a time that does not tell how much of them is."""
    if len(one) != len(other):
        return False
    difference = 0
    for index in range(len(one)):
        difference |= ord(one[index]) ^ ord(other[index])
    return difference == 0
