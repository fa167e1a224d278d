"""The gateway: streams over HTTP/1.1 on trio, durable in SQLite.

`serve` runs a server inside any trio program; the command `ds serve` is a thin shell around it:

    from ds_trio_server import Config, SQLiteStore, listen, serve

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve, SQLiteStore("data"), Config(), listen("127.0.0.1", 4437))

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
    from .http.listeners import listen, listen_all, url_of
    from .http.tls import TLS
    from .server import Server, raise_file_limit, serve
    from .store.base import StorageFailed, Store
    from .store.memory import MemoryStore
    from .store.retention import Retention
    from .store.sqlite.engine import SQLiteStore
    from .streams import Streams

__all__ = [
    "serve", "Server", "App", "Streams", "Config", "listen", "listen_all", "url_of", "raise_file_limit",
    "Store", "SQLiteStore", "MemoryStore", "Retention", "StorageFailed",
    "Access", "Identity", "Origins", "TLS", "Unusable",
    "__version__",
]


def __getattr__(name: str) -> object:
    # Late imports, for the reason above. Each module is named where an import can be seen.
    if name in ("serve", "Server", "raise_file_limit"):
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
    if name in ("Store", "StorageFailed"):
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
