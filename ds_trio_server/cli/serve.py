"""`ds serve`: a server as a process, from its options to its exit status."""

import argparse
import logging
import os
import socket
import sys
from typing import TYPE_CHECKING

import trio

from .. import gateway, server
from ..http import listeners
from ..ops import logs, systemd
from ..store import engines
from ..store.base import StorageFailed, Store
from . import serve_options, stdio
from .parser import Usage
from .security import Security
from .serve_options import Settings
from .signals import SIGNALS, Obedience, held_back, let_through

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
    store, place = _store(settings)
    security = Security(settings)
    # From the moment that a client can connect a signal ends the server in order: it waits until it is listened to.
    with held_back():
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
        return _serve(settings, store, place, security, sockets)


def _serve(settings: Settings, store: Store, place: str, security: Security, sockets: list[socket.socket]) -> int:
    """Serve with what is there by now; the exit status."""
    obedience = Obedience(security.reload)

    def started(running: server.Server) -> None:
        obedience.serving(running.stop)
        log.info("streams are %s", place)
        for listener in sockets:
            line = f"listening on {listeners.url_of(listener, security.scheme)}"
            try:
                print(line, flush=True)
            except OSError as error:
                # Somebody's full disk or closed pipe is no reason not to serve.
                stdio.discard_output()
                log.warning("%s (standard output can't be written: %s)", line, error.strerror)
        systemd.ready()

    async def serve() -> None:
        # Before the first word to the outside, so that whoever acts on it finds us listening.
        with trio.open_signal_receiver(*SIGNALS) as signals:
            let_through()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(obedience.run, signals)
                nursery.start_soon(systemd.watchdog)
                await gateway.serve(store, settings, sockets, started, security.access, security.tls, security.origins)
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


def _store(settings: Settings) -> tuple[Store, str]:
    """The store, and where that is."""
    name, where = engines.chosen("memory:" if settings.memory else settings.data or "data")
    engine = engines.ENGINES[name]
    if settings.retain and not engine.trims:
        raise Usage(
            f"--retain trims what is kept on disk, and --{name} keeps nothing there: give --data DIR instead "
            f"of --{name}, or leave --retain out and give streams a Stream-TTL"
        )
    try:
        store = engine.make(engines.Terms(where, settings.retain, settings.min_free))
    except ValueError as error:
        raise Usage(str(error)) from None
    return store, engine.place.format(where=where)


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    found: list[BaseException] = []
    for error in group.exceptions:
        found += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found
