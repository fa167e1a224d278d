"""Exactly-once producers: what one append means to a producer's state (protocol section 5)."""

from ds_core.wire import names

from .errors import ProtocolError, bad_request

MAX_NUMBER = 9007199254740991
"""2**53 - 1, the largest epoch or sequence number."""

MAX_ID = 256
"""Longest Producer-Id in characters."""

ACCEPT = "accept"
DUPLICATE = "duplicate"
GAP = "gap"
STALE = "stale"
BAD_START = "bad start"


def verdict(state: "tuple[int, int] | None", epoch: int, seq: int) -> str:
    """What (epoch, seq) is to a producer whose last accepted pair is `state` (None: unknown).

    | the request's epoch | verdict |
    | --- | --- |
    | unknown producer | seq 0: ACCEPT, else GAP |
    | older | STALE |
    | newer | seq 0: ACCEPT, else BAD_START |
    | same | next seq: ACCEPT, later: GAP, earlier or last: DUPLICATE |
    """
    if state is None:
        return ACCEPT if seq == 0 else GAP
    known_epoch, last = state
    if epoch < known_epoch:
        return STALE
    if epoch > known_epoch:
        return ACCEPT if seq == 0 else BAD_START
    if seq == last + 1:
        return ACCEPT
    return DUPLICATE if seq <= last else GAP


def stale(state: "tuple[int, int]") -> ProtocolError:
    """403: another instance of this producer has taken over with a newer epoch."""
    return ProtocolError(
        403,
        "STALE_EPOCH",
        "this producer's epoch is now %d; claim a higher one to go on" % state[0],
        ((names.PRODUCER_EPOCH, str(state[0])),),
    )


def refuse(found: str, state: "tuple[int, int] | None", seq: int) -> ProtocolError:
    """The error for a verdict of GAP or BAD_START."""
    if found == BAD_START:
        return bad_request("a new producer epoch must start at Producer-Seq 0", "INVALID_EPOCH_START")
    expected = 0 if state is None else state[1] + 1
    return ProtocolError(
        409,
        "SEQUENCE_GAP",
        "expected Producer-Seq %d, received %d; send what lies between first" % (expected, seq),
        ((names.EXPECTED_SEQ, str(expected)), (names.RECEIVED_SEQ, str(seq))),
    )
