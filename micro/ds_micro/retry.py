"""What is done when the server or the network has got something wrong: wait, or raise. Loaded then."""

from ds_core.client.reader import OVER
from ds_core.client.refusals import BadResponse, OutboxFull, error_for
from ds_core.client.writer import AGAIN, FENCED, REFUSED
from ds_micro.net import now


def pause(items, exc):
    """How many ms an iteration waits after this error, or raise it. None: after a live answer that came at once, with
    nothing new: without a pause, a server or proxy that gives such answers would be asked as fast as the network goes.

    Longer each time, until there is progress: the cursor moves, or bytes come more than a second after asking.
    """
    backoff = items._backoff
    cursor = items._reader.cursor
    if not exc and items._reader.state == OVER:
        return 0
    moved = cursor.offset, cursor.items
    if backoff.failures and (items._since > items._begun + 1000 or items._was != moved):
        backoff.reset()
    items._was = moved
    ms = backoff.delay(exc and exc.retry_after)
    if exc:
        if not exc.url:  # what came was no good
            exc = exc.__class__(exc.message, exc.status, exc.code, items._stream.url)
        waited = now() - items._since + ms
        if not exc.retry or items._patience is not None and waited > items._patience * 1000:
            raise exc
        told(items._stream, exc, backoff.failures)
    if items._until is not None:
        ms = min(ms, max(0, items._until - now()))
    items._begun = now() + ms
    return ms


def told(stream, exc, attempt):
    """Tell a program that wants to know (ds_client's do) of what is tried again."""
    if hasattr(stream, "retried"):
        stream.retried(exc, attempt)


def broken(box, exc):
    """An outbox's connection broke: how long it waits, or raise what no time mends."""
    box.error = exc
    if hasattr(exc, "lasting"):
        raise exc
    writer = box.writer
    writer.broken()
    if not box._stream._dead:  # else a kept connection was found dead: at once, on a new one
        box._later = now() + writer.delay
        told(box._stream, exc, writer._backoff.failures)


def full(store):
    """An outbox has not taken a record: it drops it, or refuses it."""
    if store._full[-1] == "e":  # (on flash one letter of "refuse", see there)
        raise OutboxFull("no room in the outbox")


def refused(box, status, headers, text, outcome):
    """A batch was not taken: wait as long as the server asks, or raise why it never will be."""
    stream = box._stream
    if status == 204 and "stream-closed" in headers and "producer-seq" in headers and outcome == REFUSED:
        status = 409
        text = b"closed by this producer itself"
    error = error_for(status, headers, text, stream.url, outcome == FENCED)
    if outcome == AGAIN and not error.retry:
        # Late, or twice: what comes after it on this connection is no better.
        stream.drop()
        error = BadResponse("the answer to another request; does a proxy mix them up?", status, "", stream.url)
    box.error = error
    if outcome != AGAIN:
        raise error
    box._later = now() + box.writer.delay
    told(stream, error, box.writer._backoff.failures)
