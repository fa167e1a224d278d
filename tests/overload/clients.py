"""Clients in one epoll loop: those who behave, and all kinds of those who don't.

`Loop` runs peers; `Worker` is a client as it should be and measures how long it waits; the others
hold a connection for as long as the server lets them, and come back when it doesn't.
"""

from __future__ import annotations

import heapq
import random
import select
import socket
import time
from collections import Counter
from collections.abc import Callable
from itertools import count

ROOT = "/v1/stream/"


class Loop:
    """Runs peers against one server; `seen` counts the statuses that each kind of peer got."""

    def __init__(self, port: int, seed: int = 1) -> None:
        self.address = ("127.0.0.1", port)
        self.random = random.Random(seed)
        self.seen: Counter[tuple[str, int]] = Counter()
        self.peers: dict[int, Peer] = {}
        self._epoll = select.epoll()
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = count()

    def at(self, when: float, call: Callable[[], None]) -> None:
        heapq.heappush(self._timers, (when, next(self._numbers), call))

    def watch(self, peer: Peer, events: int) -> None:
        number = peer.sock.fileno()
        if number in self.peers:
            self._epoll.modify(number, events)
        else:
            self.peers[number] = peer
            self._epoll.register(number, events)

    def forget(self, peer: Peer) -> None:
        if self.peers.pop(peer.sock.fileno(), None) is not None:
            self._epoll.unregister(peer.sock.fileno())
        peer.sock.close()

    def run(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (now := time.monotonic()) < end:
            wait = min(end, self._timers[0][0] if self._timers else end) - now
            for number, events in self._epoll.poll(max(0.0, wait), 256):
                peer = self.peers.get(number)
                if peer is not None:
                    peer.ready(events)
            now = time.monotonic()
            while self._timers and self._timers[0][0] <= now:
                heapq.heappop(self._timers)[2]()

    def close(self) -> None:
        for peer in list(self.peers.values()):
            peer.stopped = True
            self.forget(peer)
        self._epoll.close()


class Peer:
    """One connection at a time. Subclasses say what they send (`begin`) and do with what comes."""

    kind = "peer"
    receive_buffer = 0

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.stopped = False
        self.unsent = b""
        self.connect()

    def connect(self) -> None:
        if self.stopped:
            return
        self.sock = socket.socket()
        if self.receive_buffer:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.receive_buffer)
        try:
            self.sock.connect(self.loop.address)  # on loopback the listener's queue answers
        except OSError:
            self.sock.close()
            self.loop.at(time.monotonic() + 0.2, self.connect)
            return
        self.sock.setblocking(False)
        self.loop.watch(self, select.EPOLLIN)
        self.begin()

    def begin(self) -> None:
        """The connection stands."""

    def send(self, data: bytes) -> None:
        self.unsent += data
        try:
            sent = self.sock.send(self.unsent)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.lost()
            return
        self.unsent = self.unsent[sent:]
        self.loop.watch(self, select.EPOLLIN | (select.EPOLLOUT if self.unsent else 0))

    def ready(self, events: int) -> None:
        if events & select.EPOLLOUT and self.unsent:
            self.send(b"")
        if events & ~select.EPOLLOUT and self.sock.fileno() in self.loop.peers:
            self.take()

    def take(self) -> None:
        try:
            data = self.sock.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self.received(data)
        else:
            self.lost()

    def received(self, data: bytes) -> None:
        """Count the answers; that is all that those who don't behave want to know."""
        if data.startswith(b"HTTP/1.1 "):
            self.loop.seen[self.kind, int(data[9:12])] += 1

    def lost(self) -> None:
        """Come again in a moment."""
        self.loop.forget(self)
        self.loop.at(time.monotonic() + 0.5 * self.loop.random.random(), self.connect)

    def tick(self, seconds: float, call: Callable[[], None]) -> None:
        """Call once, unless this connection has ended by then."""
        sock = self.sock

        def still() -> None:
            if self.sock is sock and sock.fileno() in self.loop.peers:
                call()

        self.loop.at(time.monotonic() + seconds, still)


class Worker(Peer):
    """Appends exactly once and reads, with pauses; `waits` are seconds from request to whole answer."""

    kind = "worker"

    def __init__(self, loop: Loop, name: str, stream: str, pause: float) -> None:
        self.name = name
        self.stream = stream
        self.pause = pause
        self.waits: list[float] = []
        self.acknowledged = 0
        self.failures: list[str] = []
        self.tail = "now"
        self.buffer = b""
        self.asked = 0.0
        self.waiting = self.reading = False
        super().__init__(loop)

    def begin(self) -> None:
        self.buffer = b""
        self.waiting = False
        self.tick(self.loop.random.random() * self.pause, self.ask)

    def ask(self) -> None:
        if self.stopped:
            return
        self.reading = self.loop.random.random() < 0.3
        if self.reading:
            head = f"GET {ROOT}{self.stream}?offset={self.tail} HTTP/1.1\r\nHost: localhost\r\n\r\n"
            body = b""
        else:
            body = b"r" * 100
            head = (
                f"POST {ROOT}{self.stream} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/octet-stream\r\n"
                f"Producer-Id: {self.name}\r\nProducer-Epoch: 0\r\nProducer-Seq: {self.acknowledged}\r\n"
                f"Content-Length: {len(body)}\r\n\r\n"
            )
        self.asked = time.monotonic()
        self.waiting = True
        self.send(head.encode() + body)

    def received(self, data: bytes) -> None:
        self.buffer += data
        head, found, body = self.buffer.partition(b"\r\n\r\n")
        if not found:
            return
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
        if len(body) < int(fields.get(b"content-length", b"0")):
            return
        self.waits.append(time.monotonic() - self.asked)
        self.waiting = False
        status = int(head[9:12])
        self.loop.seen[self.kind, status] += 1
        if status >= 300:
            self.failures.append(self.buffer[:300].decode("latin-1"))
        else:
            self.acknowledged += not self.reading
            self.tail = fields[b"stream-next-offset"].decode()
        self.buffer = b""
        self.tick(self.pause * (0.5 + self.loop.random.random()), self.ask)

    def lost(self) -> None:
        if not self.stopped:
            self.failures.append(f"the connection ended; got {self.buffer[:300]!r}")
        super().lost()


class SlowHead(Peer):
    """A byte of a head a second."""

    kind = "slow head"
    whole = b"GET " + ROOT.encode() + b"big HTTP/1.1\r\nHost: localhost\r\nX-Long: " + b"y" * 1000

    def begin(self) -> None:
        self.at = 0
        self.next()

    def next(self) -> None:
        self.send(self.whole[self.at : self.at + 1])
        self.at += 1
        self.tick(1.0, self.next)


class SlowBody(SlowHead):
    """A byte of a body a second, of one that is large enough to take up room."""

    kind = "slow body"
    start = (
        f"POST {ROOT}big HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/octet-stream\r\n"
        "Content-Length: 60000\r\n\r\n"
    ).encode()

    def begin(self) -> None:
        self.send(self.start + b"b" * 1000)
        self.tick(1.0, self.next)

    def next(self) -> None:
        self.send(b"b")
        self.tick(1.0, self.next)


class SlowReader(Peer):
    """Asks for a megabyte and takes a byte a second."""

    kind = "slow reader"
    receive_buffer = 1
    whole = f"GET {ROOT}big?offset=-1 HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()

    def begin(self) -> None:
        self.send(self.whole)
        self.loop.watch(self, 0)
        self.tick(1.0, self.next)

    def next(self) -> None:
        try:
            if not self.sock.recv(1):
                self.lost()
                return
        except BlockingIOError:
            pass
        except OSError:
            self.lost()
            return
        self.tick(1.0, self.next)


class Deaf(SlowReader):
    """Asks and takes nothing at all; of live events just as of a megabyte."""

    kind = "deaf reader"

    def begin(self) -> None:
        live = self.loop.random.random() < 0.5
        self.send(self.whole.replace(b"big?offset=-1", b"s0?offset=now&live=sse") if live else self.whole)
        self.loop.watch(self, 0)

    def ready(self, events: int) -> None:
        self.lost()  # nothing was asked for but errors


class Creator(Peer):
    """Makes streams as fast as it can."""

    kind = "creator"
    made = count()

    def begin(self) -> None:
        head = f"PUT {ROOT}flood/{next(self.made)} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"
        self.send(head.encode())

    def received(self, data: bytes) -> None:
        super().received(data)
        self.begin()


class Giant(Peer):
    """Bodies at the limit, one after the other, with a pause in between."""

    kind = "large body"

    def __init__(self, loop: Loop, size: int, pause: float) -> None:
        self.pause = pause
        head = f"POST {ROOT}giant HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/octet-stream\r\n"
        self.whole = (head + f"Content-Length: {size}\r\n\r\n").encode() + bytes(size)
        super().__init__(loop)

    def begin(self) -> None:
        self.unsent = b""
        self.at = 0
        self.push()

    def push(self) -> None:
        # A view, so that what has been sent isn't copied again and again.
        try:
            while self.at < len(self.whole):
                self.at += self.sock.send(memoryview(self.whole)[self.at : self.at + 262144])
        except BlockingIOError:
            pass
        except OSError:
            self.lost()
            return
        busy = self.at < len(self.whole)
        self.loop.watch(self, select.EPOLLIN | (select.EPOLLOUT if busy else 0))

    def ready(self, events: int) -> None:
        if events & select.EPOLLOUT:
            self.push()
        if events & ~select.EPOLLOUT and self.sock.fileno() in self.loop.peers:
            self.take()

    def received(self, data: bytes) -> None:
        super().received(data)
        if self.at == len(self.whole):
            self.tick(self.pause, self.begin)
