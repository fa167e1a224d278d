"""An outbox is closed, or closes its stream, exactly once: loaded when it does."""

from ds_core.client.errors import Disconnected
from ds_core.client.writer import AGAIN
from ds_micro.net import now


def close(store):
    """Make everything on flash durable, and let the files go, and the folder if it is still this store's."""
    from ds_micro.flash import OWNERS, guarded

    if store._waiting:
        guarded(_put)(store)
    files = store._file, store._reading
    store._file = store._reading = store._seen = None
    try:
        for file in files:
            if file:
                file.close()
    finally:
        # (All is on flash, whatever closing says. An owner has no file open before its first append.)
        if OWNERS.get(store._path) is store._files:
            OWNERS.pop(store._path)


def _put(store):
    store._begin()
    store.claim(None)
    if store._waiting:
        store._write()


class _Closing:
    """The request that closes a stream, as a batch without records. Its number is the next one, which no batch has yet:
    it follows from the store, so that after a restart it is the same request.
    """

    count = length = 0

    def __init__(self, store, content_type):
        self.type = content_type
        self.epoch = store._epoch
        self.seq = store._seq
        try:
            self.seq += 1 - len(store._files)
        except AttributeError:
            pass  # in RAM it is the oldest's

    def readinto(self, view):
        return 0


async def closing(box, until):
    """Send what waits, and close the stream, exactly once. Whether it is closed; `error` says why not.

    Raises as flush() does; Closed: somebody else has closed it.
    """
    if await box._flush(until):
        return False
    stream = box._stream
    writer = box.writer
    while True:
        pause = max(0, box._later - now())
        if pause >= until - now():
            return False
        if pause:
            await stream._conn.sleep(pause)
        batch = _Closing(box.store, stream.content_type)
        try:
            await stream._send("POST", writer.headers(batch) + (("Stream-Closed", "true"),), batch)
            status = await stream._answer()
            headers = stream._parser.headers
            text = await stream._text()
        except Disconnected as exc:
            from ds_micro.retry import broken

            broken(box, exc)
            continue
        box.error = None
        mine = headers.get("producer-epoch") == str(batch.epoch) and headers.get("producer-seq") == str(batch.seq)
        if status < 300 and mine and "stream-closed" in headers:
            return True
        from ds_core.client.verdicts import verdict

        outcome = verdict(writer, batch, status, headers, 0)
        if outcome > AGAIN or writer.delay:
            from ds_micro.retry import refused

            refused(box, status, headers, text, outcome)
