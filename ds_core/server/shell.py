"""A shell without its I/O: from a request to all that is said to it, over five storage calls (sections 3 to 8).

What every program that keeps streams would write again: what a decision must see and in which order, the bytes of
forks, chunks, waiting for more and looking again, releasing what only a deleted fork kept. An embedder adds storage
(`storage`: five calls), waiting, and HTTP:

    shell = Shell(clock.now, random.random)
    exchange = shell.exchange(method, target, headers, body, origin)
    while not exchange.done:
        moved = store.moved  # an event that the next commit sets
        with transaction:
            said = storage.run(exchange.next(), store)
        if isinstance(said, storage.Wait):
            ...  # for the event, at most `said.seconds`
        elif isinstance(said, responses.Response):
            ...  # its status, headers and body go out
        else:
            ...  # bytes: more of the body, an event stream's

The loop is the embedder's because waiting and sending are: blocking here, awaited there. Nothing is held between two
turns but the exchange: no transaction, no bytes.
"""

from ds_core.wire import media, names

from . import create, cursors, decide, messages, offsets, reads, requests, responses, storage, stream, targets
from .errors import ProtocolError

TYPE_CHECKING = False  # type checkers take this name for true; MicroPython has no collections.abc
if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    Change = requests.Create | requests.Append | requests.Head | requests.Delete

CHUNK = 16 << 20
"""Bytes of a stream in one answer, if not told otherwise: official clients that don't follow end with the first."""
QUIET = 15.0
"""Seconds of silence after which an event stream gets a comment: proxies cut after 30 to 60."""
_BATCH = 256 << 10  # of an event stream


class Shell:
    """What is the same for all requests.

    `now()` gives both clocks (`clock.Clock`), `random()` a number in [0, 1). `root` is what stands before a stream's
    path in its URL. `chunk`: most bytes of a stream in one answer (at least one message is shown). `long_poll` and
    `sse`: seconds until a long-poll is answered without data, and until an event stream ends and its client comes back.
    `cache_control` is `responses.PUBLIC` or, where not everybody may read, PRIVATE. `parsers`: faster ones, perhaps.
    """

    def __init__(
        self,
        now: "Callable[[], stream.Now]",
        random: "Callable[[], float]",
        root: str = names.ROOT,
        chunk: int = CHUNK,
        long_poll: float = 25.0,
        sse: float = 60.0,
        cache_control: str = responses.PUBLIC,
        parsers: "messages.Parsers | None" = None,
    ) -> None:
        if not root.startswith("/"):
            raise ValueError("root must be the beginning of a URL's path, such as /streams/, not %r" % root)
        self.now = now
        self.random = random
        self.root = root if root.endswith("/") else root + "/"
        self.chunk = chunk
        self.long_poll = long_poll
        self.sse = sse
        self.cache_control = cache_control
        self.parsers = parsers or messages.Parsers()

    def parse(
        self, method: str, target: str, headers: object, body: bytes = b"", origin: str = ""
    ) -> "requests.Create | requests.Append | requests.Read | requests.Head | requests.Delete":
        """As `requests.parse`, below this shell's root and of headers as `storage.given` takes them."""
        root = self.root
        return requests.parse(
            method, target, storage.given(headers), origin, body,
            lambda target, reads: targets.resolve(target, reads, root), root,
        )  # fmt: skip

    def exchange(self, method: str, target: str, headers: object, body: bytes = b"", origin: str = "") -> "Exchange":
        """A request that has come whole. `target` is as it was sent, still percent-encoded, with its query; `origin` is
        `http://` and Host, for Locations; `headers` a dict or pairs of str or bytes, names in any case."""
        return Exchange(self, method, target, headers, body, origin)

    def decide(self, command: "Change") -> "Generator[tuple[object, ...], object, responses.Response]":
        """Steps to the response to a command, its change durable. Raises ProtocolError; nothing has changed then."""
        needs = decide.needs(command)
        found = yield from storage.load(needs.path)
        view = stream.View(found, self.now(), 0)
        if isinstance(command, requests.Create):
            view.fresh = (yield from storage.newest()) + 1
            if needs.source is not None:
                view.source = source = yield from storage.load(needs.source)
                at = create.piece_position(source, command, view.now, view.fresh)
                if source is not None and at is not None and at < source.tail:
                    view.piece = (yield from storage.pieces(source, at, at + 1))[0]
        elif needs.producer is not None and found is not None:
            view.producer = yield from storage.producer(found.id, needs.producer)
        response, change = decide.decide(view, command, self.parsers)
        yield from storage.keep(found, change, view.now)
        return response

    def sweep(self, path: str) -> "Generator[tuple[object, ...], object, bool]":
        """Steps that remove the stream at a path if its time is over; whether it was. To be run now and then for those
        whose `deadline` or `expires` is past: nobody sees an expired stream, but it takes its place."""
        found = yield from storage.load(path)
        view = stream.View(found, self.now(), 0)
        _, change = stream.expire(view)
        yield from storage.keep(found, change, view.now)
        return change is not None


class Exchange:
    """One request and all that is said to it, turn by turn (the loop is in the module's text).

    `done`: nothing more will be said. `command` is what was asked, None where the request itself is wrong (the first
    turn answers that) or asks for options: what may be read or changed by whom can be decided by it before the first
    turn. `length` is what a Response's Content-Length says, None where it has none: for HEAD and event streams.
    """

    def __init__(self, shell: Shell, method: str, target: str, headers: object, body: bytes, origin: str) -> None:
        self._shell = shell
        self._refusal: "ProtocolError | None" = None
        self._bare = method == "HEAD"
        self._offset: "tuple[int, int] | str" = offsets.START
        self._ends: "float | None" = None  # set by the first look
        self._spoke = 0.0
        self._cursor: "str | None" = None
        self._events = False  # the head of an event stream is out
        self.done = False
        self.length: "int | None" = None
        self.command = None
        if method != "OPTIONS":
            try:
                self.command = shell.parse(method, target, headers, body, origin)
            except ProtocolError as error:
                self._refusal = error
        if isinstance(self.command, requests.Read):
            self._offset = self.command.offset

    def next(self) -> "Generator[tuple[object, ...], object, responses.Response | storage.Wait | bytes]":
        """Steps to what is said next: a Response first, and after an event stream's one batch of bytes after the other
        (the last may be empty); or a Wait. A refusal is a Response as well."""
        if self._events:
            return (yield from self._batch())
        said: "responses.Response | storage.Wait"
        try:
            if self._refusal is not None:
                raise self._refusal
            command = self.command
            if command is None:
                said = responses.preflight()
            elif not isinstance(command, requests.Read):
                said = yield from self._shell.decide(command)
            elif command.live == names.SSE:
                return (yield from self._begin())
            else:
                said = yield from self._read(command)
        except ProtocolError as error:
            said = responses.refusal(error)
        if isinstance(said, responses.Response):
            self.done = True
            if self._bare:
                said.body = b""
            else:
                self.length = len(said.body)
        return said

    def _read(
        self, command: requests.Read
    ) -> "Generator[tuple[object, ...], object, responses.Response | storage.Wait]":
        shell = self._shell
        plan, now = yield from self._plan(command, shell.long_poll)
        left = self._left(now)
        if plan.waits and left > 0:
            return _wait(plan, now, left)
        position, data = yield from self._show(plan, self._limit(command))
        cursor = cursors.next_cursor(now.wall, command.cursor, shell.random())
        return reads.answer(command, position, data, cursor, shell.cache_control)

    def _begin(self) -> "Generator[tuple[object, ...], object, responses.Response]":
        command = self.command
        assert isinstance(command, requests.Read)
        plan, now = yield from self._plan(command, self._shell.sse)
        if cursors.shared_cursor(now.wall, command.cursor) is None:  # its own is chosen once
            self._cursor = cursors.next_cursor(now.wall, command.cursor, self._shell.random())
        self._events = True
        self._spoke = -QUIET
        return responses.sse(not media.is_text(plan.stream.content_type))

    def _batch(self) -> "Generator[tuple[object, ...], object, bytes | storage.Wait]":
        command = self.command
        assert isinstance(command, requests.Read)
        try:
            plan, now = yield from self._plan(command, 0.0)
        except ProtocolError:  # deleted, expired or trimmed: the next request is told
            self.done = True
            return b""
        left = self._left(now)
        first = self._spoke < 0
        if plan.waits and not first:
            quiet = self._spoke + QUIET - now.steady
            if left > 0 and quiet > 0:
                return _wait(plan, now, min(left, quiet))
            self._spoke = now.steady
            self.done = left <= 0
            return b"" if self.done else b":\n\n"
        position, data = yield from self._show(plan, max(reads.CHARACTER, min(_BATCH, self._limit(command))))
        if position.end < plan.tail and media.is_text(position.content_type):
            whole = reads.whole_text(data)
            if not whole:  # appends meet within a character
                end = min(plan.tail, plan.start + reads.CHARACTER)
                found = yield from storage.pieces(plan.stream, plan.start, end)
                data = storage.joined(found, plan.start, end)
                whole = reads.whole_text(data) or data
            data = whole
            position = plan.position(plan.start + len(data))
        self._offset = (plan.stream.incarnation, position.end)
        self._spoke = now.steady
        self.done = position.closed or left <= 0
        return reads.events(position, data, self._cursor or cursors.next_cursor(now.wall, None, 0.0))

    def _plan(
        self, command: requests.Read, seconds: float
    ) -> "Generator[tuple[object, ...], object, tuple[reads.Plan, stream.Now]]":
        """What there is to show now, and the time; it ends so many `seconds` after the first look."""
        now = self._shell.now()
        found = yield from storage.load(command.path)
        view = stream.View(found, now, (yield from storage.newest()) + 1)
        plan, renewed = reads.plan(view, self._offset, command.live is not None)
        if self._ends is None:
            if plan.may_be_inside():
                piece = (yield from storage.pieces(plan.stream, plan.start, plan.start + 1))[0]
                reads.check_start(plan.stream.kind, piece, plan.start)
            self._ends = now.steady + seconds
            # What `now` was then is an offset from here on: nothing that comes before the next look is passed over.
            self._offset = (plan.stream.incarnation, plan.start)
            yield from storage.keep(found, renewed, now)
        return plan, now

    def _left(self, now: stream.Now) -> float:
        assert self._ends is not None
        return self._ends - now.steady

    def _limit(self, command: requests.Read) -> int:
        most = command.max_bytes
        return self._shell.chunk if most is None or most > self._shell.chunk else max(1, most)

    def _show(
        self, plan: reads.Plan, limit: int
    ) -> "Generator[tuple[object, ...], object, tuple[responses.Position, bytes]]":
        """What one answer or batch shows: its place in the stream, and the stored bytes."""
        end = plan.tail
        if plan.start == end:
            return plan.position(end), b""
        # The append at the limit decides where to end, so it is among them.
        found = yield from storage.pieces(plan.stream, plan.start, min(end, plan.start + limit + 1))
        if end - plan.start > limit:
            first, data = found[-1]
            cut = reads.chunk_end(plan.stream.kind, plan.start, limit, (first, first + len(data)), data)
            assert cut is not None
            end = cut
        return plan.position(end), storage.joined(found, plan.start, end)


def _wait(plan: reads.Plan, now: stream.Now, seconds: float) -> storage.Wait:
    """No longer than the stream lives: whoever waits for one that expires is told so then."""
    found = plan.stream
    if found.deadline is not None:
        seconds = min(seconds, found.deadline - now.steady)
    if found.expires is not None:
        seconds = min(seconds, found.expires - now.wall)
    return storage.Wait(found.id, plan.tail, max(0.0, seconds))
