"""The server: listeners, connections, upkeep, and an orderly end.

When it is told to stop it takes no new connections, ends live reads with a last control event, and lets what is in
flight finish. `gateway` opens and closes the store around it.
"""

import errno
import logging
import resource
import select
import socket
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import trio

from ds_core.server.errors import ProtocolError

from .access import Origins
from .addresses import client_of
from .app import App
from .config import Config
from .http.budgets import Backlog, BodyBudget
from .http.connection import Connection
from .http.idle import IdleConnections
from .http.transport import Transport
from .seldom import Seldom
from .store.base import StorageFailed, Store

if TYPE_CHECKING:
    from .access import Access
    from .http.tls import TLS

log = logging.getLogger("ds")

_ACCEPT_PAUSE = 0.1
_SWEEP_EVERY = 1.0
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_LINGER = 1.0
_MOST_LINGERING = 64
_MOST_PARTING = 1024
_FULL = ProtocolError(503, "OVERLOADED", "the server has as many connections as it may", (("Retry-After", "5"),))
_CROWD = ProtocolError(
    429, "TOO_MANY_CONNECTIONS", "your address has as many connections as it may", (("Retry-After", "5"),)
)


class Server:
    """One store behind one set of listeners: what a `Gateway` runs, and programs that open and close the
    store themselves.

    Arguments as of `gateway.serve`. `app` is the application, which can also be called without HTTP.
    """

    def __init__(
        self,
        store: Store,
        config: Config,
        access: "Access | None" = None,
        tls: "TLS | None" = None,
        origins: Origins | None = None,
    ) -> None:
        if access is not None:
            config = replace(config, private=True)
        self._store = store
        self._config = config
        self._tls = tls
        self.app = App(store, config, access, lambda: len(self._connections), origins)
        self._budget = BodyBudget(config.body_memory)
        self._backlog = Backlog()
        self._connections: dict[Connection, None] = {}
        # Connections by client, where there is a limit to them.
        self._clients: dict[str, int] = {}
        self._turning_away = self._parting = 0
        self._exhausted = Seldom(log)
        self._failures = Seldom(log)
        self._stopping = trio.Event()
        self._serving: trio.Nursery | None = None
        # TLS keeps its own buffers, and other systems have no epoll: there, all have their tasks.
        self._idle: IdleConnections | None = None
        if tls is None and hasattr(select, "epoll"):
            self._idle = IdleConnections(self.app, config, self._give_task, self._forget)

    def stop(self) -> None:
        """Begin the orderly end; may be called from the trio thread at any time."""
        self._stopping.set()

    async def wait_stopping(self) -> None:
        """Until the orderly end begins."""
        await self._stopping.wait()

    async def run(self, listeners: Sequence[socket.socket]) -> None:
        """Serve until `stop`.

        Closes the listeners. The store must be open and stays so.
        """
        try:
            async with trio.open_nursery() as upkeep:
                upkeep.start_soon(self._sweep_streams)
                upkeep.start_soon(self._sweep_connections)
                if self._idle is not None:
                    upkeep.start_soon(self._idle.run)
                async with trio.open_nursery() as serving:
                    self._serving = serving
                    async with trio.open_nursery() as accepting:
                        for listener in listeners:
                            accepting.start_soon(self._accept, listener, serving)
                        await self._stopping.wait()
                        accepting.cancel_scope.cancel()
                    for listener in listeners:
                        listener.close()  # the next client is refused, not left waiting
                    self._wind_down()
                    if self._idle is not None:
                        serving.start_soon(self._idle.drain)
                    serving.cancel_scope.deadline = trio.current_time() + self._config.grace
                upkeep.cancel_scope.cancel()
        finally:
            for listener in listeners:
                listener.close()

    def _wind_down(self) -> None:
        log.info("stopping: %d connections to finish", len(self._connections))
        self.app.stop()
        for connection in list(self._connections):
            connection.stop()

    async def _accept(self, listener: socket.socket, serving: trio.Nursery) -> None:
        while True:
            await trio.lowlevel.wait_readable(listener)
            # Several may have come; but those who are served get their turn in between.
            for _ in range(64):
                try:
                    sock, _ = listener.accept()
                except BlockingIOError:
                    break
                except OSError as error:
                    if error.errno in _EXHAUSTED:
                        self._exhausted.warning("can't accept connections: %s", error)
                        await trio.sleep(_ACCEPT_PAUSE)
                    break
                try:
                    transport = self._transport(sock)
                except OSError:
                    sock.close()  # gone before it was served
                    continue
                connection = Connection(transport, self.app, self._config, self._budget, self._backlog)
                refusal = self._admit(connection)
                if refusal is not None:
                    serving.start_soon(self._turn_away, connection, refusal)
                else:
                    self._take_over(connection)

    def _admit(self, connection: Connection) -> ProtocolError | None:
        """Count a connection in; or why there is no room for it."""
        if len(self._connections) >= self._config.max_connections:
            return _FULL
        if self._config.max_per_client:
            client = client_of(connection.transport.peer)
            count = self._clients.get(client, 0)
            if count >= self._config.max_per_client:
                return _CROWD
            self._clients[client] = count + 1
        self._connections[connection] = None
        return None

    def _transport(self, sock: socket.socket) -> Transport:
        self.app.stats.connections += 1
        if self._tls is not None:
            return self._tls.transport(sock, self._config.send_timeout, self.app.stats)
        return Transport(sock, self._config.send_timeout)

    async def _turn_away(self, connection: Connection, refusal: ProtocolError) -> None:
        # A crowd is not waited for: it may not hold the files that the limit is there to spare.
        linger = _LINGER if self._turning_away < _MOST_LINGERING else 0.0
        self._turning_away += 1
        try:
            await connection.refuse(refusal, linger)
        except Exception:
            _give_up(connection)
        finally:
            self._turning_away -= 1

    def _take_over(self, connection: Connection) -> None:
        """Let a connection wait for its next request."""
        if self._idle is None or not self._idle.add(connection):
            self._give_task(connection, b"")

    def _give_task(self, connection: Connection, unsent: bytes | memoryview) -> None:
        assert self._serving is not None
        self._serving.start_soon(self._serve, connection, unsent)

    def _forget(self, connection: Connection) -> None:
        connection.ahead = b""
        if connection not in self._connections:
            return
        del self._connections[connection]
        if self._config.max_per_client:
            client = client_of(connection.transport.peer)
            self._clients[client] -= 1
            if not self._clients[client]:
                del self._clients[client]

    async def _serve(self, connection: Connection, unsent: bytes | memoryview) -> None:
        resting = False
        try:
            resting = await connection.run(unsent, may_rest=self._idle is not None)
            unsent = b""  # what lingers holds no answer
        except Exception:
            _give_up(connection)
        finally:
            if resting:
                self._take_over(connection)
            else:
                # It is answered, and takes nobody's place while its client reads the last of that.
                self._forget(connection)
                await self._part(connection)

    async def _part(self, connection: Connection) -> None:
        self._parting += 1
        try:
            await connection.close(linger=self._parting <= _MOST_PARTING)
        except Exception:
            _give_up(connection)
        finally:
            self._parting -= 1

    async def _sweep_connections(self) -> None:
        """Cut off who makes no progress, and let nobody sit in silence: one look a second, no timer per request."""
        while True:
            await trio.sleep(_SWEEP_EVERY)
            now = trio.current_time()
            rested = now + self._config.idle_timeout
            for connection in list(self._connections):
                if connection.transport.deadline <= now:
                    self._look_after(partial(connection.transport.expire, rested))
            self._look_after(self.app.fanout.break_silence)

    def _look_after(self, step: Callable[[], object]) -> None:
        # Upkeep goes on, whatever is wrong with one of those that it is for.
        try:
            step()
        except Exception as error:
            self._upkeep_failed(error)

    def _upkeep_failed(self, error: Exception) -> None:
        self._store.upkeep.failures += 1
        self._failures.warning("a fault of ours in upkeep, which goes on: %r", error, exc_info=error)

    async def _sweep_streams(self) -> None:
        """Let the store look after itself, whatever comes of it: what can't be done now is tried again."""
        verified = False
        with suppress(StorageFailed):  # whoever waits for that stops the server
            while True:
                if not verified:
                    verified = await self._done(self._store.verify)
                await trio.sleep(_SWEEP_EVERY)
                await self._done(self._store.sweep)

    async def _done(self, step: Callable[[], Awaitable[object]]) -> bool:
        try:
            await step()
            return True
        except StorageFailed:
            raise
        except ProtocolError as error:
            log.debug("upkeep has to wait: %s", error)  # a full disk, say
        except Exception as error:
            self._upkeep_failed(error)
        return False


def _give_up(connection: Connection) -> None:
    """What went wrong in a connection that nothing else took care of ends that connection, and no other."""
    log.exception("a connection failed inside the server")
    connection.transport.close_nowait()


def raise_file_limit() -> int:
    """Have the system allow this process as many open files, and so connections, as it may have; how many that is."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for wanted in (hard, 65536, 10240):
        if wanted == resource.RLIM_INFINITY or wanted > hard > 0:
            continue
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            return wanted
        except (ValueError, OSError):
            continue
    return soft
