"""`/metrics` for Prometheus, through its official client library (the extra `metrics`).

Everything is read at the moment Prometheus asks: what the tables of `stats` have, and what there is just now.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ds_core.server.errors import ProtocolError

from ..stats import Commits, Histogram, Stats, Upkeep
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

        counter, gauge = CounterMetricFamily, GaugeMetricFamily
        for counts in (self._commits, self._stats, self._upkeep):
            for field, (name, text) in counts.COUNTERS.items():
                yield counter(name, text, getattr(counts, field))
            for field, (name, text) in counts.GAUGES.items():
                yield gauge(name, text, getattr(counts, field))
            for field, (name, text) in counts.HISTOGRAMS.items():
                found: Histogram = getattr(counts, field)
                yield HistogramMetricFamily(name, text, buckets=found.cumulative(), sum_value=found.sum)
        rejected = counter("ds_rejected", "Requests refused, by status and code.", labels=("status", "code"))
        for (status, code), count in self._stats.rejected.items():
            rejected.add_metric((str(status), code), count)
        yield rejected
        yield gauge("ds_connections", "Connections open now.", self._open)
        yield gauge("ds_live_readers", "Long-polls and event streams waiting now.", self._live)
        yield gauge("ds_streams", "Streams there are.", self._usage.streams)
        yield gauge("ds_store_bytes", "Bytes the store takes on its disk, or in memory.", self._usage.bytes)


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
