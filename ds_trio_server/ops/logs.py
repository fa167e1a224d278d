"""How a server's log lines look: text for people, or one JSON object a line for machines."""

import json
import logging
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime

LEVELS = ("debug", "info", "warning", "error")
FORMATS = ("text", "json")


class JSONFormatter(logging.Formatter):
    """One JSON object a line: `time` (UTC), `level`, `message`, and `exception` if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        when = datetime.fromtimestamp(record.created, UTC)
        line = {
            "time": when.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


def configure(level: str, format: str) -> None:
    """Send log lines of a level and above to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    if format == "json":
        handler.setFormatter(JSONFormatter())
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


class Seldom:
    """A warning that comes again and again while something lasts: one line a minute, which says how often it was."""

    def __init__(self, log: logging.Logger, every: float = 60.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._every = every
        self._clock = clock
        self._next = float("-inf")
        self._kept = 0

    def warning(self, text: str, *values: object) -> None:
        """Log it, or count it for the next line."""
        self._say(logging.WARNING, text, values, None)

    def error(self, text: str, *values: object, exc_info: BaseException | None = None) -> None:
        """The same for what is worse."""
        self._say(logging.ERROR, text, values, exc_info)

    def _say(self, level: int, text: str, values: tuple[object, ...], exc_info: BaseException | None) -> None:
        now = self._clock()
        if now < self._next:
            self._kept += 1
            return
        self._next = now + self._every
        more = f" ({self._kept} more times since the last such line)" if self._kept else ""
        self._kept = 0
        self._log.log(level, text + "%s", *values, more, exc_info=exc_info)
