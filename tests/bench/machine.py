"""The machine a result belongs to."""

from __future__ import annotations

import os
import platform
import sqlite3
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def describe(folder: Path) -> dict[str, object]:
    """Cores, processor, memory, kernel, versions, and the file system that holds the servers' data."""
    return {
        "cores": os.cpu_count(),
        "processor": _processor(),
        "memory_mib": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20,
        "system": f"{platform.system()} {platform.release().partition('-')[0]} {platform.machine()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "sqlite": sqlite3.sqlite_version,
        "node": _say("node", "--version"),
        "wrk": _say("wrk", "--version").partition(" [")[0],
        "file_system": file_system(folder),
        "load_average": round(os.getloadavg()[0], 2),
        "commit": _say("git", "rev-parse", "--short", "HEAD"),
    }


def file_system(folder: Path) -> str:
    """The type of the file system that holds `folder`, such as ext4 or tmpfs."""
    best, kind = "", "unknown"
    try:
        mounts = Path("/proc/mounts").read_text().splitlines()
    except OSError:
        return kind
    for line in mounts:
        _, point, type_, *_ = line.split()
        if len(point) >= len(best) and folder.resolve().is_relative_to(point):
            best, kind = point, type_
    return kind


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip() in ("model name", "Model"):
            return value.strip()
    return platform.processor() or platform.machine()


def _say(*argv: str) -> str:
    try:
        done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.partition("\n")[0].strip()
