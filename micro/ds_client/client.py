"""What an application says of a server once: where it is, who asks, how it is reached, and what to tell of failures."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, ClassVar

from ds_core.client.errors import StreamError
from ds_micro.stream import LONGEST

from .hints import Helpful, helpful
from .links import Pattern, Settings
from .proxies import proxy_for
from .waiting import blocking, running

if TYPE_CHECKING:
    from .session import AsyncSession, Session

Secret = str | Callable[[], str | Awaitable[str]]


@helpful
class Client(Helpful):
    """`Client(base_url, ...)`: a server's streams, below `base_url` (`http://HOST:PORT/v1/stream`).

    `with client as session:` is for threads, any number of which may share the session; `async with` is for asyncio
    and trio. `open()` is for programs whose session lasts as long as they do.

    * `token`: a bearer token, `headers` and `params` (of the query): strings, or callables asked for each request,
      which may be coroutine functions.
    * https: `ca` (a file of CA certificates, or their bytes; None: the system's, or the file that SSL_CERT_FILE
      names), `pin` (the SHA-256 of the server's certificate), `verify=False`.
    * `connections`: how many requests are under way at once; `readers`: how many iterations over streams besides, each
      of which has a connection of its own while it lasts. More of either wait for their turn, for `timeout` seconds.
    * `idle`: seconds after which a connection that nobody needs is not used any more.
    * `timeout`: seconds without progress in each step (a turn, a name's lookup, connecting, TLS, each read and write),
      `live_timeout`: the same, of a live reader's wait.
    * `max_bytes`: the most a server should send in one answer, and so what may be sent again after a break.
    * `trust_env`: go through the proxy that `http_proxy`, `https_proxy`, `all_proxy` and `no_proxy` name, as curl does.
    * `on_error(error, attempt)`: called before what failed is tried again; what it raises ends the attempts.

    ValueError, TypeError: an option is wrong. Nothing is sent before something is asked for.
    """

    elsewhere: ClassVar[dict[str, str]] = dict.fromkeys(
        ("stream", "producer", "close", "aclose"), "a session has it, `with Client(...) as session:`"
    )

    def __init__(
        self,
        base_url: str,
        *,
        token: Secret | None = None,
        headers: Mapping[str, Secret] | None = None,
        params: Mapping[str, object] | None = None,
        ca: str | bytes | None = None,
        pin: str | None = None,
        verify: bool = True,
        connections: int = 32,
        readers: int = 1000,
        idle: float = 4,
        timeout: float = 10,
        live_timeout: float = 90,
        max_bytes: int = 1 << 20,
        trust_env: bool = True,
        on_error: Callable[[StreamError, int], object] | None = None,
    ) -> None:
        if "?" in base_url:
            raise ValueError("base_url: without a query, which params= is for")
        for name, count in (("connections", connections), ("readers", readers)):
            if type(count) is not int or count < 1:
                raise ValueError(f"{name}: a whole number from 1 on")
        if not 0 <= idle <= LONGEST:
            raise ValueError(f"idle: 0 to {LONGEST} seconds")
        if on_error is not None and not callable(on_error):
            raise TypeError("on_error: a function of an error and the number of the attempt")
        self.base_url = base_url.rstrip("/")
        given = {"ca": ca, "pin": pin, "verify": verify}
        tls = {name: value for name, value in given.items() if value is not None and value is not True}
        if isinstance(ca, str) and base_url.startswith("https:"):
            with open(ca, "rb"):
                pass  # OSError here, with its name
        url = self.base_url + "/"
        steps = (timeout, live_timeout, 64, max_bytes)
        self._settings = Settings(
            self.base_url,
            Pattern(url, token, None, headers, params, *steps, **tls),  # type: ignore[arg-type]
            proxy_for(url) if trust_env else None,
            connections,
            readers,
            int(idle * 1000),
            int(timeout * 1000),
            max_bytes,
            on_error,
        )
        self._session: Session | None = None
        self._async_session: AsyncSession | None = None

    def __repr__(self) -> str:
        return f"<Client {self.base_url}>"

    def open(self) -> Session:
        """A session for threads, until its `close()`."""
        from .session import Session

        return Session(self._settings, blocking())

    def __enter__(self) -> Session:
        self._enter()
        self._session = self.open()
        return self._session

    def _enter(self) -> None:
        # Which of two would be left?
        if self._session or self._async_session:
            raise RuntimeError("in a `with` already: share its session, or make another Client")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        session, self._session = self._session, None
        if session:
            session.close()

    async def __aenter__(self) -> AsyncSession:
        from .session import AsyncSession

        self._enter()
        self._async_session = AsyncSession(self._settings, running())
        return self._async_session

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        session, self._async_session = self._async_session, None
        if session:
            await session.aclose()
