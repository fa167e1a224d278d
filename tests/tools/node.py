"""Finds Node.js (20 or newer) and installs the tests' Node packages, exactly as tests/package-lock.json says.

The packages are the public conformance suite with vitest, the official TypeScript client, and the reference
server that serves as a peer. They land in tests/node_modules, once per lock file. Only the standard library
is used:

    python tests/tools/node.py        # install if needed, print where node is
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent
MINIMUM = 20
INSTALL_SECONDS = 600
HELP = (
    f"Node.js {MINIMUM} or newer with npm is needed for the conformance and interoperability tests: "
    "https://nodejs.org/en/download, or `brew install node`, or on Debian 13 and Ubuntu 25.04 and newer "
    "`sudo apt install nodejs npm`"
)


class Unavailable(Exception):
    """No usable Node.js here, or its packages do not install; the text says what would help."""


def node() -> str:
    """The path of a new enough `node`; the environment variable NODE overrides the search."""
    program = os.environ.get("NODE") or shutil.which("node")
    if not program:
        raise Unavailable(f"node was not found. {HELP}")
    try:
        version = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=30).stdout
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise Unavailable(f"{program} does not start ({exc}). {HELP}") from exc
    major = re.match(r"v(\d+)\.", version)
    if major is None or int(major[1]) < MINIMUM:
        raise Unavailable(f"{program} is {version.strip() or 'not Node.js'}. {HELP}")
    return program


def modules() -> Path:
    """tests/node_modules, installed and matching the lock file."""
    program = node()
    target = TESTS / "node_modules"
    wanted = hashlib.sha256((TESTS / "package-lock.json").read_bytes()).hexdigest()
    stamp = target / ".installed"

    def current() -> bool:
        with contextlib.suppress(OSError):
            return stamp.read_text() == wanted
        return False

    if current():
        return target
    with open(TESTS / ".node.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not current():
            _install(program)
            stamp.write_text(wanted)
    return target


def _install(program: str) -> None:
    npm = shutil.which("npm", path=os.path.dirname(program)) or shutil.which("npm")
    if not npm:
        raise Unavailable(f"npm was not found. {HELP}")
    # The reference server's database comes as prebuilt binaries, so no package needs to run a script.
    argv = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    try:
        done = subprocess.run(
            argv,
            cwd=TESTS,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=INSTALL_SECONDS,
        )
    except subprocess.TimeoutExpired as exc:
        raise Unavailable(f"npm ci took over {INSTALL_SECONDS} s in {TESTS}") from exc
    if done.returncode != 0:
        raise Unavailable(f"npm ci failed in {TESTS}:\n{done.stdout[-3000:]}")


@dataclass
class Report:
    """What one vitest run said."""

    passed: list[str]
    failed: dict[str, str]
    skipped: list[str]
    output: str

    def text(self) -> str:
        lines = [f"{len(self.passed)} passed, {len(self.failed)} failed, {len(self.skipped)} skipped"]
        for name, message in self.failed.items():
            lines += ["", f"FAILED {name}", message]
        if not self.passed and not self.failed:
            lines.append(self.output)
        return "\n".join(lines)


def vitest(
    file: str, report: Path, *, pattern: str = "", env: dict[str, str] | None = None, seconds: float = 600
) -> Report:
    """Run one vitest file (a path below tests/), only the tests whose name matches `pattern`.

    `report` is a file for vitest's JSON report; anything wrong outside a test counts as a failed one.
    """
    program = node()
    argv = [program, str(modules() / "vitest" / "vitest.mjs"), "run", file, "--root", str(TESTS)]
    argv += ["--reporter=json", f"--outputFile={report}", *(["-t", pattern] if pattern else [])]
    try:
        done = subprocess.run(
            argv,
            cwd=TESTS,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=seconds,
            env={**os.environ, "NO_COLOR": "1", **(env or {})},
        )
        output = done.stdout.decode(errors="replace")
    except subprocess.TimeoutExpired as exc:
        output = (exc.stdout or b"").decode(errors="replace")
        return Report([], {file: f"vitest ran over {seconds} s\n{output}"}, [], output)
    result = Report([], {}, [], output)
    try:
        tree = json.loads(report.read_text())
    except (OSError, ValueError):
        result.failed[file] = f"vitest left no report (status {done.returncode})\n{output}"
        return result
    for suite in tree["testResults"]:
        for case in suite["assertionResults"]:
            if case["status"] == "passed":
                result.passed.append(case["fullName"])
            elif case["status"] == "failed":
                result.failed[case["fullName"]] = "\n".join(case["failureMessages"])
            else:
                result.skipped.append(case["fullName"])
        if suite["status"] == "failed" and not suite["assertionResults"]:
            result.failed[suite["name"]] = suite.get("message") or output
    if done.returncode != 0 and not result.failed:
        result.failed[file] = f"vitest ended with status {done.returncode}\n{output}"
    return result


if __name__ == "__main__":
    try:
        modules()
        print(f"node: {node()}, packages: {TESTS / 'node_modules'}")
    except Unavailable as exc:
        print(exc, file=sys.stderr)
        raise SystemExit(1) from None
