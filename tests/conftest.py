"""Shared fixtures. Tests of one room keep theirs in that room."""

from __future__ import annotations

import hypothesis

from tests.tools import ci

# A slow machine is not a failure; under CI the examples are the same on every run, so red stays red.
hypothesis.settings.register_profile("dev", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.load_profile("ci" if ci.in_ci() else "dev")
