"""What an answer means to a Writer when it is not that the server has the batch (protocol section 5); loaded then."""

from ds_core.client.writer import AGAIN, DUPLICATE, FENCED, REFUSED

_MAX_CLAIMS = 5


def verdict(writer, batch, status: int, headers: dict[str, str], depth: int) -> int:  # type: ignore[no-untyped-def]
    """AGAIN, REFUSED, FENCED, or DUPLICATE after all. `depth`: so many the server may have."""
    epoch = number(headers, "producer-epoch")
    seq = number(headers, "producer-seq")
    expected = number(headers, "producer-expected-seq")
    if status < 300:
        if seq < 0:
            return REFUSED  # no stream's answer: a Wi-Fi's login page answers 200 to anything
        if status == 204 and epoch == batch.epoch and seq >= batch.seq:
            if seq >= batch.seq + depth:
                # A duplicate of what we cannot have sent: the server's state is another device's, or older.
                return _claim(writer, epoch + 1)
            if "stream-closed" in headers:
                return REFUSED  # of the request that closed the stream under this number
            writer.duplicates += 1
            done: int = writer._done(DUPLICATE)
            return done
    elif status == 403 and epoch >= 0:
        if epoch > batch.epoch:
            return _claim(writer, epoch + 1)
    elif status == 409 and expected >= 0:
        if number(headers, "producer-received-seq") in (-1, batch.seq):
            if expected < batch.seq:
                writer.gaps += 1
                return _claim(writer, batch.epoch + 1)
            if expected == batch.seq:
                return REFUSED  # it is the one that the server expects, and it has another reason
    elif status not in (408, 429) and status < 500:
        return REFUSED
    # Later, then; or it is not an answer to this request.
    writer.broken(headers.get("retry-after"))
    return AGAIN


def _claim(writer, epoch: int) -> int:  # type: ignore[no-untyped-def]
    # Not forgotten at once: two who take the id from each other have some success in between, too.
    if writer.sent // 16 > writer._since // 16:
        writer.claims = 0
    writer._since = writer.sent
    writer.claims += 1
    # Beyond 2**53 - 1 there is no epoch (protocol section 5). The upper half is left to those that discard() and a
    # damaged segment begin on their own, one by one: it has more of them than any flash will bear.
    if writer.claims > _MAX_CLAIMS or epoch >> 52:
        writer.claims = 0
        return FENCED
    writer._store.claim(epoch)
    writer.delay = 0
    return AGAIN


def number(headers: dict[str, str], name: str) -> int:
    """A header's value, or -1; no epoch and no sequence has more than 16 digits (protocol section 5)."""
    value = headers.get(name, "")
    # (As bytes, of which none but 0 to 9 are digits: a text has more of them, of which int() takes only some.)
    return int(value) if value.encode().isdigit() and len(value) < 17 else -1
