"""What is done when the server or the network has got something wrong: wait, or raise. Loaded then."""

from ds_core.client.refusals import BadResponse, OutboxFull, error_for
from ds_core.client.writer import AGAIN, FENCED, REFUSED
from ds_micro.net import now


def pause(items, exc):
    """How many ms an iteration waits after this error, or raise it."""
    if not exc.url:  # what came was no good
        exc = exc.__class__(exc.message, exc.status, exc.code, items._stream.url)
    ms = items._backoff.delay(exc.retry_after)
    waited = now() - items._since + ms
    if not exc.retry or items._patience is not None and waited > items._patience * 1000:
        raise exc
    if items._until is not None:
        ms = min(ms, max(0, items._until - now()))
    return ms


def full():
    """An outbox refuses a record."""
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
