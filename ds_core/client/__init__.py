"""The device's half of the protocol, sans-IO: exactly-once appends, exactly-once reads, backoff.

Its public names are its modules. None is imported here, so that a device loads only what it uses:
`ds_core.client.writer` (Writer), `reader` (Reader), `backoff` (Backoff), `errors`, and, when they are needed, `memory`
(MemoryStore) and `jsonitems`.
"""

if __debug__:  # not in what is compiled for a device
    __all__ = [
        "writer", "reader", "backoff", "errors", "refusals", "memory", "events", "jsonitems", "rawitems",
    ]  # fmt: skip
