"""`ds serve`: a server as a process, from its options to its exit status."""

import argparse
import logging
import os
import socket
import sys
from typing import TYPE_CHECKING

import trio

from .. import server
from ..http import listeners
from ..ops import logs, systemd
from ..store import retention
from ..store.base import StorageFailed, Store
from . import serve_options
from .parser import Usage
from .security import Security
from .serve_options import Settings
from .signals import SIGNALS, Obedience

if TYPE_CHECKING:
    from .parser import Commands

log = logging.getLogger("ds")


def add_commands(commands: "Commands") -> None:
    """Add `serve`."""
    serving = commands.add_parser(
        "serve",
        help="run a server",
        description="Serve durable streams over HTTP/1.1.",
        epilog=serve_options.EPILOG,
    )
    serve_options.add_options(serving)
    serving.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Serve until a signal ends it, or its disk does. Raises Usage."""
    settings = serve_options.settings(options, os.environ)
    logs.configure(settings.log_level, settings.log_format)
    server.raise_file_limit()
    store = _store(settings)
    security = Security(settings)
    try:
        sockets = _listen(settings)
    except OSError as error:
        print(f"ds serve: {error.strerror}", file=sys.stderr)
        return 1
    try:
        security.check(sockets)
    except Usage:
        listeners.close(sockets)
        raise
    obedience = Obedience(security.reload)

    def started(running: server.Server) -> None:
        obedience.serving(running.stop)
        log.info("streams are %s", "in memory only" if settings.memory else f"in {settings.data or 'data'}")
        for listener in sockets:
            print(f"listening on {listeners.url_of(listener, security.scheme)}", flush=True)
        systemd.ready()

    async def serve() -> None:
        # Before the first word to the outside, so that whoever acts on it finds us listening.
        with trio.open_signal_receiver(*SIGNALS) as signals:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(obedience.run, signals)
                nursery.start_soon(systemd.watchdog)
                await server.serve(store, settings, sockets, started, security.access, security.tls, security.origins)
                nursery.cancel_scope.cancel()

    problems: list[BaseException] = []
    try:
        trio.run(serve)
    except* (StorageFailed, OSError) as failures:
        problems = _leaves(failures)
    for problem in problems:
        print(f"ds serve: {problem}", file=sys.stderr)
    if not problems:
        log.info("stopped")
    return 1 if problems else 0


def _listen(settings: Settings) -> list[socket.socket]:
    """Where the operator says, or else where systemd or the default does. Raises OSError."""
    found = listeners.passed(os.environ)
    addresses = settings.listen
    if not found and not addresses:
        addresses = (listeners.Address(settings.host, settings.port),)
    try:
        return found + listeners.listen_all(addresses)
    except OSError:
        listeners.close(found)
        raise


def _store(settings: Settings) -> Store:
    # Late imports: a server has one of them.
    if settings.memory:
        if settings.retain:
            raise Usage(
                "--retain trims what is kept on disk, and --memory keeps nothing there: give --data DIR instead "
                "of --memory, or leave --retain out and give streams a Stream-TTL"
            )
        from ..store.memory import MemoryStore

        return MemoryStore()
    from ..store.sqlite.engine import SQLiteStore

    rules = retention.Retention(settings.retain)
    return SQLiteStore(settings.data or "data", retain=rules, min_free=settings.min_free)


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    found: list[BaseException] = []
    for error in group.exceptions:
        found += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found
