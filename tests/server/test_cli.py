"""The command `ds serve`: options, variables, and one clear line for whatever is wrong."""

from __future__ import annotations

import dataclasses
import http.client
import os
import re
import socket
import subprocess
from pathlib import Path

import pytest

from ds_trio_server.cli import main as cli, serve_options
from ds_trio_server.cli.serve_options import Settings
from ds_trio_server.config import Config
from tests.tools import serve


def run(*args: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*serve.command(), *args], capture_output=True, text=True, timeout=30, env=serve.environment(env)
    )


def parsed(monkeypatch: pytest.MonkeyPatch, *args: str, **env: str) -> Settings:
    """The settings of a server that is not started."""
    for name in list(os.environ):
        if name.startswith("DS_"):
            monkeypatch.delenv(name)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    return serve_options.settings(cli.parser_for("serve").parse_args(["serve", *args]), os.environ)


def refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *args: str, **env: str
) -> str:
    """The one line of a refusal with status 2."""
    for name in [name for name in os.environ if name.startswith("DS_")]:
        monkeypatch.delenv(name)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    try:
        status = cli.main(["serve", *args])
    except SystemExit as end:
        status = end.code
    shown = capsys.readouterr()
    lines = shown.err.splitlines()
    assert (status, shown.out) == (2, "") and len(lines) == 1 and lines[0].startswith("ds serve: "), lines
    return lines[0]


OPTIONS = {
    "host": ("::1", "::1"),
    "port": ("8080", 8080),
    "data": ("/srv/streams", "/srv/streams"),
    "long-poll-timeout": ("2.5", 2.5),
    "sse-max": ("5", 5.0),
    "max-body": ("64K", 65536),
    "chunk": ("1m", 1 << 20),
    "log-level": ("debug", "debug"),
}


def test_help_tells_every_option_and_its_variable() -> None:
    shown = run("serve", "--help")
    assert shown.returncode == 0
    for option in (*OPTIONS, "memory"):
        assert f"--{option}" in shown.stdout
    assert "DS_LONG_POLL_TIMEOUT" in shown.stdout and "environment" in shown.stdout
    assert "serve" in run("--help").stdout
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*\n", run("--version").stdout)


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_is_a_variable_too_and_the_command_line_wins(
    monkeypatch: pytest.MonkeyPatch, option: str
) -> None:
    text, value = OPTIONS[option]
    name = option.replace("-", "_")
    assert getattr(parsed(monkeypatch, f"--{option}", text), name) == value
    assert getattr(parsed(monkeypatch, **{f"DS_{name.upper()}": text}), name) == value
    other = {"host": "x", "port": "1", "data": "x", "log-level": "error"}.get(option, "7")
    assert getattr(parsed(monkeypatch, f"--{option}={text}", **{f"DS_{name.upper()}": other}), name) == value


def test_memory_and_data(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert parsed(monkeypatch, "--memory").memory
    assert parsed(monkeypatch, DS_MEMORY="1").memory
    assert not parsed(monkeypatch, DS_MEMORY="0").memory
    assert parsed(monkeypatch, "--memory", DS_DATA="/x").data is None
    options = parsed(monkeypatch, "--data", "/x", DS_MEMORY="1")
    assert (options.data, options.memory) == ("/x", False)
    assert "--data is not allowed with --memory" in refused(monkeypatch, capsys, "--data", "/x", "--memory")
    both = refused(monkeypatch, capsys, DS_DATA="/x", DS_MEMORY="1")
    assert "DS_DATA is not allowed with DS_MEMORY" in both
    assert "DS_MEMORY: 'perhaps' is neither yes nor no" in refused(monkeypatch, capsys, DS_MEMORY="perhaps")


def test_defaults_are_those_of_the_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    options = parsed(monkeypatch)
    config = Config()
    assert {each.name: getattr(options, each.name) for each in dataclasses.fields(config)} == dataclasses.asdict(config)
    assert (options.host, options.port, options.memory) == ("127.0.0.1", 4437, False)


@pytest.mark.parametrize(
    ("option", "value"),
    [("port", "x"), ("port", "65536"), ("port", "-1"), ("port", ""), ("port", "80.0"),
     ("long-poll-timeout", "0"), ("long-poll-timeout", "-1"), ("long-poll-timeout", "soon"),
     ("long-poll-timeout", "nan"), ("long-poll-timeout", "1e9"), ("sse-max", "inf"),
     ("max-body", "0"), ("max-body", "2G"), ("max-body", "16X"), ("max-body", "M"), ("max-body", ""),
     ("chunk", "-5"), ("chunk", "1.5M"), ("chunk", "9" * 30), ("log-level", "loud")],
)  # fmt: skip
def test_invalid_values_are_refused_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], option: str, value: str
) -> None:
    line = refused(monkeypatch, capsys, f"--{option}={value}")
    assert line.startswith(f"ds serve: argument --{option}: ") and repr(value) in line
    variable = "DS_" + option.upper().replace("-", "_")
    named = refused(monkeypatch, capsys, **{variable: value})
    assert named == line.replace(f"argument --{option}", variable)


def test_a_repeated_option_adds_to_its_variable(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rules = parsed(monkeypatch, "--retain", "1d", "--retain", "logs/**=90m", DS_RETAIN="64K, keep/*=forever,").retain
    assert [(rule.age, rule.bytes) for rule in rules] == [(None, 65536), (None, None), (86400.0, None), (5400.0, None)]
    assert parsed(monkeypatch, DS_RETAIN="").retain == ()
    assert "DS_RETAIN: '7y' is neither an age" in refused(monkeypatch, capsys, DS_RETAIN="1d,7y")


def test_every_option_has_a_line_of_help_a_variable_and_a_group() -> None:
    shown = " ".join(run("serve", "--help").stdout.split())
    for name, option in serve_options.OPTIONS.items():
        assert f"{serve_options.flag(name)} " in shown and " ".join(option.help.split()) in shown.replace("- ", "-")
        assert option.group in serve_options.GROUPS
        assert set(option.excludes) <= set(serve_options.OPTIONS)


def test_a_configuration_is_checked_however_it_is_made() -> None:
    for wrong in ({"sse_max": 0}, {"head_timeout": 90000}, {"chunk": 0}, {"max_body": 1 << 31}, {"max_per_client": -1}):
        with pytest.raises(ValueError, match=next(iter(wrong)).replace("_", "-")):
            Config(**wrong)  # type: ignore[arg-type]
    assert Config(max_body=1 << 30).body_memory == 1 << 30


@pytest.mark.parametrize("word", ["--nonsense", "extra", "--mem"])
def test_unknown_words_are_refused_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], word: str
) -> None:
    with pytest.raises(SystemExit) as caught:
        parsed(monkeypatch, word)
    assert caught.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and word in lines[0]


def test_the_process_ends_with_status_2_on_a_wrong_word() -> None:
    ended = run("serve", "--port", "x")
    assert (ended.returncode, ended.stdout) == (2, "") and len(ended.stderr.splitlines()) == 1


def test_a_port_in_use_is_one_clear_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = run("serve", "--memory", "--port", str(port))
    assert ended.returncode == 1 and "listening" not in ended.stdout
    last = ended.stderr.splitlines()[-1]
    assert f"127.0.0.1 port {port}" in last and "use" in last
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("host", ["no such host", "192.0.2.1"])
def test_an_address_that_is_not_ours_is_one_clear_line(host: str) -> None:
    ended = run("serve", "--memory", "--port", "0", "--host", host)
    assert ended.returncode == 1 and host in ended.stderr and "Traceback" not in ended.stderr


@pytest.mark.parametrize("kind", ["file", "foreign"])
def test_a_data_directory_that_cannot_be_used_is_one_clear_line(tmp_path: Path, kind: str) -> None:
    if kind == "file":
        (tmp_path / "data").write_text("in the way")
    else:
        (tmp_path / "data").mkdir()
        (tmp_path / "data" / "streams.db").write_bytes(b"something else" * 500)
    ended = run("serve", "--data", str(tmp_path / "data"), "--port", "0")
    assert ended.returncode == 1 and "listening" not in ended.stdout
    assert "Traceback" not in ended.stderr
    said = [line for line in ended.stderr.splitlines() if line.startswith("ds serve: ")]
    assert len(said) == 1 and str(tmp_path / "data") in said[0]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_unwritable_data_directory_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    ended = run("serve", "--data", str(tmp_path / "locked" / "data"), "--port", "0")
    assert ended.returncode == 1 and "Permission denied" in ended.stderr and "Traceback" not in ended.stderr


def test_it_says_where_it_listens_once_it_does() -> None:
    with serve.start("--memory", host="localhost") as server:
        lines = re.findall(r"^listening on (\S+)$", server.output, re.MULTILINE)
        assert lines and all(re.fullmatch(r"http://\S+:\d+/v1/stream", line) for line in lines)
        for line in lines:
            host, port = re.fullmatch(r"http://\[?([^\]]+?)\]?:(\d+)/v1/stream", line).groups()  # type: ignore[union-attr]
            connection = http.client.HTTPConnection(host, int(port), timeout=10)
            connection.request("PUT", "/v1/stream/s", b"x" * 100, {"Content-Type": "text/plain"})
            assert connection.getresponse().status in (200, 201)
            connection.close()


def test_options_reach_the_server(tmp_path: Path) -> None:
    env = {"DS_LONG_POLL_TIMEOUT": "0.2", "DS_SSE_MAX": "0.2", "DS_MAX_BODY": "100", "DS_CHUNK": "10"}
    env["DS_MEMORY"] = "yes"
    with serve.start(env=env) as server:
        connection = http.client.HTTPConnection(server.host, server.port, timeout=10)

        def ask(method: str, query: str = "", body: bytes | None = None) -> tuple[int, bytes]:
            connection.request(method, "/v1/stream/s" + query, body, {"Content-Type": "text/plain"})
            response = connection.getresponse()
            return response.status, response.read()

        assert ask("PUT", "", b"x" * 100)[0] == 201
        assert ask("GET") == (200, b"x" * 10)
        assert ask("GET", "?offset=now&live=long-poll") == (204, b"")
        assert ask("POST", "", b"x" * 101)[0] == 413
        assert ask("GET", "?offset=now&live=sse")[0] == 200
        connection.close()
    assert not (tmp_path / "data").exists()


def test_a_quiet_server_logs_its_life_and_not_its_requests() -> None:
    with serve.start("--memory") as server:
        connection = http.client.HTTPConnection(server.host, server.port, timeout=10)
        for _ in range(5):
            connection.request("GET", "/v1/stream/none")
            connection.getresponse().read()
        connection.close()
        assert server.stop() == 0
        assert len(server.output.splitlines()) <= 6, server.output
