"""The one place from which the gateway makes requests: checked addresses, no redirects, deadlines, bounded answers.

Needs the extra `outbound` (httpcore2). What is imported from here is loaded when it is asked for.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .client import Answer, Client, Unreachable
    from .rules import Rules

__all__ = ["Answer", "Client", "Rules", "Unreachable"]


def __getattr__(name: str) -> object:
    if name == "Rules":
        from . import rules

        return rules.Rules
    if name in __all__:
        from . import client

        return getattr(client, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
