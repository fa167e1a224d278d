"""`ds serve --access`, `ds token` and `ds share` as an operator meets them: real processes."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import socket
import ssl
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import trustme

from ds_trio_server.cli import main as cli
from tests.tools import serve


class Done:
    def __init__(self, returncode: int, stdout: str, stderr: str) -> None:
        self.returncode = returncode
        self.stdout = stdout
        self.stderr = stderr


def ds(*arguments: object) -> Done:
    """The command; but for a server in this process, since starting one takes longer than all that it does."""
    if arguments[0] == "serve":
        argv = [*serve.command(), *map(str, arguments)]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=30, env=serve.environment())
        return Done(done.returncode, done.stdout, done.stderr)
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = cli.main([str(argument) for argument in arguments])
        except SystemExit as left:
            status = int(left.code or 0)
    return Done(status, out.getvalue(), err.getvalue())


@pytest.fixture(autouse=True)
def no_options_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("DS_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "access.json"


def new(file: Path, name: str, *rights: str) -> str:
    done = ds("token", "new", "--access", file, "--name", name, *rights)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1 and "only now" in done.stderr
    return done.stdout.strip()


def ask(method: str, url: str, token: str | None = None, context: ssl.SSLContext | None = None) -> tuple[int, bytes]:
    headers = {"Content-Type": "text/plain"} | ({"Authorization": f"Bearer {token}"} if token else {})
    body = b"x" if method in ("POST", "PUT") else None
    asked = urllib.request.Request(url, method=method, headers=headers, data=body)
    try:
        with urllib.request.urlopen(asked, timeout=60, context=context) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, refused.read()


def wait_for(server: serve.Server, text: str, count: int = 1) -> None:
    deadline = time.monotonic() + 60
    while server.output.count(text) < count:
        assert time.monotonic() < deadline, server.output
        time.sleep(0.01)


def test_tokens_come_and_go(file: Path) -> None:
    admin = new(file, "admin", "--read", "**", "--create", "**")
    with serve.start("--memory", "--access", file) as server:
        url = server.url + "/greenhouse/7"
        assert ask("PUT", url)[0] == 401
        assert ask("PUT", url, admin)[0] == 201
        assert ask("POST", url, admin)[0] == 403
        device = new(file, "greenhouse", "--write", "greenhouse/**", "--read", "commands/greenhouse")
        assert ask("POST", url, device)[0] == 401
        os.kill(server.pid, signal.SIGHUP)
        wait_for(server, "INFO reloaded")
        assert ask("POST", url, device)[0] == 204
        assert ask("GET", url, device)[0] == 403
        assert ask("GET", url, admin) == (200, b"xx")

        good = file.read_bytes()
        file.write_bytes(good[:-10])
        os.kill(server.pid, signal.SIGHUP)
        wait_for(server, "not reloaded, the old one stays")
        assert ask("GET", url, admin)[0] == 200
        file.write_bytes(good)

        assert ds("token", "revoke", "greenhouse", "--access", file).returncode == 0
        os.kill(server.pid, signal.SIGHUP)
        wait_for(server, "INFO reloaded", 2)
        assert ask("POST", url, device)[0] == 401

        link = ds("share", "greenhouse/7", "--access", file, "--expires", "1h", "--base", server.origin + "/")
        assert link.returncode == 0
        assert ask("GET", link.stdout.strip()) == (200, b"xx")
        assert ask("GET", link.stdout.strip().replace("/7?", "/8?"))[0] == 401
        assert ds("share", "--revoke-all", "--access", file).returncode == 0
        os.kill(server.pid, signal.SIGHUP)
        wait_for(server, "INFO reloaded", 3)
        assert ask("GET", link.stdout.strip())[0] == 401
        assert server.stop() == 0
        for secret in (admin, device, link.stdout.partition("share=")[2].strip()):
            assert secret not in server.output


def test_list_shows_rights_and_no_secrets(file: Path) -> None:
    token = new(file, "a", "--read", "x/*", "--read", "y", "--write", "z")
    assert ds("token", "new", "--access", file, "--name", "m", "--metrics", "--certificate-only").returncode == 0
    listed = ds("token", "list", "--access", file)
    assert listed.stdout == "a: read x/*, read y, write z\nm (certificate only): metrics\n"
    assert token not in file.read_text()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["token", "new", "--name", "a", "--read", "a"], "there is a token named 'a'"),
        (["token", "new", "--name", "b"], "without a right"),
        (["token", "new", "--name", "b", "--read", "/b"], "empty or a dot segment"),
        (["token", "new", "--name", "", "--read", "b"], "1 to 128"),
        (["token", "revoke", "b"], "no token named 'b'"),
        (["share", "a//b"], "no empty"),
        (["share", "__ds/x"], "reserved"),
        (["share", "http://g/a"], "streams live under /v1/stream/"),
        (["share", "http://g/v1/stream/a?offset=-1"], "without a query"),
        (["share", "ftp://g/v1/stream/a"], "not the URL of a stream"),
        (["share", "a", "--base", "gateway.example"], "not a URL such as"),
        (["share", "a", "--base", "https://g/?x"], "not a URL such as"),
        (["share", "a", "--expires", "1y"], "not a time; give"),
        (["share", "a", "--expires", "3600"], "not a time; give a number with its unit"),
        (["share", "a", "--expires", "400d"], "at most 366d"),
        (["share"], "required"),
    ],
)
def test_mistakes_get_one_line(file: Path, arguments: list[str], complaint: str) -> None:
    new(file, "a", "--read", "a")
    before = file.read_bytes()
    done = ds(*arguments, "--access", file)
    assert done.returncode in (1, 2) and done.stdout == ""
    assert complaint in done.stderr and done.stderr.count("\n") == 1, done.stderr
    assert file.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["greenhouse/7"], "http://127.0.0.1:4437/v1/stream/greenhouse/7"),
        (["/v1/stream/a"], "http://127.0.0.1:4437/v1/stream/a"),
        (["a b/ä?"], "http://127.0.0.1:4437/v1/stream/a%20b/%C3%A4%3F"),
        (["a", "--base", "https://g.example:1/"], "https://g.example:1/v1/stream/a"),
        (["a", "--base", "https://g.example/v1/stream/"], "https://g.example/v1/stream/a"),
        (["https://g.example:1/v1/stream/a%20b"], "https://g.example:1/v1/stream/a%20b"),
        (["http://10.0.0.1:1/v1/stream/a", "--base", "https://g.example"], "https://g.example/v1/stream/a"),
    ],
)
def test_a_link_is_for_a_path_or_a_url(file: Path, arguments: list[str], expected: str) -> None:
    new(file, "a", "--read", "a")
    done = ds("share", *arguments, "--access", file)
    url, _, query = done.stdout.strip().partition("?")
    assert (done.returncode, url) == (0, expected) and query.startswith("share="), done.stderr


def test_the_access_file_may_come_from_the_environment(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the server's own unit names it; so both mean one file."""
    missing = ds("token", "new", "--name", "a", "--read", "a")
    assert missing.returncode == 2 and "--access" in missing.stderr
    monkeypatch.setenv("DS_ACCESS", str(file))
    done = ds("token", "new", "--name", "greenhouse", "--write", "greenhouse/**", "--read", "commands/greenhouse")
    assert done.returncode == 0 and done.stdout.startswith("ds_")
    assert ds("token", "list").stdout == "greenhouse: read commands/greenhouse, write greenhouse/**\n"
    assert ds("share", "greenhouse/7").returncode == ds("token", "revoke", "greenhouse").returncode == 0
    assert ds("token", "list", "--access", file.with_name("other")).returncode == 1


def test_a_server_without_access_control_is_for_its_own_machine() -> None:
    with serve.start("--memory") as server:
        wait_for(server, "no access control: only programs on this machine can connect")
    refused = ds("serve", "--memory", "--host", "0.0.0.0", "--port", 0)
    assert refused.returncode == 2 and refused.stdout == ""
    assert "loopback addresses only" in refused.stderr and refused.stderr.count("\n") == 1
    for how in ({"DS_INSECURE_OPEN": "1"}, {}):
        options = [] if how else ["--insecure-open"]
        with serve.start("--memory", *options, host="0.0.0.0", env=how) as server:
            wait_for(server, "no access control: who can reach this server may read, write and delete")


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--access", "none.json"], "none.json: No such file"),
        (["--access", "x", "--insecure-open"], "not allowed with"),
        (["--access", "x", "--cors", "*"], "--cors are for a server without --access"),
        (["--tls-cert", "x"], "both --tls-cert and --tls-key"),
        (["--tls-client-ca", "x"], "give --tls-cert and --tls-key too"),
        (["--access", "/"], "/: Is a directory"),
        (["--tls-cert", "none.pem", "--tls-key", "none.pem"], "none.pem: No such file"),
    ],
)
def test_a_server_does_not_start_with_half_a_door(options: list[str], complaint: str) -> None:
    refused = ds("serve", "--memory", "--port", 0, *options)
    assert refused.returncode == 2 and "listening" not in refused.stdout
    assert complaint in refused.stderr and refused.stderr.count("\n") == 1, refused.stderr


def test_a_file_that_everybody_can_read_is_warned_about(file: Path) -> None:
    new(file, "a", "--read", "a")
    file.chmod(0o644)
    with serve.start("--memory", "--access", file) as server:
        wait_for(server, "chmod 600")
        os.kill(server.pid, signal.SIGHUP)
        wait_for(server, "chmod 600", 2)


def test_https_and_a_new_certificate(tmp_path: Path) -> None:
    authority = trustme.CA(key_type=trustme.KeyType.ECDSA)
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"

    def issue() -> None:
        issued = authority.issue_cert("127.0.0.1", key_type=trustme.KeyType.ECDSA)
        certificate.write_bytes(issued.cert_chain_pems[0].bytes())
        issued.private_key_pem.write_to_path(str(key))

    def shown() -> bytes | None:
        with socket.create_connection((server.host, server.port), 10) as sock:
            with context.wrap_socket(sock, server_hostname="127.0.0.1") as secure:
                return secure.getpeercert(True)

    issue()
    context = ssl.create_default_context()
    authority.configure_trust(context)
    with serve.start("--memory", "--tls-cert", certificate, "--tls-key", key) as server:
        assert server.url.startswith("https://127.0.0.1:")
        assert ask("PUT", server.url + "/a", context=context)[0] == 201
        before = shown()
        issue()
        os.kill(server.pid, signal.SIGHUP)
        wait_for(server, "INFO reloaded")
        assert shown() != before
        assert ask("GET", server.url + "/a", context=context) == (200, b"x")


def test_json_logs() -> None:
    with serve.start("--memory", "--log-format", "json") as server:
        assert server.stop() == 0
    lines = [line for line in server.output.splitlines() if not line.startswith("listening on ")]
    assert [json.loads(line)["level"] for line in lines] and "stopped" in lines[-1]


def test_a_service_manager_hears_what_happens(file: Path) -> None:
    new(file, "a", "--read", "a")
    folder = tempfile.TemporaryDirectory(dir="/tmp")
    with folder as short, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        address = short + "/notify"
        manager.bind(address)
        manager.settimeout(10)
        environment = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "60000000", "DS_ACCESS": str(file)}
        with serve.start("--memory", env=environment) as server:
            heard = {manager.recv(999), manager.recv(999)}
            assert heard == {b"READY=1", b"WATCHDOG=1"}
            os.kill(server.pid, signal.SIGHUP)
            assert manager.recv(999).startswith(b"RELOADING=1\nMONOTONIC_USEC=")
            assert manager.recv(999) == b"READY=1"
            assert server.stop() == 0
            assert manager.recv(999) == b"STOPPING=1"
