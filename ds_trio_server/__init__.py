"""The gateway: streams over HTTP/1.1 on trio, durable in SQLite.

A `Gateway` runs inside any trio program; the command `ds serve` is a shell around one:

    from ds_trio_server import Gateway, SQLiteStore

    async with Gateway(SQLiteStore("data"), port=4437) as gateway:
        await gateway.create("sensors/1", "application/json")

What is imported from here is loaded when it is asked for, with what it needs and no more.
"""

from typing import TYPE_CHECKING

from ds_core import __version__

if TYPE_CHECKING:
    from .access.file import Access
    from .access.identity import Identity
    from .access.origins import Origins
    from .app import App
    from .config import Config, Unusable
    from .gateway import Gateway, Result, serve
    from .http.listeners import listen, listen_all, url_of
    from .http.tls import TLS
    from .server import Server, raise_file_limit
    from .store.base import StorageFailed, Store, StoreClosed
    from .store.memory import MemoryStore
    from .store.retention import Retention
    from .store.sqlite.engine import SQLiteStore
    from .streams import Streams

__all__ = [
    "Gateway", "Result", "serve", "Server", "App", "Streams", "Config", "listen", "listen_all", "url_of",
    "raise_file_limit",
    "Store", "SQLiteStore", "MemoryStore", "Retention", "StorageFailed", "StoreClosed",
    "Access", "Identity", "Origins", "TLS", "Unusable",
    "__version__",
]


def __getattr__(name: str) -> object:
    # Late imports, for the reason above. Each module is named where an import can be seen.
    if name in ("Gateway", "Result", "serve"):
        from . import gateway

        return getattr(gateway, name)
    if name in ("Server", "raise_file_limit"):
        from . import server

        return getattr(server, name)
    if name == "App":
        from . import app

        return app.App
    if name == "Streams":
        from . import streams

        return streams.Streams
    if name in ("Config", "Unusable"):
        from . import config

        return getattr(config, name)
    if name in ("listen", "listen_all", "url_of"):
        from .http import listeners

        return getattr(listeners, name)
    if name == "SQLiteStore":
        from .store.sqlite import engine

        return getattr(engine, name)
    if name == "MemoryStore":
        from .store import memory

        return getattr(memory, name)
    if name == "Retention":
        from .store import retention

        return getattr(retention, name)
    if name in ("Store", "StorageFailed", "StoreClosed"):
        from .store import base

        return getattr(base, name)
    if name == "Access":
        from .access import file

        return getattr(file, name)
    if name == "Identity":
        from .access import identity

        return getattr(identity, name)
    if name == "Origins":
        from .access import origins

        return getattr(origins, name)
    if name == "TLS":
        from .http import tls

        return getattr(tls, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
