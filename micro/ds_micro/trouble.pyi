from collections.abc import Callable
from typing import Any, NoReturn

from ds_micro.outbox import Outbox
from ds_micro.stream import Flows

def bad_stream(url: str, tls: dict[str, Any], bad: object) -> NoReturn: ...
def bad_outbox(
    stream: Flows, path: str | None, producer: str, when_full: str, limit: int, segment: int, epoch: int
) -> NoReturn: ...
def method(box: Outbox, name: str) -> Callable[..., Any]: ...
