"""The client commands of ``ds``: create, append, read, tail, head, close, delete, fork.

They are the device's client (ds_micro) on CPython. Exit status: 0 done, 1 the server, the network or the input failed,
2 wrong usage, 130 and 143 ended by SIGINT and SIGTERM, and killed by SIGPIPE when whoever read the output is gone.
Errors are one line on standard error; standard output has results only.
"""

import argparse
import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit

from ds_core.client.backoff import Backoff
from ds_core.client.errors import Disconnected, StreamError
from ds_core.client.reader import kind_of
from ds_core.client.writer import Writer
from ds_core.wire import cbor
from ds_core.wire.names import DEFAULT_PORT, ROOT
from ds_micro import Outbox, Stream
from ds_micro.stream import random

from .cli_input import Batches, InputError, Items, Lines, Raw, Source, State, StateError
from .cli_output import CursorError, CursorFile, Output, Progress, Signals, Stopped, item_of, printable, size

CBOR, JSON = "application/cbor-seq", "application/json"
BUFFER = 1 << 16
MAX_ITEM = 1 << 28
IN_FLIGHT = 5
FOREVER = 10**9
# What a path may have besides letters and digits (RFC 3986), and "%" of what is encoded already.
_PATH = "/%:@!$&'()*+,;=~-._"
Act = Callable[[argparse.Namespace, Signals], int]

STREAM_HELP = f"""\
STREAM is a URL, or a path below STREAM_URL, an environment variable (default: http://127.0.0.1:{DEFAULT_PORT}{ROOT[:-1]}).
A path that begins with "/" is from the root of that server. STREAM_AUTH is sent as the Authorization header, such as
STREAM_AUTH='Bearer 8d91...'. --url and --auth override both.
"""

STATUS_HELP = """\
Exit status: 0 done; 1 the server, the network or the input failed; 2 wrong usage; 130 interrupted.
"""


class _Help(argparse.HelpFormatter):
    """Keeps paragraphs apart."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n\n".join(super(_Help, self)._fill_text(part, width, indent) for part in text.strip().split("\n\n"))


class Usage(Exception):
    """The command line is wrong."""


# --------------------------------------------------------------------------------
# Options


def add_commands(commands: Any) -> None:
    """Add the client commands to the subparsers of ``ds``; each has `run`, a function of the options."""

    def command(name: str, act: Act, help: str, text: str = "") -> Any:
        parser = commands.add_parser(
            name,
            help=help,
            description=f"{help[0].upper()}{help[1:]}.\n\n{text}".rstrip(),
            epilog=STREAM_HELP + "\n" + STATUS_HELP,
            formatter_class=_Help,
        )
        parser.set_defaults(run=run, act=act)
        parser.add_argument("stream", metavar="STREAM", help="the stream's URL or path")
        return parser

    create = command("create", _create, "create a stream", "Creating it again, the same, does no harm.")
    _add_type(create, f"of the new stream (default: {CBOR})")
    _add_expiry(create)

    append = command("append", _append, "append records to a stream", APPEND_TEXT)
    append.add_argument("records", nargs="*", metavar="RECORD", help="what to append (default: standard input)")
    append.add_argument("--file", "-f", action="append", metavar="FILE", help="append a file; - is standard input")
    forms = append.add_mutually_exclusive_group()
    forms.add_argument("--json", action="store_true", help="records are JSON values, the stream is " + JSON)
    forms.add_argument("--cbor", action="store_true", help="records are JSON values, the stream is " + CBOR)
    forms.add_argument("--raw", action="store_true", help="bytes as they are, without lines; CBOR as encoded items")
    append.add_argument("--content-type", metavar="TYPE", help="the stream's content type (default: ask the server)")
    append.add_argument("--producer", metavar="ID", help="append exactly once, as this producer")
    append.add_argument("--producer-state", metavar="FILE", help="with --producer: go on where the last run stopped")
    append.add_argument("--batch", type=_bytes, default=1 << 18, metavar="BYTES",
        help="most bytes in one request (default: 256K)")  # fmt: skip
    _add_patience(append, "60", "with --producer: ")

    read = command("read", _read, "print a stream from its start to its end", READ_TEXT)
    _add_reading(read, "-1, the start")
    _add_patience(read, "60", "")

    tail = command("tail", _tail, "print what is appended to a stream, as it comes", TAIL_TEXT + READ_TEXT)
    _add_reading(tail, "now; the start when a new --cursor is given")
    tail.add_argument("--live", choices=("long-poll", "sse", "auto"), default="long-poll",
        help="how to wait; auto: sse for JSON and text, else long-poll (default: %(default)s)")  # fmt: skip
    _add_patience(tail, "forever", "")

    head = command("head", _head, "show a stream's content type, end and state")
    head.add_argument("--json", action="store_true", help="as one JSON object")

    command("close", _close, "close a stream for good", "It can still be read. Closing it again does no harm.")
    command("delete", _delete, "delete a stream", "Its data stays while forks of it need them.")

    fork = command("fork", _fork, "create a stream that begins with another one's content", FORK_TEXT)
    fork.add_argument("--from", dest="source", required=True, metavar="SOURCE",
        help="the stream to fork, on the same server; a URL or path like STREAM")  # fmt: skip
    fork.add_argument("--offset", metavar="OFFSET", help="how far to inherit (default: all of it)")
    fork.add_argument("--sub-offset", type=_whole, default=0, metavar="N",
        help="and N more: messages of a JSON stream, else bytes; needs --offset")  # fmt: skip
    _add_type(fork, "of the fork (default: the source's)")
    _add_expiry(fork)

    for parser in (create, append, read, tail, head, fork, *(commands.choices[name] for name in ("close", "delete"))):
        _add_connection(parser)


APPEND_TEXT = """\
Each RECORD or line is one record. On a JSON or CBOR stream it is a JSON value (bytes of CBOR: {"$hex":"0aff"}, a tag:
{"$tag":1,"$value":0}); on any other stream a line of text, which keeps its end of line. What is there is sent at once,
and while a request is on its way the next gathers.

Without --producer a request that breaks is not repeated: the message says what may or may not have been appended. With
--producer ID it is repeated until the server has it, and the server drops what it had. A producer is one writer: a run
takes the id from an earlier one that may still be alive.

Run again, the same input is appended again, unless --producer-state FILE is given: then what the server has
acknowledged is skipped, and what was under way is sent as the same request again, so that each record is appended
exactly once, whatever was killed when. The input must begin with the same records (this is checked) and may have grown,
so this ships what is new:

ds append log --file log.txt --producer here --producer-state log.state
"""
READ_TEXT = """\
JSON and CBOR streams are printed as one JSON value per line; of CBOR, bytes as {"$hex":"0aff"} and tags as
{"$tag":1,"$value":0}, which `ds append --cbor` understands. Other streams are printed as they are.

With --cursor FILE reading goes on where the last run ended; the file is saved after each batch that was printed.
"""
TAIL_TEXT = """\
Ends when the stream is closed. A broken connection is made again, and nothing is lost or repeated.

"""
FORK_TEXT = """\
The content is shared, not copied; from there on the two are independent.
"""


def _add_connection(parser: Any) -> None:
    group = parser.add_argument_group("connection")
    group.add_argument("--url", metavar="URL", help="what a path is below (default: STREAM_URL)")
    group.add_argument("--auth", metavar="VALUE",
        help="the Authorization header (default: STREAM_AUTH, which other users here do not see)")  # fmt: skip
    group.add_argument("--header", "-H", action="append", default=[], metavar="HEADER", help="send 'Name: value' too")
    group.add_argument("--timeout", type=_time, default=10.0, metavar="S",
        help="seconds without an answer or progress after which a request has failed (default: 10)")  # fmt: skip
    group.add_argument("--ca", metavar="FILE", help="https: the CA certificates to trust (default: the system's)")
    group.add_argument("--pin", metavar="SHA256", help="https: trust only the certificate with this fingerprint")
    group.add_argument("--insecure", action="store_true", help="https: trust anybody")
    group.add_argument("--quiet", "-q", action="store_true", help="no progress, no confirmation")


def _add_type(parser: Any, what: str) -> None:
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--content-type", metavar="TYPE", help="content type " + what)
    for name, value in (("--json", JSON), ("--cbor", CBOR), ("--text", "text/plain")):
        group.add_argument(name, dest="content_type", action="store_const", const=value, help=f"the same as {value}")


def _add_expiry(parser: Any) -> None:
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--ttl", type=_whole, metavar="S", help="delete it when it was not used for S seconds")
    group.add_argument("--expires-at", metavar="TIME", help="delete it at this time, such as 2027-01-31T12:00:00Z")


def _add_reading(parser: Any, start: str) -> None:
    parser.add_argument("--offset", metavar="OFFSET", help=f"where to begin: -1, now, or an offset (default: {start})")
    parser.add_argument("--cursor", metavar="FILE", help="go on where FILE says, and keep it up to date")
    parser.add_argument("--raw", action="store_true", help="the bytes as the server sends them")


def _add_patience(parser: Any, default: str, when: str) -> None:
    parser.add_argument("--retry-for", type=_patience, default=_patience(default), metavar="S",
        help=f"{when}give up after S seconds without progress, or 'forever' never (default: {default})")  # fmt: skip


def _whole(text: str) -> int:
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number")
    return int(text)


def _time(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value <= 86400:
        raise argparse.ArgumentTypeError(f"'{text}' is not a time; give seconds, more than 0 and at most 86400")
    return value


def _patience(text: str) -> float | None:
    return None if text == "forever" else _time(text)


def _bytes(text: str) -> int:
    found = re.fullmatch(r"([1-9]\d{0,9})([KMkm]?)", text)
    value = int(found[1]) << {"": 0, "k": 10, "m": 20}[found[2].lower()] if found else 0
    if not 1 <= value <= 1 << 30:
        raise argparse.ArgumentTypeError(f"'{text}' is not a size; give bytes, such as 65536, 64K or 1M")
    return value


# --------------------------------------------------------------------------------
# Streams


def url_of(stream: str, base: str) -> str:
    """The URL of a stream given as URL or path. Raises Usage."""
    if "://" not in stream:
        stream = quote(stream, safe=_PATH)
        where = base if "://" in base else "http://" + base
        parts = urlsplit(where)
        root = f"{parts.scheme}://{parts.netloc}"
        if stream.startswith("/"):
            stream = root + stream
        else:
            stream = f"{root}{parts.path.rstrip('/') or ROOT.rstrip('/')}/{stream}"
    head, found, query = stream.partition("?")
    scheme, _, rest = head.partition("://")
    host, _, path = rest.partition("/")
    if scheme.lower() not in ("http", "https") or not host or not path or "#" in stream:
        raise Usage(f"'{stream}' is not a stream; a stream is a URL with http or https, or a path below STREAM_URL")
    if "@" in host:
        raise Usage("a URL with a password is not understood; use STREAM_AUTH or --auth")
    try:
        if urlsplit(stream).port == 0:
            raise ValueError
    except ValueError:
        raise Usage(f"'{host}' is not a host and a port") from None
    return f"{scheme.lower()}://{host}/{quote(path, safe=_PATH)}{found}{query}"


def connect(options: argparse.Namespace, content_type: str | None = None, stream: str | None = None) -> Any:
    """The stream of a command. Nothing is sent yet. Raises Usage."""
    base = options.url or os.environ.get("STREAM_URL") or f"http://127.0.0.1:{DEFAULT_PORT}"
    url = url_of(stream or options.stream, base)
    url, _, query = url.partition("?")
    headers = {}
    auth = os.environ.get("STREAM_AUTH") if options.auth is None else options.auth
    if auth:
        headers["Authorization"] = auth.strip()
    for header in options.header:
        name, found, value = header.partition(":")
        if not found or not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name):
            raise Usage(f"'{header}' is not a header; give 'Name: value'")
        headers[name] = value.strip()
    tls: dict[str, object] = {}
    if options.ca:
        tls["ca"] = options.ca
    if options.pin:
        tls["pin"] = options.pin
    if options.insecure:
        tls["verify"] = False
    if tls and not url.startswith("https:"):
        raise Usage("--ca, --pin and --insecure are for https")
    for value in (*headers.values(), content_type or ""):
        if re.search(r"[\0-\x08\x0a-\x1f\x7f]", value) or not value.isascii():
            raise Usage(f"{value!r} cannot be sent in a header")
    try:
        return Stream(
            url,
            content_type=content_type or CBOR,
            headers=headers,
            params=dict(parse_qsl(query, keep_blank_values=True)),
            timeout=options.timeout,
            buffer=BUFFER,
            **tls,
        )
    except ValueError as exc:
        raise Usage(f"{url}: {exc}") from None


def say(options: argparse.Namespace, text: str) -> None:
    if not options.quiet:
        print(printable(text))


# --------------------------------------------------------------------------------
# Commands


def _create(options: argparse.Namespace, signals: Signals) -> int:
    stream = connect(options, options.content_type)
    done = stream.create(**_expiry(options))
    say(options, f"{'created' if done.status == 201 else 'exists'} {stream.url}")
    return 0


def _expiry(options: argparse.Namespace) -> dict[str, object]:
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
    done = stream.close()
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
        "ttl": int(ttl) if ttl.isdigit() else None,
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


def _print(options: argparse.Namespace, signals: Signals, live: str | None) -> int:
    stream = connect(options)
    file = place = None
    if options.cursor:
        file = CursorFile(options.cursor, stream.url, "bytes" if options.raw else "items")
        place = file.load()
    # Now, not in the middle: what cannot work says so at once, and "now" becomes an offset that a cursor can keep.
    head = stream.head()
    if place is None:
        start = options.offset or ("now" if live and not file else "-1")
        place = head.offset if start == "now" else start, 0
    kind = "bytes" if options.raw else kind_of(head.headers.get("content-type", ""))
    progress = Progress(not options.quiet and not live and not sys.stdout.isatty())
    output = Output(kind, place, file, progress, signals)
    if file:
        file.save(place)
    try:
        for item in stream.read(
            output.position, live=live, patience=options.retry_for, limit=MAX_ITEM, raw=options.raw
        ):
            output.write(item)
        output.save()
    except (Stopped, StreamError):
        progress.clear()
        output.save()
        raise
    finally:
        progress.clear()
    return 0


# --------------------------------------------------------------------------------
# Appending


def _append(options: argparse.Namespace, signals: Signals) -> int:
    if options.records and options.file:
        raise Usage("give records or --file, not both")
    if options.producer_state and not options.producer:
        raise Usage("--producer-state needs --producer")
    if options.producer is not None and not options.producer:
        raise Usage("--producer needs an id that is not empty")
    content_type = options.content_type or (JSON if options.json else CBOR if options.cbor else None)
    stream = connect(options, content_type)
    if content_type is None:
        content_type = _patiently(options, stream.head).headers.get("content-type") or "application/octet-stream"
        stream.content_type = content_type
    kind = kind_of(content_type)
    if (options.json and kind != "json") or (options.cbor and kind != "cbor"):
        raise Usage(f"--json and --cbor do not go with content type {content_type}")
    if options.raw and kind == "json":
        raise Usage("a JSON stream takes JSON, one value per line; leave out --raw")
    source = _source(options, kind)
    if options.file is None and not options.records and os.isatty(0) and not options.quiet:
        print("reading records from the terminal, one per line; Ctrl-D ends them", file=sys.stderr)
    raw = options.raw and kind == "bytes"
    batches = Batches(source, content_type, kind == "json", raw, options.batch, random(1 << 30))
    if options.producer_state:
        unit = "bytes" if raw else "records"
        batches.resume(State(options.producer_state, stream.url, options.producer or "", unit))
    progress = Progress(not options.quiet, source.total)
    sender = _Once(stream, options, batches) if options.producer else _Plain(stream, batches)
    try:
        while batches.wait():
            sender.send(lambda: progress.at(source.taken, 0 if raw else batches.acknowledged))
    except (StreamError, Stopped) as exc:
        exc.add_note(_so_far(batches, sender.unsure, raw))
        raise
    finally:
        progress.clear()
        source.close()
        batches.save()
    if batches.trouble:
        batches.trouble.add_note(_so_far(batches, False, raw))
        raise batches.trouble
    if not options.quiet and sys.stderr.isatty():
        print(_so_far(batches, False, raw), file=sys.stderr)
    return 0


def _so_far(batches: Batches, unsure: bool, raw: bool) -> str:
    what = size(batches.sent) if raw else f"{batches.acknowledged} record{'' if batches.acknowledged == 1 else 's'}"
    text = f"appended {what}"
    if batches.skipped:
        text += f", after {batches.skipped} of an earlier run"
    if unsure and batches.records:
        more = "the next request" if raw else f"the next {batches.records}"
        text += f"; {more} may or may not have been (--producer avoids this)"
    return text


def _source(options: argparse.Namespace, kind: str) -> Source:
    def json_text(text: bytes) -> bytes:
        json.loads(text.decode(), parse_constant=_no_constant)
        return text.strip()

    def cbor_item(text: bytes) -> bytes:
        value = json.loads(text.decode(), parse_constant=_no_constant)
        return cbor.encode(item_of(value) if b'"$' in text or b"\\u" in text else value)

    def text_line(text: bytes) -> bytes:
        return text + b"\n"

    encode = {"json": json_text, "cbor": cbor_item, "bytes": text_line}[kind]
    if not options.records:
        splitter: Callable[[], Any] = lambda: Lines(encode, kind == "bytes")  # noqa: E731
        if options.raw:
            splitter = Items if kind == "cbor" else Raw
        return Source(options.file or ["-"], splitter)
    records = []
    for number, record in enumerate(options.records, 1):
        data = os.fsencode(record)
        try:
            if options.raw and kind == "cbor":
                raise ValueError("encoded CBOR comes from a file or standard input")
            records.append(data if options.raw else encode(data))
        except (ValueError, TypeError, RecursionError) as exc:
            raise Usage(f"record {number}, '{printable(record)[:60]}', is not a JSON value: {exc}") from None
    return Source([], Raw, filter(None, records))


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


def _patiently(options: argparse.Namespace, call: Callable[[], Any]) -> Any:
    """With a producer, a server that is away is waited for from the beginning on."""
    backoff = Backoff(random)
    since = time.monotonic()
    while True:
        try:
            return call()
        except StreamError as exc:
            wait = backoff.delay(exc.retry_after) / 1000
            waited = time.monotonic() - since + wait
            patience = options.retry_for
            if not exc.retry or not options.producer or (patience is not None and waited > patience):
                raise
            time.sleep(wait)


class _Plain:
    """One POST after the other, none of them twice."""

    def __init__(self, stream: Any, batches: Batches) -> None:
        self._stream = stream
        self._batches = batches
        self.unsure = False

    def send(self, progressed: Callable[[], None]) -> None:
        batch = self._batches.batch(0)
        if batch:
            self.unsure = True
            try:
                self._stream.append(batch.body, raw=True)
            except StreamError as exc:
                self.unsure = not 400 <= exc.status < 500
                raise
            self.unsure = False
            self._batches.done()
            progressed()


class _Once:
    """The device's outbox, with the input as its store."""

    unsure = False

    def __init__(self, stream: Any, options: argparse.Namespace, batches: Batches) -> None:
        self._box = Outbox(None, stream, options.producer, in_flight=IN_FLIGHT)
        self._box.store = batches
        self._box.writer = Writer(batches, options.producer, Backoff(random), IN_FLIGHT)
        self._patience = FOREVER if options.retry_for is None else options.retry_for
        self._batches = batches
        self._url = stream.url
        self._error: StreamError | None = None
        self._since = time.monotonic()
        self._count = -1

    def send(self, progressed: Callable[[], None]) -> None:
        """Send for a while; raises the last error when nothing got through for too long."""
        # No new batch after a second, so that what is under way is answered before the flush ends.
        self._batches.until = time.monotonic() + 1
        if not self._batches.records:
            self._since = time.monotonic()
        left = self._since + self._patience - time.monotonic()
        left = self._box.flush(min(30.0, max(left, 0.1)))
        self._error = self._box.error or self._error
        if self._box.writer.sent != self._count:
            self._count = self._box.writer.sent
            self._since = time.monotonic()
            progressed()
        elif left and time.monotonic() - self._since >= self._patience:
            raise self._error or Disconnected("nothing got through", url=self._url)
        elif left:
            time.sleep(0.1)  # the server asked for a pause


# --------------------------------------------------------------------------------
# The end


def run(options: argparse.Namespace) -> int:
    """Run a client command; the exit status."""
    signals = Signals()
    try:
        status = options.act(options, signals)
        sys.stdout.flush()
        return int(status)
    except BrokenPipeError:
        return _broken_pipe()
    except (Usage, CursorError, StateError, Stopped, StreamError, InputError, OSError) as exc:
        status, text = _verdict(exc)
        if text:
            text = "; ".join([text, *getattr(exc, "__notes__", [])])
            if isinstance(exc, Stopped) and options.command in ("read", "tail"):
                text = ""
    try:
        sys.stdout.flush()
    except OSError:
        _discard_output()
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
    if message and "<" not in message[:1]:
        text += f": {message[:300]}"
    hint = exc.hint
    if exc.status == 401:
        hint = "; STREAM_AUTH or --auth gives credentials"
    elif exc.status == 413:
        hint = "; --batch 64K makes requests smaller"
    return f"{text}{hint} ({exc.url})"


def _discard_output() -> None:
    """What is still buffered has nobody to go to."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)


def _broken_pipe() -> int:
    """End as if by SIGPIPE, as filters do; only the sockets must not."""
    _discard_output()
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGPIPE)
    return 128 + signal.SIGPIPE
