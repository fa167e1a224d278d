"""Runs every fuzz target over its corpus of seeds and findings, without atheris.

A target is `fuzz_<name>.py` with a function `one_input(data)`; its corpus is `corpus/<name>/`.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
TARGETS = sorted(path.stem.removeprefix("fuzz_") for path in HERE.glob("fuzz_*.py"))


def target(name: str):  # type: ignore[no-untyped-def]
    spec = importlib.util.spec_from_file_location(f"fuzz_{name}", HERE / f"fuzz_{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.one_input


@pytest.mark.parametrize("name", TARGETS)
def test_corpus(name: str) -> None:
    one_input = target(name)
    seeds = sorted(path for path in (HERE / "corpus" / name).iterdir() if path.is_file())
    assert seeds
    for seed in seeds:
        data = seed.read_bytes()
        for cut in {len(data), len(data) // 2, max(len(data) - 1, 0)}:
            one_input(data[:cut])
        one_input(b"\0" + data)
