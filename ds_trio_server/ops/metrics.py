"""`/metrics` for Prometheus, through its official client library (the extra `metrics`).

Everything is read from `stats` and the store at the moment Prometheus asks.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ds_core.server.errors import ProtocolError

from ..stats import Commits, Stats, Upkeep
from ..store.base import Usage

if TYPE_CHECKING:
    from prometheus_client.core import Metric


class Snapshot:
    """A moment of a server, as a collector of the client library."""

    def __init__(
        self, stats: Stats, commits: Commits, upkeep: Upkeep, open_connections: int, live: int, usage: Usage
    ) -> None:
        self._stats = stats
        self._commits = commits
        self._upkeep = upkeep
        self._open = open_connections
        self._live = live
        self._usage = usage

    def collect(self) -> "Iterator[Metric]":
        """The metrics, one after the other."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

        stats, commits, usage = self._stats, self._commits, self._usage
        counter, gauge = CounterMetricFamily, GaugeMetricFamily
        yield counter("ds_appends", "Appends made durable.", commits.appends)
        yield counter("ds_append_bytes", "Bytes of appends made durable.", commits.bytes)
        for name, text, histogram in (
            ("ds_commit_appends", "Appends in one commit.", commits.sizes),
            ("ds_commit_seconds", "How long a commit took, its fsync included.", commits.seconds),
            ("ds_fsync_seconds", "How long the write and fsync of a commit took.", commits.fsync),
        ):
            yield HistogramMetricFamily(name, text, buckets=histogram.cumulative(), sum_value=histogram.sum)
        yield counter("ds_requests", "Requests whose head was read.", stats.requests)
        rejected = counter("ds_rejected", "Requests refused, by status and code.", labels=("status", "code"))
        for (status, code), count in stats.rejected.items():
            rejected.add_metric((str(status), code), count)
        yield rejected
        yield counter("ds_connections_accepted", "Connections accepted.", stats.connections)
        yield gauge("ds_connections", "Connections open now.", self._open)
        yield counter("ds_tls_handshakes_failed", "Connections without a TLS handshake.", stats.handshakes_failed)
        yield gauge("ds_live_readers", "Long-polls and event streams waiting now.", self._live)
        upkeep = self._upkeep
        text = "Streams passed over, or rounds ended, by a failure in upkeep."
        yield counter("ds_upkeep_failures", text, upkeep.failures)
        yield counter("ds_streams_freed", "Streams that ended and whose room is free.", upkeep.freed)
        yield gauge("ds_log_bytes", "Bytes the write-ahead log takes.", upkeep.log)
        yield gauge("ds_log_held_bytes", "Bytes of it that a long reader keeps from being used again.", upkeep.held)
        yield gauge("ds_streams", "Streams there are.", usage.streams)
        yield gauge("ds_store_bytes", "Bytes the store takes on its disk, or in memory.", usage.bytes)


def exposition(snapshot: Snapshot, accept: str) -> tuple[str, bytes]:
    """Content type and body of an answer. Raises ProtocolError 501 without the library."""
    try:
        from prometheus_client import CollectorRegistry, ProcessCollector
        from prometheus_client.exposition import choose_encoder
    except ImportError:
        raise ProtocolError(
            501, "NOT_INSTALLED", "metrics need the Python package prometheus-client, the extra 'metrics' of this one"
        ) from None
    registry = CollectorRegistry(auto_describe=False)
    collector: Any = snapshot
    registry.register(collector)
    ProcessCollector(registry=registry)
    encoder, content_type = choose_encoder(accept)
    return content_type, encoder(registry)
