"""What is done when the server or the network has got something wrong: wait, or raise. Loaded then."""

from ds_core.client.refusals import OutboxFull, error_for
from ds_core.client.writer import AGAIN, FENCED
from ds_micro.net import now


def pause(items, exc):
    """How many ms an iteration waits after this error, or raise it."""
    exc.url = items._stream.url
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
    if status == 204 and "stream-closed" in headers:
        status = 409
        text = b"closed by this producer itself"
    box.error = error_for(status, headers, text, box._stream.url, outcome == FENCED)
    if outcome != AGAIN:
        raise box.error
    box._later = now() + box.writer.delay
