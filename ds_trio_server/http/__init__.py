"""Connections, requests, answers: bytes from sockets become exchanges, answers become bytes.

What is imported from here is loaded when it is asked for: a server without TLS loads none of it.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .budgets import Backlog, BodyBudget
    from .connection import Connection
    from .exchange import Application, Exchange, Suspended
    from .idle import IdleConnections
    from .tls import TLS, TLSFileError
    from .transport import Disconnected, Transport

__all__ = [
    "Application", "Exchange", "Suspended", "Disconnected",
    "Connection", "IdleConnections", "Transport", "BodyBudget", "Backlog",
    "TLS", "TLSFileError", "listeners",
]


def __getattr__(name: str) -> object:
    if name in ("Application", "Exchange", "Suspended"):
        from . import exchange

        return getattr(exchange, name)
    if name == "Connection":
        from . import connection

        return connection.Connection
    if name == "IdleConnections":
        from . import idle

        return idle.IdleConnections
    if name in ("BodyBudget", "Backlog"):
        from . import budgets

        return getattr(budgets, name)
    if name in ("Disconnected", "Transport"):
        from . import transport

        return getattr(transport, name)
    if name in ("TLS", "TLSFileError"):
        from . import tls

        return getattr(tls, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
