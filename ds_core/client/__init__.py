"""The device's half of the protocol, sans-IO: exactly-once appends, exactly-once reads, backoff.

Nothing is imported here, so that a device loads only what it uses: `ds_core.client.writer` (Writer), `reader` (Reader),
`backoff` (Backoff), `errors`, and, when they are needed, `memory` (MemoryStore) and `jsonitems`.
"""
