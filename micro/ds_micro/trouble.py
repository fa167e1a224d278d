"""What a program has got wrong: options, records, names; and an outbox's rarer methods. Loaded then."""

from ds_micro.net import now


def bad_stream(url, tls, bad):
    """Raise what is wrong with a Stream's options; `bad`: with its URL, or that options of https are with another."""
    from ds_micro.misspelt import STREAM, no_option

    no_option("Stream", tls, STREAM)
    if not bad:
        raise ValueError("timeout, live_timeout: 0.001 to 500000 s; buffer: 64 bytes or more; max_bytes: not below 0")
    if tls and url[:7] == "http://":
        raise ValueError("for https only: " + ", ".join(tls))
    raise ValueError("not http://HOST[:PORT]/PATH or https://..., percent-encoded: " + url)


def bad_outbox(stream, path, producer, when_full, limit, segment, epoch):
    """Raise what is wrong with an Outbox's options."""
    if not stream.content_type:
        raise ValueError("the stream's content type is not known yet: adopt() it, or name it")
    if when_full not in ("drop-oldest", "drop-newest", "refuse"):
        raise ValueError("when_full: drop-oldest, drop-newest or refuse")
    if not producer or len(producer) > 256 or min(producer) < " " or producer != producer.strip():
        raise ValueError("producer: an id that nobody else uses for this stream, of 1 to 256 characters on one line")
    if type(epoch) is not int or not 0 <= epoch < 1 << 52:
        raise ValueError("epoch: a whole number, 0 to 2**52 - 1")
    if path and segment < 64:
        raise ValueError("segment: 64 bytes or more")
    if path and limit < 4 * segment:
        raise ValueError("limit: at least four segments of %d bytes" % segment)
    raise ValueError(
        "limit, segment, sync_every, in_flight: whole numbers from 1 on (in a folder in_flight is 1); "
        "count, age: from 0 on"
    )


def method(box, name):
    """An outbox's rarer method."""
    if name == "close":
        return lambda: box._alone(_close, box.store)
    if name == "discard":
        return lambda: box._alone(_discard, box)
    if name == "damaged":
        try:
            return box.store._damaged
        except AttributeError:  # in RAM, or in a folder that was new
            return 0
    if name == "close_stream":
        return lambda timeout=30: box._alone(_close_stream, box, timeout)
    from ds_micro.misspelt import OUTBOX, no_such

    return no_such("Outbox", name, OUTBOX)


def _close_stream(box, timeout):
    from ds_micro.closing import closing

    return box._stream._run(closing(box, now() + int(timeout * 1000 + 0)))


def _close(store):
    if hasattr(store, "close"):  # in RAM
        store.close()
    else:
        from ds_micro.closing import close

        close(store)


def _discard(box):
    """Drop the oldest batch, after flush() raised that the server will not have it; how many records that were."""
    store = box.store
    if hasattr(store, "discard"):
        n = store.discard()
    else:
        from ds_micro.recovery import discard

        n = discard(store)
    if not store.records:
        box._born = None
    return n
