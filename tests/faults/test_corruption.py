"""Worn-out flash, in short; `python -m tests.faults.corruption` damages every page."""

from __future__ import annotations

import random

from . import corruption


def test_no_byte_of_a_damaged_file_is_served_wrongly(tmp_path):
    counts = corruption.run(tmp_path, seed=20261122, every=24)
    assert counts["damages"] > 40
    assert counts["noticed by the check"] > 0.9 * counts["damages"]
    assert counts["refused by the server"] > 0.75 * counts["damages"], "what nobody reads is not met"
    assert counts["ended the server"] < 0.05 * counts["damages"], "and others go on"


def test_every_kind_of_damage_changes_a_page():
    page = bytes(range(256)) * 16
    for kind in corruption.KINDS:
        found = corruption.harmed(page, kind, random.Random(1))
        assert len(found) == len(page) and found != page
