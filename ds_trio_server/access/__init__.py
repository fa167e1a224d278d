"""Who may do what: tokens, certificates and links of an access file, and what is served without one."""

from typing import TYPE_CHECKING

from .identity import ANYBODY, Identity, without_access
from .origins import ANYWHERE, CERTIFIED, LOOPBACK, NETWORK, Origins

if TYPE_CHECKING:
    from .file import Access, AccessFileError
    from .policy import Policy

__all__ = [
    "Access", "AccessFileError", "Policy", "file",
    "Identity", "ANYBODY", "without_access",
    "Origins", "ANYWHERE", "LOOPBACK", "NETWORK", "CERTIFIED", "origins",
]


def __getattr__(name: str) -> object:
    # Late imports: a server without an access file loads none of it.
    if name in ("Access", "AccessFileError"):
        from . import file

        return getattr(file, name)
    if name == "Policy":
        from . import policy

        return getattr(policy, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
