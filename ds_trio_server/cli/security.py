"""The doors of ``ds serve``: who may connect and how, and what the operator tells a running server.

Without an access file a server is for its own machine: it listens on nothing but loopback addresses
unless the operator insists. SIGHUP has it read access file, certificate and key anew; what can't be
used is left alone and named in one line.
"""

import argparse
import logging
import signal
import socket
from collections.abc import AsyncIterator, Callable, Sequence

import trio

from .. import server
from ..access import file as access_file
from ..http.tls import TLS, TLSFileError
from ..ops import systemd
from ..ops.endpoints import is_loopback
from ..ops.logs import FORMATS

log = logging.getLogger("ds")

OPTIONS = ("access", "tls-cert", "tls-key", "tls-client-ca", "log-format")
"""Those with a value, as environment variables name them too."""


class Refused(Exception):
    """The server must not start like this; one line for the operator."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what this module understands."""
    add = parser.add_argument
    who = parser.add_mutually_exclusive_group()
    who.add_argument("--access", metavar="FILE", help="let in who has a token; see 'ds token' (default: loopback only)")
    who.add_argument("--insecure-open", action="store_true", help="let everybody who can connect do everything")
    add("--tls-cert", metavar="FILE", help="certificate chain in PEM format: serve https")
    add("--tls-key", metavar="FILE", help="its private key")
    add("--tls-client-ca", metavar="FILE", help="ask clients for certificates that these sign; with --access their "
        "names have the rights of tokens, without it everybody needs one")  # fmt: skip
    add("--log-format", choices=FORMATS, default="text", help="how log lines look (default: %(default)s)")


class Doors:
    """The access control and TLS of one server. Raises Refused."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.access: access_file.Access | None = None
        self.tls: TLS | None = None
        self._open = bool(options.insecure_open)
        self._certified = options.tls_client_ca is not None
        if (options.tls_cert is None) != (options.tls_key is None):
            raise Refused("TLS needs both --tls-cert and --tls-key")
        if self._certified and options.tls_cert is None:
            raise Refused("--tls-client-ca is for a server with TLS: give --tls-cert and --tls-key too")
        try:
            if options.access is not None:
                self.access = access_file.Access(options.access)
            if options.tls_cert is not None:
                self.tls = TLS(options.tls_cert, options.tls_key, options.tls_client_ca, self.access is None)
        except (access_file.AccessFileError, TLSFileError) as error:
            raise Refused(str(error)) from None

    @property
    def scheme(self) -> str:
        """What the server's URLs begin with."""
        return "http" if self.tls is None else "https"

    def check(self, listeners: Sequence[socket.socket]) -> None:
        """Say in one line who can come in. Raises Refused when that would be anybody and nobody said so."""
        local = all(is_loopback(listener.getsockname()[0]) for listener in listeners)
        if self.access is not None:
            log.info("access control by %s", self.access)
            _warn(self.access)
            if self.tls is None and not local:
                log.warning("tokens travel unencrypted; give --tls-cert and --tls-key, or put a TLS proxy in front")
        elif self._certified:
            log.info("access control: who has a client certificate may do everything")
        elif local:
            log.info("no access control: only programs on this machine can connect, and they may do everything")
        elif self._open:
            log.warning("no access control: who can reach this server may read, write and delete everything")
        else:
            raise Refused(
                "without --access FILE this server listens on loopback addresses only; make a file with "
                "'ds token new', or give --insecure-open if everybody who can connect may do everything"
            )

    async def reload(self) -> None:
        """Read all files anew, keeping what was there for each that can't be used."""
        for what in (self.access, self.tls):
            if what is None:
                continue
            try:
                await trio.to_thread.run_sync(what.reload)
            except (access_file.AccessFileError, TLSFileError) as error:
                log.error("not reloaded, the old one stays: %s", error)
            else:
                log.info("reloaded %s", what)
                if isinstance(what, access_file.Access):
                    _warn(what)

    def signals(self) -> tuple[signal.Signals, ...]:
        """The signals that mean something. SIGHUP is left alone when there is nothing to reload."""
        reloads = (signal.SIGHUP,) if self.access is not None or self.tls is not None else ()
        return (signal.SIGTERM, signal.SIGINT, *reloads)

    async def obey(self, signals: AsyncIterator[int], stop: Callable[[], None]) -> None:
        """Do what signals say, for ever."""
        async for number in signals:
            log.info("got %s", signal.Signals(number).name)
            if number == signal.SIGHUP:
                systemd.reloading()
                await self.reload()
                systemd.ready()
            else:
                systemd.stopping()
                stop()

    def announce(self, listeners: Sequence[socket.socket]) -> None:
        """Tell who started the server that it accepts, and where."""
        for listener in listeners:
            print(f"listening on {server.url_of(listener, self.scheme)}", flush=True)
        systemd.ready()


def _warn(control: access_file.Access) -> None:
    if access_file.open_to_others(control.file):
        log.warning("%s can be read by every account of this machine; chmod 600 it", control.file)
