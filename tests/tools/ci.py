"""Optional tools: skipped on a developer's machine, required where `CI` is set."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def in_ci() -> bool:
    return os.environ.get("CI", "").lower() not in ("", "0", "false", "no")


def missing(reason: object) -> NoReturn:
    """Something this test needs cannot be had here: a skip that says why, or a failure under CI."""
    if in_ci():
        pytest.fail(f"needed under CI: {reason}", pytrace=False)
    pytest.skip(str(reason))
