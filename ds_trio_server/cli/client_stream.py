"""Which stream a client command means, and how it is reached."""

import argparse
import os
import re
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit

from ds_core.wire.names import DEFAULT_PORT, ROOT
from ds_micro import Stream

from .client_options import CBOR
from .parser import Usage

BUFFER = 1 << 16
# Of a stream in one answer: what is read anew after a break. A server gives more to those who don't ask.
ANSWER = 1 << 20
# What a path may have besides letters and digits (RFC 3986), and "%" of what is encoded already.
_PATH = "/%:@!$&'()*+,;=~-._"


def url_of(stream: str, base: str) -> str:
    """The URL of a stream given as URL or path. Raises Usage."""
    if "://" not in stream:
        stream = quote(stream, safe=_PATH)
        where = base if "://" in base else "http://" + base
        try:
            parts = urlsplit(where)
        except ValueError:
            raise Usage(f"'{base}' is not a URL; an IPv6 address is written as http://[::1]:{DEFAULT_PORT}") from None
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
        raise Usage(f"'{host}' is not a host and a port; an IPv6 address is in brackets, such as [::1]") from None
    return f"{scheme.lower()}://{host}/{quote(path, safe=_PATH)}{found}{query}"


def connect(options: argparse.Namespace, content_type: str | None = None, stream: str | None = None) -> Stream:
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
        if name.lower() in ("host", "content-length", "transfer-encoding", "connection"):
            raise Usage(f"'{name}' is of the connection; --header is for others")
        headers[name] = value.strip()
    tls: dict[str, Any] = {}
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
            max_bytes=ANSWER,
            **tls,
        )
    except ValueError as exc:
        raise Usage(f"{url}: {exc}") from None
