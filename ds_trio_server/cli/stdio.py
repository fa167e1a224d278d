"""Standard input, output and error when they are closed, full, or nobody reads them any more."""

import os
import signal
import sys


def replace_closed() -> bool:
    """Stand in for what the process was started without; whether standard output was there."""
    # No socket or file of ours may get one of the three numbers, and be read or written in its stead.
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(number)
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 (for as long as we live)
    there = sys.stdout is not None
    if not there:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    return there


def discard_output() -> None:
    """What is still buffered has nobody to go to."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)


def broken_pipe() -> int:
    """End as if by SIGPIPE, as filters do; only the sockets must not."""
    discard_output()
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGPIPE)
    return 128 + signal.SIGPIPE
