"""The client commands of `ds`: create, append, read, tail, head, close, delete, fork.

They are the device's client (ds_micro) on CPython. Exit status: 0 done, 1 the server, the network or the input failed,
2 wrong usage, 130 and 143 ended by SIGINT and SIGTERM, and killed by SIGPIPE when whoever read the output is gone.
Errors are one line on standard error; standard output has results only.
"""

import argparse
import gc
import json
import re
import signal
import sys
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Literal

from ds_core.client.errors import Disconnected, StreamError
from ds_core.client.reader import kind_of

from . import client_options
from .append import append
from .client_stream import connect
from .input import InputError
from .notation import printable
from .output import CursorFile, Output, Progress, Signals, Stopped
from .parser import Usage
from .saved import SavedError
from .stdio import broken_pipe, discard_output

if TYPE_CHECKING:
    from .parser import Commands

MAX_ITEM = 1 << 28


def add_commands(commands: "Commands") -> None:
    """Add the client commands; each also has `act`, what `run` runs."""
    acts = {
        "create": _create,
        "append": append,
        "read": _read,
        "tail": _tail,
        "head": _head,
        "close": _close,
        "delete": _delete,
        "fork": _fork,
    }
    client_options.add_commands(commands, run, acts)


def say(options: argparse.Namespace, text: str) -> None:
    if not options.quiet:
        print(printable(text))


def _create(options: argparse.Namespace, signals: Signals) -> int:
    stream = connect(options, options.content_type)
    done = stream.create(**_expiry(options))
    say(options, f"{'created' if done.status == 201 else 'exists'} {stream.url}")
    return 0


def _expiry(options: argparse.Namespace) -> dict[str, Any]:
    if options.expires_at:
        return {"expires_at": options.expires_at}
    return {} if options.ttl is None else {"ttl": options.ttl}


def _fork(options: argparse.Namespace, signals: Signals) -> int:
    if options.sub_offset and not options.offset:
        raise Usage("--sub-offset needs --offset")
    source = connect(options, stream=options.source)
    here = connect(options)
    if source.url.split("/")[2] != here.url.split("/")[2]:
        raise Usage("a fork must be on the same server as its source")
    content_type = options.content_type or source.head().headers.get("content-type")
    stream = connect(options, content_type)
    done = stream.fork(source.path, offset=options.offset, sub_offset=options.sub_offset, **_expiry(options))
    say(options, f"{'forked' if done.status == 201 else 'exists'} {stream.url}")
    return 0


def _close(options: argparse.Namespace, signals: Signals) -> int:
    stream = connect(options)
    done = stream.seal()
    say(options, f"closed {stream.url} at {done.offset}")
    return 0


def _delete(options: argparse.Namespace, signals: Signals) -> int:
    stream = connect(options)
    stream.delete()
    say(options, f"deleted {stream.url}")
    return 0


def _head(options: argparse.Namespace, signals: Signals) -> int:
    stream = connect(options)
    done = stream.head()
    ttl = done.headers.get("stream-ttl", "")
    facts = {
        "url": stream.url,
        "content_type": done.headers.get("content-type"),
        "next_offset": done.offset,
        "closed": done.closed,
        "ttl": int(ttl) if ttl.isascii() and ttl.isdigit() else None,
        "expires_at": done.headers.get("stream-expires-at"),
    }
    if options.json:
        print(json.dumps(facts))
        return 0
    rows = [
        ("stream", facts["url"]),
        ("content type", facts["content_type"]),
        ("ends at offset", facts["next_offset"]),
        ("state", "closed" if facts["closed"] else "open"),
        ("expires", f"when unused for {ttl} s" if ttl else facts["expires_at"] or "never"),
    ]
    for name, value in rows:
        print(printable(f"{name + ':':16}") + " " * (16 - len(name) - 1) + printable(str(value)))
    return 0


def _read(options: argparse.Namespace, signals: Signals) -> int:
    return _print(options, signals, None)


def _tail(options: argparse.Namespace, signals: Signals) -> int:
    return _print(options, signals, options.live)


def _print(options: argparse.Namespace, signals: Signals, live: Literal["long-poll", "sse", "auto"] | None) -> int:
    from ds_micro.batches import batches  # what the other commands do without

    # Items are many and have no cycles: the collector looks at them too often otherwise, an eighth of the time.
    gc.set_threshold(100_000)
    stream = connect(options)
    file = None
    place: tuple[str, int] | None = None
    if options.cursor:
        file = CursorFile(options.cursor, stream.url, "bytes" if options.raw else "items")
        place = file.load()
    # Now, not in the middle: what cannot work says so at once, and "now" becomes an offset that a cursor can keep.
    head = stream.head()
    if place is None:
        start: str = options.offset or ("now" if live and not file else "-1")
        if start == "now":
            assert head.offset is not None, "a success without one is none"
            start = head.offset
        place = start, 0
    content_type = head.headers.get("content-type", "")
    kind = "bytes" if options.raw else kind_of(content_type)
    if kind == "bytes" and sys.stdout.isatty() and _binary(content_type):
        raise Usage(f"{printable(content_type)} is not for a terminal; send it to a file, or to a program such as od")
    progress = Progress(not options.quiet and not live and not sys.stdout.isatty())
    output = Output(kind, place, file, progress, signals)
    if file:
        file.save(place)
    try:
        for batch in batches(
            stream, output.position, live=live, patience=options.retry_for, limit=MAX_ITEM, raw=options.raw
        ):
            output.write(batch)
        output.save()
    except (Stopped, StreamError) as exc:
        progress.clear()
        output.save()
        if file and isinstance(exc, StreamError) and (exc.status == 410 or exc.code == "INVALID_OFFSET"):
            exc.add_note(f"without {options.cursor} it would begin at the start")
        raise
    finally:
        progress.clear()
    return 0


def _binary(content_type: str) -> bool:
    if "octet-stream" in content_type or kind_of(content_type) == "cbor":
        return True
    return content_type.partition("/")[0].strip().lower() in ("image", "audio", "video", "font")


def run(options: argparse.Namespace) -> int:
    """Run a client command; the exit status."""
    signals = Signals()
    try:
        status = options.act(options, signals)
        sys.stdout.flush()
        return int(status)
    except BrokenPipeError:
        return broken_pipe()
    except (Usage, SavedError, Stopped, StreamError, InputError, OSError) as exc:
        status, text = _verdict(exc)
        if text:
            text = "; ".join([text, *getattr(exc, "__notes__", [])])
            if isinstance(exc, Stopped) and options.command in ("read", "tail"):
                text = ""
    try:
        sys.stdout.flush()
    except OSError:
        discard_output()
    if text:
        print(f"ds {options.command}: {printable(text)}", file=sys.stderr)
    return status


def _verdict(exc: BaseException) -> tuple[int, str]:
    """Exit status and message of what ended a command."""
    if isinstance(exc, Stopped):
        return 128 + exc.number, "interrupted" if exc.number == signal.SIGINT else "ended by SIGTERM"
    if isinstance(exc, StreamError):
        return 1, describe(exc)
    if isinstance(exc, OSError):
        return 1, f"{exc.filename}: {exc.strerror}" if exc.filename else f"can't write: {exc.strerror or exc}"
    return 1 if isinstance(exc, InputError) else 2, str(exc)


def describe(exc: StreamError) -> str:
    """An error in one line: who, what, and what would help."""
    message = exc.message or ""
    if not exc.status:
        reason = re.sub(r"^\[Errno -?\d+\] ", "", message) or type(exc).__name__
        host = "/".join(exc.url.split("/")[:3])
        return f"no answer from {host}: {reason}" if isinstance(exc, Disconnected) else f"{exc.url}: {reason}"
    try:
        phrase = HTTPStatus(exc.status).phrase
    except ValueError:
        phrase = ""
    text = f"{exc.status} {phrase}".strip()
    if message:
        text += f": {message[:300]}"
    hint = exc.hint
    if exc.status == 401:
        hint = "; STREAM_AUTH or --auth gives credentials"
    elif exc.status == 413:
        hint = "; --batch 64K makes requests smaller"
    return f"{text}{hint} ({exc.url})"
