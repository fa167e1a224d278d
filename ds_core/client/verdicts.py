"""What an answer means to a Writer when it is not that the server has the batch (protocol section 5); loaded then."""

from ds_core.client.writer import AGAIN, DUPLICATE, FENCED, REFUSED

_MAX_CLAIMS = 5


def verdict(writer, batch, status: int, headers: dict[str, str]) -> int:  # type: ignore[no-untyped-def]
    """AGAIN, REFUSED, FENCED, or DUPLICATE after all."""
    if status == 204 and "stream-closed" in headers:
        return REFUSED
    if status < 300 and number(headers, "producer-seq") >= 0:
        # A duplicate of what we cannot have sent: the server's state is not ours (a foreign or restored device).
        return _claim(writer, batch.epoch + 1)
    epoch = number(headers, "producer-epoch")
    if status == 403 and epoch >= batch.epoch:
        return _claim(writer, epoch + 1)
    expected = number(headers, "producer-expected-seq")
    if status == 409 and expected >= 0:
        if batch.seq < expected <= batch.seq + writer._depth:
            done: int = writer._done(DUPLICATE)
            return done
        writer.gaps += 1
        return _claim(writer, batch.epoch + 1)
    if status in (408, 429) or status >= 500:
        writer.broken(headers.get("retry-after"))
        return AGAIN
    return REFUSED


def _claim(writer, epoch: int) -> int:  # type: ignore[no-untyped-def]
    writer.claims += 1
    if writer.claims > _MAX_CLAIMS or epoch >> 53:  # beyond, there is no epoch
        writer.claims = 0
        return FENCED
    writer._store.claim(epoch)
    writer.delay = 0
    return AGAIN


def number(headers: dict[str, str], name: str) -> int:
    """A header's value, or -1."""
    value = headers.get(name, "")
    return int(value) if value.isdigit() else -1
