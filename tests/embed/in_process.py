"""The core without any HTTP: an application appends to a stream of its own and reads it back.

What a network would carry is a command object here; what a disk would keep is a bytearray. Offsets,
exactly-once producers, message framing and every check of the protocol come with it.

    python tests/embed/in_process.py
"""

from ds_core.server import decide, messages, offsets, reads, requests, stream
from ds_core.wire import media

PATH = "/v1/stream/greenhouse/air"


class Log:
    """One stream in memory. `now` is both clocks: without a TTL or an expiry it may stand still."""

    def __init__(self) -> None:
        self.now = stream.Now(steady=0, wall=0)
        self.state: stream.Stream | None = None
        self.producers: dict[str, tuple[int, int]] = {}
        self.data = bytearray()

    def do(self, command):
        """Decide a command, keep its change, return the response. Raises ProtocolError for a refusal."""
        view = stream.View(self.state, self.now, fresh=1)
        view.producer = self.producers.get(decide.needs(command).producer)
        response, change = decide.decide(view, command)
        if isinstance(change, stream.Created):
            self.state = change.stream
        elif change is not None:
            change.apply(self.state)
            if change.producer is not None:
                self.producers[change.producer[0]] = change.producer[1:]
        if change is not None:
            self.data += change.data
            # A database would commit here: what is not durable is not shown to readers.
            self.state.publish()
        return response

    def read(self, offset: str) -> tuple[bytes, str]:
        """Everything from an offset on as a reader sees it, and the offset to go on from."""
        plan, _ = reads.plan(stream.View(self.state, self.now, fresh=2), offsets.parse(offset), live=False)
        shown = messages.body(self.state.kind, bytes(self.data[plan.start : plan.tail]))
        return shown, offsets.token(self.state.incarnation, plan.tail)


def append(log: Log, body: bytes, seq: int):
    """Append as producer `probe-7`; repeating a `seq` is safe."""
    headers = {
        "content-type": media.JSON_TYPE,
        "producer-id": "probe-7",
        "producer-epoch": "0",
        "producer-seq": str(seq),
    }
    return log.do(requests.parse("POST", PATH, headers, body=body))


def main() -> None:
    log = Log()
    log.do(requests.parse("PUT", PATH, {"content-type": media.JSON_TYPE}))

    print("first append:", append(log, b'{"t": 21.5}', 0).status)
    print("the next:", append(log, b'[{"t": 21.7}, {"t": 21.8}]', 1).status)
    print("a retry of it:", append(log, b'[{"t": 21.7}, {"t": 21.8}]', 1).status)

    shown, offset = log.read("-1")
    print("all messages:", shown.decode())
    append(log, b'{"t": 22.0}', 2)
    print("since then:", log.read(offset)[0].decode())


if __name__ == "__main__":
    main()
