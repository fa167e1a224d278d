"""How a server's log lines look: text for people, or one JSON object a line for machines."""

import json
import logging
import sys
from datetime import UTC, datetime

from ..seldom import Seldom as Seldom

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
