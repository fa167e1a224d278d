"""Content coding: gzip for those who ask for it (RFC 9110 sections 8.4 and 12.5.3)."""

import re
import zlib
from collections.abc import AsyncGenerator

import trio

from ds_core.server.responses import Response

WORTHWHILE = 1024
"""Smaller bodies are never compressed."""

_IN_THREAD = 64 * 1024
_NOT_AT_ALL = re.compile(r"q[ \t]*=[ \t]*0*(\.0*)?")
_COMPRESSED = ("image/", "video/", "audio/", "application/zip", "application/gzip", "application/zstd")


def is_worthwhile(content_type: str, size: int) -> bool:
    """Whether a body of that type and size is worth compressing."""
    return size >= WORTHWHILE and not content_type.lower().startswith(_COMPRESSED)


def wants_gzip(accepted: str) -> bool:
    """Whether a client with this Accept-Encoding takes gzip."""
    qualities: dict[str, str] = {}
    for coding in accepted.split(","):
        name, _, quality = coding.partition(";")
        qualities[name.strip(" \t").lower()] = quality.strip(" \t").lower()
    # gzip's own word counts before that for all the others.
    return not _NOT_AT_ALL.fullmatch(qualities.get("gzip", qualities.get("*", "q=0")))


def mark(response: Response) -> None:
    """Say in the headers that the body is compressed."""
    # Another representation may not share a strong validator (RFC 9110 section 8.8.3).
    for index, (name, value) in enumerate(response.headers):
        if name == "ETag":
            response.headers[index] = (name, "W/" + value)
    response.headers.append(("Content-Encoding", "gzip"))


async def gzip(parts: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """The parts of a body as the parts of a gzip stream; large ones are compressed in a thread."""
    compressor = zlib.compressobj(1, zlib.DEFLATED, 31)
    async for part in parts:
        if len(part) > _IN_THREAD:
            packed = await trio.to_thread.run_sync(compressor.compress, part)
        else:
            packed = compressor.compress(part)
        del part
        if packed:
            yield packed
        del packed  # here and above: nothing is kept while the next part is waited for
    yield compressor.flush()
