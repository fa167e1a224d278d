"""A stream as a row of a table: the columns to keep, there and back (what sections 3 to 8 ask to be remembered).

Every value is an int, a float, a str or None, so any database and any codec can hold it. Names and order are
those of COLUMNS; VERSION changes with them: keep it beside the table, and check it when you open it.
"""

from .stream import Stream

VERSION = 1
"""Of what COLUMNS are and mean."""

COLUMNS = (
    "id", "path", "incarnation", "content_type", "start", "tail", "closed", "closed_by", "stream_seq",
    "ttl", "deadline", "expires_at", "expires", "lineage", "fork_spec", "forks", "deleted",
)  # fmt: skip
"""`id` and `path` are unique. `deadline` (seconds of `clock.Clock`'s steady time) and `expires` (UNIX seconds) are for
whoever looks for streams to sweep. `closed_by` is `EPOCH SEQ ID`, `lineage` is `ID:UPTO ID:UPTO ...`."""


def row(stream: Stream) -> "tuple[int | float | str | None, ...]":
    """The values of a stream's row, in the order of COLUMNS."""
    by = stream.closed_by
    return (
        stream.id,
        stream.path,
        stream.incarnation,
        stream.content_type,
        stream.start,
        stream.tail,
        int(stream.closed),
        None if by is None else "%d %d %s" % (by[1], by[2], by[0]),
        stream.stream_seq,
        stream.ttl,
        stream.deadline,
        stream.expires_at,
        stream.expires,
        " ".join(["%d:%d" % each for each in stream.lineage]),
        stream.fork_spec,
        stream.forks,
        int(stream.deleted),
    )


def stream(values: "tuple[object, ...]") -> Stream:
    """The stream of a row, all of it as readers may see it: what was read is durable. ValueError for a row that has
    another number of columns; what a database gives back otherwise is believed."""
    if len(values) != len(COLUMNS):
        raise ValueError("a stream's row has %d columns, not %d" % (len(COLUMNS), len(values)))
    found = Stream(int(str(values[0])), str(values[1]), str(values[3]))
    for name, value in zip(COLUMNS, values):
        if name not in ("closed", "closed_by", "lineage", "deleted"):
            setattr(found, name, value)
    _, _, _, _, _, _, closed, closed_by, _, _, _, _, _, lineage, _, _, deleted = values
    found.closed = bool(closed)
    found.deleted = bool(deleted)
    if closed_by is not None:
        epoch, seq, producer = str(closed_by).split(" ", 2)
        found.closed_by = (producer, int(epoch), int(seq))
    ancestors = []
    for each in str(lineage).split():
        id, _, upto = each.partition(":")
        ancestors.append((int(id), int(upto)))
    found.lineage = tuple(ancestors)
    found.publish()
    return found
