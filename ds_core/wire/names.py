"""Names on the wire: headers, query parameters and sentinels (protocol sections 1 and 2).

Header names are compared in lower case everywhere in the core: whoever parses a head lowers the
names once, and everything behind it looks them up here.
"""

# Sentinel offsets.
START = "-1"
NOW = "now"

# Query parameters.
OFFSET = "offset"
LIVE = "live"
CURSOR = "cursor"
MAX_BYTES = "max-bytes"

# Values of `live`.
LONG_POLL = "long-poll"
SSE = "sse"

# Headers of streams.
NEXT_OFFSET = "stream-next-offset"
UP_TO_DATE = "stream-up-to-date"
CLOSED = "stream-closed"
STREAM_CURSOR = "stream-cursor"
STREAM_SEQ = "stream-seq"
TTL = "stream-ttl"
EXPIRES_AT = "stream-expires-at"
FORKED_FROM = "stream-forked-from"
FORK_OFFSET = "stream-fork-offset"
FORK_SUB_OFFSET = "stream-fork-sub-offset"
SSE_DATA_ENCODING = "stream-sse-data-encoding"
EARLIEST_OFFSET = "stream-earliest-offset"

# Headers of producers.
PRODUCER_ID = "producer-id"
PRODUCER_EPOCH = "producer-epoch"
PRODUCER_SEQ = "producer-seq"
EXPECTED_SEQ = "producer-expected-seq"
RECEIVED_SEQ = "producer-received-seq"

# The root of all streams, and the first path segment kept for control APIs.
ROOT = "/v1/stream/"
RESERVED = "__ds"
DEFAULT_PORT = 4437
