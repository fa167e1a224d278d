"""The commands of README and of the pages that it leads to, run as printed, or held against what they name.

A tour: every `$ ` line of the console blocks, in one bash, against a fresh server. Shell blocks: run where they end by
themselves; every `ds` command has its options, every `make` its target. The reliability page: what each line says to
run is there, and tests that it chooses by name are chosen.
"""

from __future__ import annotations

import glob
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from ds_trio_server.cli.main import FAMILIES
from tests.tools import ci, micropython, serve

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
TOUR = ROOT / "ds_trio_server" / "TOUR.md"
GATEWAY = ROOT / "hardware-notes" / "gateway.md"
CONTRIBUTING = ROOT / "CONTRIBUTING.md"
BENCH = ROOT / "tests" / "bench" / "README.md"
RELIABILITY = ROOT / "tests" / "RELIABILITY.md"
PAGES = (README, TOUR, GATEWAY, CONTRIBUTING, BENCH, RELIABILITY, ROOT / "CHANGELOG.md", ROOT / "SECURITY.md")
PORT = "4437"
# Every page whose commands of `ds`, options and variables are held against `ds` itself.
NOTES = (*PAGES, *sorted(path for path in (ROOT / "hardware-notes").glob("*.md") if path != GATEWAY))
MARK = "--- the next command ---"
UNIT = ROOT / "hardware-notes" / "systemd" / "durable-streams.service"
COMMANDS = {word for words in FAMILIES.values() for word in words}
BESIDE = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)


def commands(page: Path) -> list[str]:
    """The lines of a page's shell blocks, without comments."""
    lines = [line for block in blocks(page, "sh") for line in block.splitlines()]
    return [line for line in (re.sub(r"(^|\s)#.*", "", line).rstrip() for line in lines) if line]


def bash(script: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    if shutil.which("curl") is None or shutil.which("bash") is None:
        ci.missing("the tour needs bash and curl")
    return subprocess.run(["bash", "-c", script], cwd=folder, env=BESIDE, capture_output=True, text=True, timeout=100)


# The tour


def tour() -> list[tuple[str, str]]:
    """(command, what is printed below it) pairs: README's, and those that go on from there."""
    steps: list[tuple[str, str]] = []
    for block in blocks(README, "console") + blocks(TOUR, "console"):
        for step in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, printed = step.partition("\n")
            steps.append((command, printed))
    return steps


def matches(printed: str, real: str) -> bool:
    """Whether a step printed what the page says, `...` standing for anything within a line."""
    pattern = "[^\n]*".join(re.escape(part) for part in printed.rstrip("\n").split("..."))
    return re.fullmatch(pattern, real.rstrip("\n")) is not None


def test_the_tour_works_as_printed(tmp_path: Path) -> None:
    steps = tour()
    assert len(steps) > 18
    with serve.start("--data", str(tmp_path / "data")) as server:
        # The pages speak of the default port, which may be taken here.
        port = server.origin.rsplit(":", 1)[1]
        run = bash(f"\necho '{MARK}'\n".join(command.replace(PORT, port) for command, _ in steps))
    real = run.stdout.replace(f":{port}/", f":{PORT}/").split(f"{MARK}\n")
    assert len(real) == len(steps), run.stderr
    for (command, printed), got in zip(steps, real, strict=True):
        if not matches(printed, got):
            pytest.fail(f"$ {command}\nthe page says:\n{printed}\nbut it prints:\n{got}", pytrace=False)


def test_the_tour_from_the_shell_works(tmp_path: Path) -> None:
    *lines, tail = commands(TOUR)
    assert tail.startswith("ds tail")  # which follows the stream until it is stopped
    with serve.start("--data", str(tmp_path / "data")) as server:
        port = server.origin.rsplit(":", 1)[1]
        until = "until [ $(wc -l < shown) -gt 100000 ]; do sleep 0.1; done; kill $!"
        script = ["set -e", *lines, f"timeout 90 {tail} > shown &", until]
        run = bash("\n".join(script).replace(PORT, port), tmp_path)
    first, *others = (tmp_path / "shown").read_text().splitlines()
    assert first.replace(" ", "") == '{"t":21.5,"rh":40}' and others == [str(n) for n in range(1, 100_001)], run.stderr


# Shell blocks


def test_tokens_are_made_as_printed(tmp_path: Path) -> None:
    for page in (README, GATEWAY):
        folder = tmp_path / page.stem
        folder.mkdir()
        lines = [line for line in commands(page) if line.startswith(("ds token", "ds share"))]
        assert lines
        run = bash("\n".join(["set -e", *lines]), folder)
        assert run.returncode == 0 and (folder / "access.json").is_file(), run.stderr


def test_a_data_directory_is_looked_after_as_printed(tmp_path: Path) -> None:
    lines = [line for line in commands(GATEWAY) if line.startswith(("ds check", "ds backup"))]
    assert len(lines) == 2
    with serve.start("--data", str(tmp_path / "srv" / "streams")):
        (tmp_path / "mnt").mkdir()
        script = "\n".join(["set -e", *lines]).replace("/srv", f"{tmp_path}/srv").replace("/mnt", f"{tmp_path}/mnt")
        run = bash(script, tmp_path)
    assert run.returncode == 0 and list((tmp_path / "mnt").rglob("streams.db")), run.stderr


@cache
def help_of(*words: str) -> str:
    run = subprocess.run([*words, "--help"], cwd=ROOT, env=BESIDE, capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, f"{shlex.join(words)} --help: {run.stderr}"
    return run.stdout


def options(words: list[str]) -> list[str]:
    return [word.partition("=")[0] for word in words if word.startswith("--")]


def prose(page: Path) -> list[str]:
    """The commands in a page's text and indented examples."""
    text = re.sub(r"\\\n\s*", "", page.read_text())
    return re.findall(r"`([^`\n]+)`", text) + re.findall(r"^ {4}(.+?)(?: {2,}#.*)?$", text, re.MULTILINE)


@pytest.mark.parametrize("page", NOTES, ids=lambda page: page.name)
def test_every_command_of_ds_has_its_options(page: Path) -> None:
    found = 0
    for line in [*commands(page), *prose(page)]:
        for part in re.split(r"\s[|&]+\s", line):
            # Behind a folder or `sudo` of an account, perhaps.
            command = re.search(r"(?:^|[\s/])(ds [a-z]+(?: .*)?)$", part)
            words = command[1].split() if command else []
            if not words or words[1] not in COMMANDS:
                continue
            found += 1
            text = help_of(*(words[:3] if words[1] == "token" and len(words) > 2 else words[:2]))
            assert not [option for option in options(words) if f"{option} " not in text + " "], part
    assert found or page not in (README, TOUR, GATEWAY)


@pytest.mark.parametrize("page", [*NOTES, UNIT], ids=lambda page: page.name)
def test_every_variable_is_an_options(page: Path) -> None:
    text = help_of("ds", "serve")
    for name in set(re.findall(r"\bDS_(?!TEST_)[A-Z_]+", page.read_text())):
        assert f"--{name.removeprefix('DS_').lower().replace('_', '-')} " in text, f"{page.name}: {name}"


def targets() -> set[str]:
    return set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_make_has_its_target(page: Path) -> None:
    makefile = (ROOT / "Makefile").read_text()
    for line in [*commands(page), *prose(page)]:
        words = shlex.split(line) if re.match(r"make [a-z]", line) else []
        for word in words[1:]:
            name, given, _ = word.partition("=")
            assert (f"$({name})" in makefile) if given else word in targets(), line


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text()):
        name, _, anchor = target.partition("#")
        if "://" in target:
            continue
        there = page.parent / name if name else page
        assert there.exists(), f"{page.name}: {target}"
        if anchor:
            titles = re.findall(r"^#+ (.*)$", there.read_text(), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}, target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_a_page_names_are_there(page: Path) -> None:
    """In backticks: what is below a folder of ours."""
    ours = r"`((?:ds_core|ds_trio_server|micro|tests|hardware-notes)/[\w./*-]*)`"
    for name in re.findall(ours, page.read_text()):
        assert glob.glob(name, root_dir=ROOT, recursive=True), f"{page.name}: {name}"


@pytest.mark.timeout(300)
def test_one_test_is_run_as_printed() -> None:
    lines = [line for line in commands(CONTRIBUTING) if "ARGS=" in line]
    assert len(lines) > 2
    for line in lines:
        chosen(shlex.split(shlex.split(line)[2].removeprefix("ARGS=")))
    try:
        micropython.find(32)
    except micropython.Unavailable as exc:
        ci.missing(exc)
    (line,) = [line for line in commands(CONTRIBUTING) if line.startswith(".venv/bin/python ")]
    words = shlex.split(line)
    run = subprocess.run([sys.executable, *words[1:]], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert run.returncode == 0 and "0 failed" in run.stdout, run.stdout + run.stderr


# What is measured


def test_rows_and_options_of_the_benchmarks_are_there() -> None:
    from tests.bench import rows

    known = set(re.findall(r'"([a-z0-9-]+)"', Path(rows.__file__).read_text()))
    text = help_of(sys.executable, "-m", "tests.bench")
    for line in [*prose(BENCH), *prose(CONTRIBUTING)]:
        for arguments in re.findall(r'make bench ARGS=(".*?"|\S+)', line):
            words = shlex.split(arguments.strip('"'))
            assert not [option for option in options(words) if option not in text], line
            if "--only" in words:
                assert set(words[words.index("--only") + 1].split(",")) <= known, line


def test_the_headline_figures_are_those_of_the_tables() -> None:
    section = README.read_text().partition("## How fast")[2].partition("\n## ")[0]
    fast, withstands = section.strip().split("\n\n")[1:]
    for text, page in ((fast, BENCH), (withstands, RELIABILITY)):
        figures = re.findall(r"\d[\d,.]*\d", re.sub(r"\(.*?\)", "", text))
        assert len(figures) > 4
        assert not [figure for figure in figures if figure not in page.read_text()], page
    table = BENCH.read_text().partition("## How fast")[2].partition("Where an aim")[0]
    rows = [line for line in table.splitlines() if re.match(r"\| [^-]", line)][1:]
    missed = [line for line in rows if re.search(r"\([a-e]\) \|$", line)]
    assert f"{len(missed)} of {len(rows)} aims are not met" in fast


def lines_of_the_table() -> list[tuple[str, str]]:
    """(what, how it is run) of each line of the reliability page."""
    rows = [line[1:-1].split(" | ") for line in RELIABILITY.read_text().splitlines() if line.startswith("| ")]
    return [
        (row[0].strip(), row[-1].strip()) for row in rows[1:] if not row[0].startswith("---") and "---" not in row[0]
    ]


def test_every_line_of_the_reliability_page_is_a_command() -> None:
    lines = lines_of_the_table()
    assert len(lines) > 15
    for what, run in lines:
        # A line that begins with "..." goes on with the command above.
        assert bool(re.search(r"`.+`", run)) != what.startswith("..."), what


@pytest.mark.timeout(300)
@pytest.mark.parametrize("what, run", [line for line in lines_of_the_table() if line[1]], ids=lambda text: text[:40])
def test_what_the_reliability_page_says_to_run_is_there(what: str, run: str) -> None:
    found = 0
    for command in re.findall(r"`([^`]+)`", run):
        words = shlex.split(command)
        while words and re.fullmatch(r"[A-Z_]+=\S+", words[0]):
            name = words.pop(0).partition("=")[0]
            assert any(name in path.read_text() for path in (ROOT / "tests").rglob("*.py")), name
            found += not words
        if not words:
            continue
        found += 1
        if words[0] == "make":
            assert words[1] in targets(), command  # its variables: test_every_make_has_its_target
        elif words[:2] == ["python", "-m"]:
            assert importlib.util.find_spec(words[2]), command
            text = help_of(sys.executable, "-m", words[2]) if options(words) else ""
            assert not [option for option in options(words) if option not in text], command
        else:
            assert words[0] == "pytest", command
            chosen(words[1:])
    assert found


def chosen(words: list[str]) -> None:
    """Fail unless pytest finds tests by these words."""
    paths = [path for word in words if word.startswith("tests/") for path in glob.glob(word, root_dir=ROOT) or [word]]
    assert paths and not [path for path in paths if not (ROOT / path.partition("::")[0]).exists()], paths
    others = [word for word in words if not word.startswith(("tests/", "--timeout"))]
    argv = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *paths, *others]
    run = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert run.returncode == 0 and "::" in run.stdout, run.stdout[-500:]
