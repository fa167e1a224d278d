"""The end that keeps streams: requests in, decisions and responses out; no I/O, no clock.

An embedder's day: `heads.parse` (or any HTTP parser) -> `requests.parse` -> load what `decide.needs` names into a
`stream.View` -> `decide.decide` or `reads.plan` -> store the change they return -> `responses.encode_head`.

Its public names are its modules. They are imported one by one, so that a device loads only what it uses.
"""

if __debug__:  # not in what is compiled for a device
    __all__ = [
        "heads", "requests", "targets", "fields", "offsets",
        "decide", "stream", "create", "producers", "reads",
        "messages", "json_text", "responses", "cursors", "errors",
        "shell", "storage", "rows", "clock",
    ]  # fmt: skip
