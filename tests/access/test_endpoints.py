"""What operators ask: alive, ready, metrics; and how the server's lines look."""

from __future__ import annotations

import builtins
import json
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio
from prometheus_client.parser import text_string_to_metric_families

from ds_trio_server.access.file import Access
from ds_trio_server.ops import logs
from ds_trio_server.ops.endpoints import is_loopback
from ds_trio_server.ops.metrics import Snapshot, exposition
from ds_trio_server.stats import Commits, Histogram, Shows, Stats, Upkeep
from ds_trio_server.store.base import StorageFailed, StorageFull, Usage
from ds_trio_server.store.memory import MemoryStore
from ds_trio_server.store.sqlite.engine import SQLiteStore
from ds_trio_server.store.sqlite.space import MinFree
from tests.access.conftest import Keys
from tests.server.site import ROOT, Answer, Site, request, running


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
async def test_alive_and_ready(path: str) -> None:
    async with running() as site:
        client = await site.connect()
        answer = await client.ask("GET", path)
        assert (answer.status, answer.body, answer.header("cache-control")) == (200, b"ok\n", "no-store")
        assert (await client.ask("HEAD", path + "?x=y")).status == 200
        refused = await client.ask("POST", path, b"x")
        assert (refused.status, refused.header("allow")) == (405, "GET, HEAD")
        assert (await client.ask("GET", path, b"a body")).status == 200
        assert (await client.ask("GET", path)).status == 200


class Broken(MemoryStore):
    """A store that takes no appends."""

    problem: Exception = StorageFull()

    def check_writable(self) -> None:
        raise self.problem


async def test_not_ready_when_the_disk_is_full_or_has_failed() -> None:
    store = Broken()
    async with running(store) as site:
        full = await site.ask("GET", "/readyz")
        assert (full.status, full.code, full.header("retry-after")) == (503, "NO_SPACE", "30")
        store.problem = StorageFailed("/secret/path: broken")
        failed = await site.ask("GET", "/readyz")
        assert (failed.status, failed.code) == (503, "STORAGE_FAILED")
        assert b"secret" not in failed.body
        assert (await site.ask("GET", "/healthz")).status == 200


class Crowded(MemoryStore):
    """A store that has room or not, and finds out only when something is to be stored."""

    full = False

    async def transact(self, *args: Any, **kwargs: Any) -> Any:
        if self.full:
            raise StorageFull
        return await super().transact(*args, **kwargs)

    def transact_nowait(self, *args: Any) -> None:
        raise trio.WouldBlock


async def test_not_ready_after_an_append_found_the_disk_full_until_one_is_stored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    store = Crowded()
    async with running(store) as site:

        async def ready() -> int:
            return (await site.ask("GET", "/readyz")).status

        async def append() -> int:
            return (await site.ask("POST", ROOT + "a", b"x", content_type="text/plain")).status

        await site.create("a")
        assert await append() == 204
        assert await ready() == 200
        store.full = True
        now[0] += 1
        assert await append() == 507
        refused = await site.ask("GET", "/readyz")
        assert (refused.status, refused.code, refused.header("retry-after")) == (503, "NO_SPACE", "30")
        assert (await site.ask("GET", ROOT + "a")).status == (await site.ask("GET", "/healthz")).status == 200
        store.full = False
        now[0] += 1
        assert await ready() == 503, "nobody has tried"
        assert await append() == 204
        assert await ready() == 200
        # Where no more appends come, as behind a balancer that asks this, one must be let through again.
        store.full = True
        now[0] += 1
        assert await append() == 507
        now[0] += 29
        assert await ready() == 503
        now[0] += 1
        assert await ready() == 200
        assert await append() == 507
        assert await ready() == 503


async def test_alive_and_ready_need_no_token_and_nothing_else_is_outside(keys: Keys) -> None:
    async with running(access=Access(keys.file)) as site:
        for path in ("/healthz", "/readyz"):
            assert (await site.ask("GET", path)).status == 200
        for path in ("/healthz/", "/healthz2", "/", "/v1/stream/", "//healthz", "/HEALTHZ", "/metrics/x"):
            assert (await site.ask("GET", path)).status in (400, 401, 404), path


async def test_endpoints_in_absolute_form(keys: Keys) -> None:
    async with running(access=Access(keys.file)) as site:
        for path in ("/healthz", "/readyz", "/metrics", "/healthz?x=1"):
            assert (await site.ask("GET", "http://test" + path)).status == 200, path
        assert (await site.ask("POST", "http://test/healthz")).status == 405
        for target in ("http://test", "http://test/", "http://healthz", "http://test/healthz/"):
            assert (await site.ask("GET", target)).status == 404, target
        for target in ("ftp://test/healthz", "healthz", "/healthz#x"):
            assert (await site.ask("GET", target)).code == "INVALID_TARGET", target


def values(answer: Answer) -> dict[str, float]:
    """Samples of an exposition by name and labels."""
    assert answer.status == 200, answer
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(answer.body.decode()):
        for sample in family.samples:
            labels = ",".join(f"{key}={value}" for key, value in sorted(sample.labels.items()))
            found[sample.name + (f"[{labels}]" if labels else "")] = sample.value
    return found


async def test_metrics_count_what_happened() -> None:
    async with running() as site:
        await site.create("a")
        await site.append("a", b"12345")
        await site.append("a", b"678")
        await site.ask("GET", ROOT + "none")
        await site.ask("GET", ROOT + "none")
        await site.ask("GET", ROOT + "a?offset=x")
        reader = await site.connect()
        await reader.send(request("GET", ROOT + "a?offset=now&live=sse"))
        await (await reader.events()).control()
        answer = await site.ask("GET", "/metrics")
        assert answer.headers["content-type"].startswith("text/plain")
        found = values(answer)
    assert found["ds_appends_total"] == 2 and found["ds_append_bytes_total"] == 8
    assert found["ds_commit_appends_count"] == 2 and found["ds_commit_appends_bucket[le=1]"] == 2
    assert found["ds_commit_seconds_count"] == 2
    assert found["ds_rejected_total[code=STREAM_NOT_FOUND,status=404]"] == 2
    assert sum(value for name, value in found.items() if name.startswith("ds_rejected_total")) == 3
    assert found["ds_live_readers"] == 1 and found["ds_streams"] == 1 and found["ds_store_bytes"] == 8
    assert found["ds_requests_total"] == 8 and found["ds_connections_accepted_total"] == 8
    assert 1 <= found["ds_connections"] <= 8


async def test_all_that_is_counted_is_shown() -> None:
    async with running() as site:
        found = values(await site.ask("GET", "/metrics"))
    counters = {name for kind in (Stats, Commits, Upkeep) for name, _ in kind.COUNTERS.values()}
    assert {f"{name}_total" for name in counters} <= set(found)
    assert {f"{name}_count" for name, _ in Commits.HISTOGRAMS.values()} <= set(found)
    assert {name for name, _ in Upkeep.GAUGES.values()} <= set(found)


async def test_metrics_of_a_store_on_disk(tmp_path: Path) -> None:
    async with running(SQLiteStore(tmp_path)) as site:
        await site.create("a")
        for number in range(5):
            await site.append("a", b"%d" % number)
        found = values(await site.ask("GET", "/metrics"))
        assert (await site.ask("GET", "/readyz")).status == 200
    assert found["ds_appends_total"] == found["ds_append_bytes_total"] == found["ds_commit_appends_count"] == 5
    assert found["ds_commit_seconds_count"] == 6 and found["ds_commit_seconds_sum"] > 0
    assert found["ds_streams"] == 1 and found["ds_store_bytes"] > 4096


async def test_a_large_append_counts_once_however_it_is_stored(tmp_path: Path) -> None:
    async with running(SQLiteStore(tmp_path)) as site:
        await site.create("a", body=b"x" * 3_000_000)
        await site.append("a", b"y" * 8_000_000)
        await site.append("a", b"z")
        found = values(await site.ask("GET", "/metrics"))
    assert (found["ds_appends_total"], found["ds_append_bytes_total"]) == (3, 11_000_001)
    assert found["ds_commit_appends_sum"] == 3 and found["ds_store_bytes"] > 11_000_000


async def test_a_disk_below_the_watermark_is_not_ready(tmp_path: Path) -> None:
    async with running(SQLiteStore(tmp_path, min_free=MinFree(bytes=1 << 60))) as site:
        answer = await site.ask("GET", "/readyz")
        assert (answer.status, answer.code) == (503, "NO_SPACE")


async def test_metrics_in_the_format_that_is_asked_for() -> None:
    async with running() as site:
        answer = await site.ask("GET", "/metrics", accept="application/openmetrics-text; version=1.0.0")
        assert answer.headers["content-type"].startswith("application/openmetrics-text")
        assert answer.body.endswith(b"# EOF\n")


async def test_metrics_without_the_library_are_501(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("prometheus_client"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    async with running() as site:
        answer = await site.ask("GET", "/metrics")
        assert (answer.status, answer.code) == (501, "NOT_INSTALLED")


async def test_metrics_are_for_this_machine_and_for_tokens_that_say_so(
    keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    allowed = {"authorization": "Bearer " + keys.token("prometheus", metrics=True)}
    other = {"authorization": "Bearer " + keys.token("other", read=["**"])}
    async with running(access=Access(keys.file)) as site:
        assert (await site.ask("GET", "/metrics")).status == 200
        # A proxy on this machine asks for somebody else.
        for name in ("Forwarded", "X-Forwarded-For", "Via", "X-Real-IP"):
            proxied = {name: "192.0.2.1"}
            assert (await site.ask("GET", "/metrics", **proxied)).status == 401
            assert (await site.ask("GET", "/metrics", **proxied, **other)).status == 403
            assert (await site.ask("GET", "/metrics", **proxied, **allowed)).status == 200
        monkeypatch.setattr("ds_trio_server.ops.endpoints.is_loopback", lambda address: False)
        assert (await site.ask("GET", "/metrics")).status == 401
        assert (await site.ask("GET", "/metrics", **allowed)).status == 200
        assert (await site.ask("GET", ROOT + "a", **allowed)).status == 403


@pytest.mark.parametrize(
    ("address", "here"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("local", True), ("::ffff:127.0.0.1", True),
     ("0.0.0.0", False), ("::", False), ("10.0.0.1", False), ("fe80::1%lo", False), ("", False), ("x", False)],
)  # fmt: skip
def test_addresses_of_this_machine(address: str, here: bool) -> None:
    assert is_loopback(address) is here


def test_histograms_add_up() -> None:
    histogram = Histogram((1, 2, 5))
    for value in (0, 1, 1.5, 5, 6, 100):
        histogram.observe(value)
    assert histogram.cumulative() == [("1", 2), ("2", 3), ("5", 4), ("+Inf", 6)]
    assert histogram.sum == 113.5
    commits = Commits()
    commits.count(3, 30, 0.004)
    commits.count(1, 10, 0.004, 0.003)
    assert (commits.appends, commits.bytes) == (4, 40)
    assert sum(commits.seconds.counts) == 2
    assert (sum(commits.fsync.counts), commits.fsync.sum) == (1, 0.003), "what did not wait for the disk has no time"


async def test_metrics_tell_the_fsync_from_the_rest_of_a_commit() -> None:
    async with running() as site:
        site.store.commits.count(1, 10, 0.25, 0.125)
        site.store.commits.count(1, 10, 0.25)
        found = values(await site.ask("GET", "/metrics"))
    assert (found["ds_commit_seconds_count"], found["ds_commit_seconds_sum"]) == (2, 0.5)
    assert (found["ds_fsync_seconds_count"], found["ds_fsync_seconds_sum"]) == (1, 0.125)
    assert found["ds_fsync_seconds_bucket[le=0.1]"] == 0 and found["ds_fsync_seconds_bucket[le=0.2]"] == 1


def test_json_lines() -> None:
    formatter = logs.JSONFormatter()
    record = logging.LogRecord("ds", logging.WARNING, "f", 1, 'two\nlines "%s"', ("é",), None)
    line = formatter.format(record)
    assert "\n" not in line
    found = json.loads(line)
    assert found["level"] == "warning" and found["message"] == 'two\nlines "é"' and found["time"].endswith("Z")
    try:
        raise ValueError("why")
    except ValueError as error:
        record = logging.LogRecord("ds", logging.ERROR, "f", 1, "x", (), (ValueError, error, error.__traceback__))
    assert "ValueError: why" in json.loads(formatter.format(record))["exception"]


@pytest.fixture
async def site() -> Any:
    async with running() as site:
        yield site


async def test_scraping_costs_no_stream(site: Site) -> None:
    await site.ask("GET", "/metrics")
    assert await site.store.paths() == []


@pytest.mark.parametrize("kind", [Stats, Commits, Upkeep])
def test_all_that_a_table_has_is_shown(kind: type[Shows], monkeypatch: pytest.MonkeyPatch) -> None:
    """A metric is a line in a table, of whatever kind and whoever counts it."""
    tables = {"COUNTERS": ("c", 3), "GAUGES": ("g", 4), "HISTOGRAMS": ("h", Histogram((1, 2)))}
    counts = {each: each() for each in (Stats, Commits, Upkeep)}
    shown = SimpleNamespace(**{field: getattr(counts[kind], field) for field in (*kind.COUNTERS, *kind.GAUGES)})
    for field in kind.HISTOGRAMS:
        setattr(shown, field, getattr(counts[kind], field))
    shown.rejected = {}
    for table, (field, value) in tables.items():
        setattr(shown, table, {**getattr(kind, table), field: (f"ds_new_{field}", "A new one.")})
        setattr(shown, field, value)
    three = [shown if each is kind else counts[each] for each in (Stats, Commits, Upkeep)]
    _, text = exposition(Snapshot(*three, 0, 0, Usage(0, 0)), "text/plain")  # type: ignore[arg-type]
    for line in (b"ds_new_c_total 3.0", b"ds_new_g 4.0", b'ds_new_h_bucket{le="+Inf"} 0.0'):
        assert line in text
