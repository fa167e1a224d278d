"""One client may have so many connections and no more, where the operator says so."""

from __future__ import annotations

import gc
import socket
import tracemalloc

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from ds_trio_server.addresses import client_of
from ds_trio_server.cli.main import main
from ds_trio_server.config import Config
from tests.server.site import ROOT, request, running

S = ROOT + "s"


async def test_a_client_with_too_many_connections_is_429_and_others_are_served() -> None:
    async with running(max_per_client=3) as site:
        clients = [await site.connect("127.0.0.1") for _ in range(3)]
        for client in clients:
            assert (await client.ask("GET", S)).status == 404
        fourth = await site.connect("127.0.0.1")
        answer = await fourth.ask("GET", S)
        assert (answer.status, answer.code) == (429, "TOO_MANY_CONNECTIONS")
        assert (answer.header("retry-after"), answer.header("connection")) == ("5", "close")
        await fourth.ended()
        try:
            other = await site.connect("127.0.0.2")
        except OSError:
            pytest.skip("this machine has one loopback address only")
        assert (await other.ask("GET", S)).status == 404
        for client in clients:
            assert (await client.ask("GET", S)).status == 404, "who is in stays in"


@pytest.mark.parametrize("how", ["at rest", "half a head", "live", "reset"])
async def test_a_place_is_free_again_however_its_connection_ended(how: str) -> None:
    async with running(max_per_client=2) as site:
        await site.create("s")
        for _ in range(4):
            clients = [await site.connect() for _ in range(2)]
            for client in clients:
                if how == "half a head":
                    await client.send(request("GET", S)[:20])
                elif how == "live":
                    await client.send(request("GET", S + "?offset=now&live=sse"))
                    await client.events()
                elif how == "reset":
                    await client.ask("GET", S)
                    client.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            await wait_all_tasks_blocked(0.01)
            assert list(site.server._clients.values()) == [2]
            for client in clients:
                client.close()
            await wait_all_tasks_blocked(0.01)
            assert site.server._clients == {}


async def test_a_flood_of_connections_leaves_nothing_behind() -> None:
    async with running(max_per_client=5, max_connections=8) as site:
        statuses = []

        async def come() -> None:
            client = await site.connect()
            statuses.append((await client.ask("GET", S)).status)

        async with trio.open_nursery() as nursery:
            for _ in range(60):
                nursery.start_soon(come)
        assert sorted(statuses) == [404] * 5 + [429] * 55
        assert site.server.app.stats.rejected[(429, "TOO_MANY_CONNECTIONS")] == 55, "as /metrics shows it"
        site.disconnect()
        await wait_all_tasks_blocked(0.01)
        assert site.server._clients == {} and site.server._turning_away == 0


async def test_without_the_option_there_is_no_limit_and_no_count() -> None:
    async with running() as site:
        for _ in range(50):
            assert (await (await site.connect()).ask("GET", S)).status == 404
        assert site.server._clients == {}


def test_a_client_of_ipv6_is_its_network() -> None:
    assert client_of("192.0.2.1") != client_of("192.0.2.2")
    assert client_of("2001:db8::1") == client_of("2001:db8:0:0:ffff::2") != client_of("2001:db8:0:1::1")
    assert client_of("fe80::1%eth0") == client_of("fe80::2%eth0")


def test_the_limit_is_checked() -> None:
    with pytest.raises(ValueError, match="max-per-client"):
        Config(max_per_client=-1)


@pytest.mark.parametrize("text", ["0", "-1", "many", "1e3", "", "1000000", "²"])
def test_a_limit_that_is_none_is_refused(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit:
        main(["serve", "--max-per-client", text])
    assert exit.value.code == 2 and "--max-per-client" in capsys.readouterr().err


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
async def test_a_connection_that_is_answered_takes_nobodys_place(method: str) -> None:
    async with running(max_per_client=1) as site:
        setup = await site.connect("127.0.0.2")
        await setup.ask("PUT", S, b"", content_type="text/plain")
        for _ in range(50):
            client = await site.connect()
            body = b"x" if method == "POST" else None
            answer = await client.ask(method, S, body, content_type="text/plain", connection="close")
            assert answer.status in (200, 204)
            await client.ended()
            client.close()
        await wait_all_tasks_blocked(0.01)
        assert site.server._parting == 0


async def test_what_lingers_holds_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running() as site:
        await site.create("s", body=b"x" * 60_000)
        clients = [await site.connect() for _ in range(20)]
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        for client in clients:
            assert (await client.ask("GET", S, connection="close")).status == 200
            client.buffer = b""
        await wait_all_tasks_blocked(0.01)
        gc.collect()
        held = tracemalloc.get_traced_memory()[0] - before
        tracemalloc.stop()
        assert site.server._parting == 20 and held < 10 * 60_000
