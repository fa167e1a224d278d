"""systemd's readiness protocol: what a service manager hears, and when."""

from __future__ import annotations

import os
import socket
import sys
import tempfile
from collections.abc import Iterator

import pytest
import trio
from trio.testing import MockClock

from ds_trio_server.ops import systemd


class Manager:
    """The receiving end of NOTIFY_SOCKET."""

    def __init__(self, address: str) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.bind(address)
        self.sock.settimeout(10)

    def next(self) -> str:
        return self.sock.recv(4096).decode()

    def waiting(self) -> list[str]:
        self.sock.setblocking(False)
        found = []
        try:
            while True:
                found.append(self.next())
        except BlockingIOError:
            return found


@pytest.fixture
def manager(monkeypatch: pytest.MonkeyPatch) -> Iterator[Manager]:
    # Names of sockets are short, and those of pytest's folders are not everywhere.
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        address = folder + "/notify"
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        for name in ("WATCHDOG_USEC", "WATCHDOG_PID"):
            monkeypatch.delenv(name, raising=False)
        manager = Manager(address)
        yield manager
        manager.sock.close()


def test_what_is_said(manager: Manager) -> None:
    assert systemd.ready() and systemd.stopping() and systemd.reloading()
    first, second, third = manager.waiting()
    assert (first, second) == ("READY=1", "STOPPING=1")
    reloading, when = third.split("\n")
    assert reloading == "RELOADING=1" and when.removeprefix("MONOTONIC_USEC=").isdigit()


@pytest.mark.skipif(sys.platform != "linux", reason="abstract socket names are Linux's")
def test_abstract_names(monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"ds-test-{os.getpid()}"
    manager = Manager("\0" + name)
    monkeypatch.setenv("NOTIFY_SOCKET", "@" + name)
    assert systemd.ready() and manager.next() == "READY=1"
    manager.sock.close()


@pytest.mark.parametrize("address", [None, "", "relative", "/does/not/exist"])
def test_nobody_to_tell(monkeypatch: pytest.MonkeyPatch, address: str | None) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    if address is not None:
        monkeypatch.setenv("NOTIFY_SOCKET", address)
    assert not systemd.ready()


async def test_signs_of_life(manager: Manager, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "30000000")
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    with trio.move_on_after(70):
        await systemd.watchdog()
    assert manager.waiting() == ["WATCHDOG=1"] * 5


@pytest.mark.parametrize("usec, pid", [("", ""), ("0", ""), ("x", ""), ("30000000", "1")])
async def test_no_watchdog(monkeypatch: pytest.MonkeyPatch, usec: str, pid: str) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", usec)
    monkeypatch.setenv("WATCHDOG_PID", pid)
    await systemd.watchdog()
