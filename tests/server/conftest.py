from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.server import site as sites


@pytest.fixture
async def site() -> AsyncIterator[sites.Site]:
    """A server with the usual settings over memory."""
    async with sites.running() as site:
        yield site
