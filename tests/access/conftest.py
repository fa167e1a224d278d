from __future__ import annotations

from pathlib import Path

import pytest

from ds_trio_server.access import file as access_file


class Keys:
    """An access file in the making: `keys.token("name", read=[...])` is a new token's text."""

    def __init__(self, file: Path) -> None:
        self.file = file
        with access_file.edit(file, create=True):
            pass

    def token(self, name: str, with_token: bool = True, **rights: object) -> str:
        with access_file.edit(self.file) as content:
            return access_file.add_token(content, {"name": name, **rights}, with_token)

    def revoke(self, name: str) -> None:
        with access_file.edit(self.file) as content:
            content["tokens"] = [entry for entry in content["tokens"] if entry["name"] != name]


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return Keys(tmp_path / "access.json")
