from collections.abc import Collection, Iterable
from typing import NoReturn

STREAM: tuple[str, ...]
OUTBOX: tuple[str, ...]

def no_such(owner: str, name: str, names: Iterable[str]) -> NoReturn: ...
def no_option(owner: str, given: Iterable[str], names: Collection[str]) -> None: ...
