"""Streams on a store without HTTP: the few operations that fault tests need, decided by the core."""

from __future__ import annotations

from ds_core.server import create, requests, stream
from ds_core.server.decide import needs
from ds_core.server.messages import Parsers
from ds_core.server.stream import Stream
from ds_trio_server.store.base import Store

_PURE = Parsers()


async def put(store: Store, path: str, body: bytes = b"", **headers: str) -> str:
    """Create a stream; returns its tail."""
    given = {"content-type": "text/plain", **{n.replace("_", "-"): v for n, v in headers.items()}}
    if "stream-forked-from" in given:
        given["stream-forked-from"] = "/v1/stream/" + given["stream-forked-from"]
    command = requests.parse("PUT", f"/v1/stream/{path}", given, "", body)
    piece = None
    if command.source is not None and not isinstance(command.fork_offset, str):
        source = await find(store, command.source)
        if source is not None and command.fork_offset[1] < source.visible_tail:
            piece = await store.append_at(source, max(command.fork_offset[1], source.start))
    response = await store.transact(needs(command, piece), lambda view: create.create(view, command, _PURE))
    return dict(response.headers)["stream-next-offset"]


async def append(store: Store, path: str, body: bytes, **headers: str) -> str:
    """Append; returns the tail."""
    given = {"content-type": "text/plain", **{n.replace("_", "-"): v for n, v in headers.items()}}
    command = requests.parse("POST", f"/v1/stream/{path}", given, "", body)
    response = await store.transact(needs(command), lambda view: stream.append(view, command, _PURE))
    return dict(response.headers)["stream-next-offset"]


async def delete(store: Store, path: str) -> None:
    """Delete a stream."""
    command = requests.parse("DELETE", f"/v1/stream/{path}", {})
    await store.transact(needs(command), lambda view: stream.delete(view, command))


async def find(store: Store, path: str) -> Stream | None:
    """The stream at a path if it can be read."""
    found = await store.look(path, lambda view: (view.stream, None))
    return found if stream.condition(found, store.now()) in (stream.OPEN, stream.CLOSED) else None


async def read(store: Store, path: str) -> bytes:
    """All of a stream from its earliest position."""
    found = await find(store, path)
    assert found is not None, path
    body = b""
    while found.start + len(body) < found.visible_tail:
        body += b"".join(await store.read(found, found.start + len(body), found.visible_tail))
    return body
