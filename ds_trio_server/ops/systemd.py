"""systemd's readiness protocol (sd_notify(3)): ready, reloading, stopping, and a sign of life.

Without `NOTIFY_SOCKET` in the environment all of this does nothing.
"""

import os
import socket
import time

import trio


def notify(state: str) -> bool:
    """Tell the service manager, as `READY=1` or `STOPPING=1`; False when there is none to tell."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address[:1] not in ("/", "@"):
        return False
    if address[0] == "@":
        address = "\0" + address[1:]  # Linux's abstract names
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            sock.sendto(state.encode(), address)
    except OSError:
        return False  # a server that runs must not stop because nobody listens
    return True


def ready() -> bool:
    """The server accepts connections."""
    return notify("READY=1")


def reloading() -> bool:
    """Settings are read anew; `ready` ends it."""
    return notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")


def stopping() -> bool:
    """The orderly end has begun."""
    return notify("STOPPING=1")


def watchdog_interval() -> float | None:
    """Seconds between signs of life, half of what the manager allows; None when it wants none."""
    limit, of = os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID", "")
    if not limit.isdigit() or int(limit) == 0 or of not in ("", str(os.getpid())):
        return None
    return int(limit) / 2e6


async def watchdog() -> None:
    """Give signs of life from the event loop, for ever: a loop that hangs gives none and is restarted."""
    interval = watchdog_interval()
    while interval is not None:
        notify("WATCHDOG=1")
        await trio.sleep(interval)
