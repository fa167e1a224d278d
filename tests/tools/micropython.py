"""Finds real MicroPython (1.24 or newer), as a 64-bit and as a 32-bit program, or fetches it.

The suite runs what a device runs on the real interpreter, and the 32-bit build is the one that shows small
integers overflowing and heaps filling up. Where a build comes from, first match wins:

1. `MICROPYTHON` (64-bit) or `MICROPYTHON32`: a command line, for example `MICROPYTHON=/opt/mp/micropython`.
2. `micropython` on the PATH, when it is new enough and of the wanted word size.
3. Debian 13's packages, unpacked into a cache folder (`DS_TEST_CACHE`, or `durable-streams-edge` in the
   user's cache folder) and started through their own dynamic loader. Needs `apt-get` and `dpkg`, but neither
   root nor any change to the system: apt is pointed at lists, cache and status of its own. `DS_TEST_MIRROR` names a
   Debian mirror where the machine's own sources don't.

Only the standard library is used, so this runs before anything is installed:

    python tests/tools/micropython.py                           # fetch both, print where they are
    python tests/tools/micropython.py --build 32 -- -X heapsize=512k prog.py
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

MINIMUM = (1, 24)
SUITE = "trixie"
MIRROR = "DS_TEST_MIRROR"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
VARIABLES = {64: "MICROPYTHON", 32: "MICROPYTHON32"}
# Machine -> word size -> Debian architecture. A 64-bit ARM kernel usually still runs armhf programs.
ARCHITECTURES = {
    "x86_64": {64: "amd64", 32: "i386"},
    "aarch64": {64: "arm64", 32: "armhf"},
    "arm64": {64: "arm64", 32: "armhf"},
    "armv7l": {32: "armhf"},
    "i686": {32: "i386"},
}
PROBE = "import sys; print(sys.implementation.name, sys.version.split('; ')[-1], sys.maxsize > 2**32)"
FETCH_SECONDS = 300


class Unavailable(Exception):
    """This machine has no such build and cannot fetch one; the text says why and what would help."""


def cache_folder() -> Path:
    """Where fetched tools live: `DS_TEST_CACHE`, else `durable-streams-edge` in the user's cache folder."""
    override = os.environ.get("DS_TEST_CACHE")
    if override:
        return Path(override).absolute()
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(base).absolute() / "durable-streams-edge"


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on the file `path`, so that concurrent test runs fetch a thing once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


_found: dict[int, list[str]] = {}


def find(build: int) -> list[str]:
    """The argv prefix that starts MicroPython with `build` (64 or 32) bit words; raises Unavailable."""
    if build not in _found:
        _found[build] = _find(build)
    return list(_found[build])


def _find(build: int) -> list[str]:
    configured = os.environ.get(VARIABLES[build])
    if configured:
        argv = shlex.split(configured)
        fault = _fault(argv, build)
        if fault:
            raise Unavailable(f"{VARIABLES[build]}={configured}: {fault}")
        return argv
    installed = shutil.which("micropython")
    if installed and _fault([installed], build) is None:
        return [installed]
    return _debian(build)


def _fault(argv: list[str], build: int) -> str | None:
    """What is wrong with this interpreter, or None when it is new enough and has the wanted word size."""
    try:
        done = subprocess.run([*argv, "-c", PROBE], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as exc:
        return f"does not start: {exc}"
    words = done.stdout.split()
    version = re.search(r"v(\d+)\.(\d+)", done.stdout)
    if done.returncode != 0 or not words or words[0] != "micropython" or version is None:
        return f"is not MicroPython, or does not run here: {(done.stderr or done.stdout).strip()[:300]}"
    if (int(version[1]), int(version[2])) < MINIMUM:
        return f"is MicroPython {version[1]}.{version[2]}, {MINIMUM[0]}.{MINIMUM[1]} or newer is needed"
    if (words[-1] == "True") != (build == 64):
        return f"is not a {build}-bit build"
    return None


# --------------------------------------------------------------------------------
# Debian's packages


def _debian(build: int) -> list[str]:
    help_text = f"set {VARIABLES[build]} to a MicroPython >= 1.24 of {build} bits to use your own"
    if sys.platform != "linux" or not shutil.which("apt-get") or not shutil.which("dpkg"):
        raise Unavailable(f"no {build}-bit MicroPython here, and fetching it needs apt-get; {help_text}")
    architecture = ARCHITECTURES.get(platform.machine(), {}).get(build)
    if architecture is None:
        raise Unavailable(f"Debian has no {build}-bit MicroPython for {platform.machine()}; {help_text}")
    cache = cache_folder()
    target = cache / f"micropython-{SUITE}-{architecture}"
    try:
        with locked(cache / f"{target.name}.lock"):
            if not target.is_dir():
                _fetch(architecture, target)
    except OSError as exc:
        raise Unavailable(f"cannot write to {cache}: {exc}; DS_TEST_CACHE chooses another folder") from exc
    argv = _launcher(target)
    fault = _fault(argv, build)
    if fault:
        raise Unavailable(f"Debian's {architecture} MicroPython in {target} {fault}; {help_text}")
    return argv


def _launcher(root: Path) -> list[str]:
    """Start the unpacked program with the unpacked loader and libraries, whatever the machine's own are."""
    libraries = sorted({str(found.parent) for found in root.rglob("lib*.so.*")})
    loaders = [found for found in sorted(root.rglob("ld-linux*.so.*")) if found.is_file()]
    program = root / "usr" / "bin" / "micropython"
    if not loaders or not program.is_file():
        raise Unavailable(f"{root} is incomplete; delete it and run again")
    return [str(loaders[0]), "--library-path", ":".join(libraries), str(program)]


def _fetch(architecture: str, target: Path) -> None:
    """Download and unpack MicroPython and all it needs; `target` appears at once or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f"{target.name}.", dir=target.parent))
    try:
        faults = []
        # Ubuntu's own mirrors don't have it; there a Debian mirror has to be named.
        mirrors = [os.environ[MIRROR]] if MIRROR in os.environ else list(dict.fromkeys(_mirrors()))
        if not mirrors:
            faults.append(f"this machine's apt has no Debian mirror; name one in {MIRROR}")
        for mirror in mirrors:
            try:
                _apt(architecture, mirror, scratch / "apt")
                break
            except Unavailable as exc:
                faults.append(str(exc))
        else:
            hint = "" if KEYRING.exists() else " (on Ubuntu: apt install debian-archive-keyring)"
            raise Unavailable(f"fetching MicroPython for {architecture} failed{hint}:\n" + "\n".join(faults))
        for package in sorted((scratch / "apt").rglob("*.deb")):
            unpack = ["dpkg", "-x", str(package), str(scratch / "root")]
            subprocess.run(unpack, check=True, timeout=FETCH_SECONDS)
        os.replace(scratch / "root", target)
    except (subprocess.SubprocessError, KeyError) as exc:
        raise Unavailable(f"unpacking MicroPython for {architecture} failed: {exc}") from exc
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _apt(architecture: str, mirror: str, folder: Path) -> None:
    """`apt-get install --download-only micropython` into `folder`, as if for an empty machine."""
    shutil.rmtree(folder, ignore_errors=True)
    for name in ("lists/partial", "cache/archives/partial", "state"):
        (folder / name).mkdir(parents=True)
    (folder / "state" / "status").touch()
    signed = f" [signed-by={KEYRING}]" if KEYRING.exists() else ""
    (folder / "sources.list").write_text(f"deb{signed} {mirror} {SUITE} main\n")
    # Read after the machine's own configuration, whose proxy settings stay and whose hooks must not run.
    (folder / "apt.conf").write_text(
        f"""
        #clear APT::Update::Pre-Invoke;
        #clear APT::Update::Post-Invoke;
        #clear APT::Update::Post-Invoke-Success;
        #clear APT::Architectures;
        #clear DPkg::Pre-Install-Pkgs;
        #clear DPkg::Pre-Invoke;
        #clear DPkg::Post-Invoke;
        APT::Architecture "{architecture}";
        APT::Architectures {{ "{architecture}"; }};
        APT::Install-Recommends "false";
        APT::Sandbox::User "{_user()}";
        Acquire::Languages "none";
        Acquire::Retries "3";
        Acquire::http::Timeout "30";
        Acquire::Check-Valid-Until "false";
        Debug::NoLocking "true";
        Dir::Etc::sourcelist "{folder}/sources.list";
        Dir::Etc::sourceparts "/dev/null";
        Dir::Etc::preferences "/dev/null";
        Dir::Etc::preferencesparts "/dev/null";
        Dir::State "{folder}/state";
        Dir::State::status "{folder}/state/status";
        Dir::State::Lists "{folder}/lists";
        Dir::Cache "{folder}/cache";
        """
    )
    for action in (["update"], ["install", "--download-only", "--yes", "micropython"]):
        argv = ["apt-get", "-q", "-c", str(folder / "apt.conf"), *action]
        try:
            done = subprocess.run(
                argv,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=FETCH_SECONDS,
                env={**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"},
            )
        except subprocess.TimeoutExpired as exc:
            raise Unavailable(f"{mirror}: apt-get {action[0]} took over {FETCH_SECONDS} s") from exc
        if done.returncode != 0:
            raise Unavailable(f"{mirror}: apt-get {action[0]}: {done.stdout[-1500:].strip()}")


def _user() -> str:
    import pwd

    return pwd.getpwuid(os.getuid()).pw_name


def _mirrors() -> Iterator[str]:
    """The Debian mirrors this machine already uses, from both formats of apt's sources."""
    folder = Path("/etc/apt")
    texts = []
    for path in [folder / "sources.list", *sorted((folder / "sources.list.d").glob("*"))]:
        with contextlib.suppress(OSError, UnicodeDecodeError):
            texts.append(path.read_text())
    for text in texts:
        # One line: deb [options] URI suite component...   deb822: "URIs: URI URI"
        for found in re.finditer(r"^\s*(?:deb\s+(?:\[[^\]]*\]\s+)?|URIs:\s*)(.*)$", text, re.MULTILINE):
            for word in found[1].split():
                if re.match(r"https?://\S+/debian/?$", word):
                    yield word.rstrip("/")


# --------------------------------------------------------------------------------
# Command line


def main() -> int:
    parser = argparse.ArgumentParser(description="Find or fetch MicroPython; run one build.")
    parser.add_argument("--build", type=int, choices=(64, 32), help="run this one with what follows --")
    parser.add_argument("arguments", nargs="*", help="arguments for MicroPython")
    options = parser.parse_args()
    try:
        if options.build:
            argv = find(options.build)
            os.execvp(argv[0], [*argv, *options.arguments])
        for build in (64, 32):
            started = time.monotonic()
            print(f"{build}-bit: {shlex.join(find(build))}  ({time.monotonic() - started:.1f} s)")
    except Unavailable as exc:
        print(exc, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
