from typing import IO

from ds_micro.cursor import Cursor

def saved(cursor: Cursor, f: IO[bytes], name: str) -> tuple[int, str, int] | None: ...
