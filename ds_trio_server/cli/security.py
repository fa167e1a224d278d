"""Who may connect to `ds serve` and how, by its options; what SIGHUP reads anew.

Without an access file a server is for its own machine: it listens on nothing but loopback addresses
unless the operator insists. A file that can't be used at a reload is left alone and named in one line.
"""

import logging
import socket
from collections.abc import Sequence
from typing import TYPE_CHECKING

import trio

from ..access import ANYWHERE, CERTIFIED, LOOPBACK, NETWORK, Origins
from ..config import Unusable
from ..http.listeners import is_local
from .parser import Usage
from .serve_options import Settings

if TYPE_CHECKING:
    from ..access import Access
    from ..http.tls import TLS

log = logging.getLogger("ds")

_LONGEST = 20


class Security:
    """The access control and TLS of one server. Raises Usage for what can't be used or makes no sense."""

    def __init__(self, settings: Settings) -> None:
        self.access: Access | None = None
        self.tls: TLS | None = None
        self.origins = Origins()
        self._settings = settings
        if (settings.tls_cert is None) != (settings.tls_key is None):
            raise Usage("TLS needs both --tls-cert and --tls-key")
        if settings.tls_client_ca is not None and settings.tls_cert is None:
            raise Usage("--tls-client-ca is for a server with TLS: give --tls-cert and --tls-key too")
        if settings.access is not None and (settings.allow_host or settings.cors):
            # Not one of the options that exclude each other: on a command line that would put a variable aside.
            raise Usage("--allow-host and --cors are for a server without --access, where every page needs a token")
        try:
            # Late imports: who uses neither doesn't load them.
            if settings.access is not None:
                from ..access import file as access_file

                self.access = access_file.Access(settings.access)
            if settings.tls_cert is not None and settings.tls_key is not None:
                from ..http import tls

                self.tls = tls.TLS(settings.tls_cert, settings.tls_key, settings.tls_client_ca, self.access is None)
        except Unusable as error:
            raise Usage(str(error)) from None

    @property
    def scheme(self) -> str:
        """What the server's URLs begin with."""
        return "http" if self.tls is None else "https"

    def check(self, listeners: Sequence[socket.socket]) -> None:
        """Say in one line who can come in. Raises Usage when that would be anybody and nobody said so."""
        local = all(map(is_local, listeners))
        reach = ANYWHERE if self.access else LOOPBACK if local else NETWORK if self.tls is None else CERTIFIED
        self.origins = Origins(reach, self._settings.allow_host, self._settings.cors)
        pages = " and of ".join(["this machine", *self._settings.cors])
        if "*" in self._settings.cors:
            pages = "everybody"
        if self.access is not None:
            log.info("access control by %s", self.access)
            self._warn()
            if self.tls is None and not local:
                log.warning("tokens travel unencrypted; give --tls-cert and --tls-key, or put a TLS proxy in front")
        elif self._settings.tls_client_ca is not None:
            log.info("access control: who has a client certificate may do everything, with web pages of %s", pages)
        elif local:
            log.info("no access control: only programs on this machine can connect, and web pages of %s; they may do "
                     "everything", pages)  # fmt: skip
        elif self._settings.insecure_open:
            log.warning("no access control: who can reach this server may read, write and delete everything")
        else:
            raise Usage(
                "without --access FILE this server listens on loopback addresses only; make a file with "
                "'ds token new', or give --insecure-open if everybody who can connect may do everything"
            )

    async def reload(self) -> None:
        """Read all files anew, keeping what was there for each that can't be used. May be cancelled."""
        if self.access is None and self.tls is None:
            log.info("nothing to reload: there is no access file and no certificate")
        for what in (self.access, self.tls):
            if what is None:
                continue
            try:
                # A thread that hangs on a dead disk, or reads what is no file, is left behind: it must not keep the
                # server from ending, or from the next reload; and what it finds in the end is older than that.
                with trio.fail_after(_LONGEST):
                    take = await trio.to_thread.run_sync(what.look, abandon_on_cancel=True)
                take()
            except trio.TooSlowError:
                log.error("not reloaded, the old one stays: reading %s takes longer than %d s", what, _LONGEST)
            except Unusable as error:
                log.error("not reloaded, the old one stays: %s", error)
            except Exception:
                log.exception("not reloaded, the old one stays: a fault of ours with %s", what)
            else:
                log.info("reloaded %s", what)
                if what is self.access:
                    self._warn()

    def _warn(self) -> None:
        from ..access.file import open_to_others  # late, as above

        if self.access is not None and open_to_others(self.access.file):
            log.warning("%s can be read by every account of this machine; chmod 600 it", self.access.file)
