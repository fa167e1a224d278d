"""A server in a thread of this process, on a clock that a test turns, and a client that blocks."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Callable
from typing import Any

import trio

from ds_core.wire import sse
from ds_trio_server import gateway, server
from ds_trio_server.config import Config
from ds_trio_server.http.listeners import listen
from ds_trio_server.store.base import Store

ROOT = "/v1/stream/"
WAYS = ("plain", "split", "odd", "fresh")


class Served:
    """Serves until `stop`, which is the orderly end; raises there what went wrong in the server."""

    def __init__(self, make: Callable[[], Store], config: Config) -> None:
        listeners = listen("127.0.0.1", 0)
        self.port = listeners[0].getsockname()[1]
        self._error: BaseException | None = None
        self._ready = threading.Event()

        def started(instance: server.Server) -> None:
            self._server = instance
            self._token = trio.lowlevel.current_trio_token()
            self._ready.set()

        def run() -> None:
            try:
                self._store = make()
                trio.run(gateway.serve, self._store, config, listeners, started)
            except BaseException as error:
                self._error = error
            finally:
                self._ready.set()

        self._thread = threading.Thread(target=run, daemon=True)
        self._thread.start()
        self._ready.wait(10)

    def sweep(self) -> None:
        """Remove all that has expired, now."""
        while trio.from_thread.run(self._store.sweep, trio_token=self._token):
            pass

    def stop(self) -> None:
        try:
            trio.from_thread.run_sync(self._server.stop, trio_token=self._token)
        except trio.RunFinishedError:
            pass
        self._thread.join(20)
        assert not self._thread.is_alive(), "the server does not stop"
        if self._error is not None:
            raise self._error


class Answer:
    """A whole response; `headers` by lower-case name."""

    def __init__(self, answer: http.client.HTTPResponse) -> None:
        self.status = answer.status
        self.headers = {name.lower(): value for name, value in answer.getheaders()}
        self.body = answer.read()

    def __repr__(self) -> str:
        return f"<{self.status} {self.headers} {self.body[:300]!r}>"


class Client:
    """A connection that is kept, and requests sent in several ways that must mean the same.

    `plain` may be answered without a task, `split` needs one, `odd` goes by way of h11, and
    `fresh` has a new connection.
    """

    def __init__(self, port: int) -> None:
        self._address = ("127.0.0.1", port)
        self._socket: socket.socket | None = None

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def send(self, way: str, method: str, target: str, body: bytes | None = None, **headers: Any) -> None:
        lines = [f"{method} {ROOT}{target} HTTP/1.1", "Host: t"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items() if value is not None]
        if body is not None:
            lines.append(f"Content-Length: {len(body)}")
        if way == "odd":
            lines += ["X-Twice: 1", "X-Twice: 2"]
        whole = "\r\n".join([*lines, "", ""]).encode("latin-1") + (body or b"")
        if way == "fresh":
            self.close()
        if self._socket is None:
            self._socket = socket.create_connection(self._address, 20)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        cut = len(whole) // 2 if way == "split" else len(whole)
        self._socket.sendall(whole[:cut])
        if cut < len(whole):
            self._socket.sendall(whole[cut:])

    def answer(self, method: str) -> Answer:
        assert self._socket is not None
        response = http.client.HTTPResponse(self._socket, method=method)
        response.begin()
        answer = Answer(response)
        if response.will_close:
            self.close()
        return answer

    def ask(self, way: str, method: str, target: str, body: bytes | None = None, **headers: Any) -> Answer:
        self.send(way, method, target, body, **headers)
        return self.answer(method)

    def vanish(self) -> None:
        """Leave without having read the answer."""
        self.close()

    def events(self, target: str, enough: Callable[[str, bytes], bool]) -> list[tuple[str, bytes]] | Answer:
        """Server-sent events until there are enough of them, or the refusal."""
        self.send("fresh", "GET", target)
        assert self._socket is not None
        response = http.client.HTTPResponse(self._socket, method="GET")
        response.begin()
        if response.status != 200:
            answer = Answer(response)
            if response.will_close:
                self.close()
            return answer
        parser = sse.Parser(1 << 20)
        found: list[tuple[str, bytes]] = []
        while not found or not enough(*found[-1]):
            event = parser.next()
            if event is sse.NEED_DATA:
                data = response.read1(65536)
                if not data:
                    break
                parser.feed(data)
            else:
                found.append((str(event[0]), bytes(event[1])))
        response.close()
        self.close()
        return found
