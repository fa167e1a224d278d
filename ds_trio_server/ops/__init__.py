"""What operators and their machines are told: endpoints, metrics, log lines, systemd."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .endpoints import Endpoint, Endpoints

__all__ = ["Endpoint", "Endpoints", "metrics", "logs", "systemd"]


def __getattr__(name: str) -> object:
    # A late import: a log line or a word to systemd needs no server.
    if name in ("Endpoint", "Endpoints"):
        from . import endpoints

        return getattr(endpoints, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
