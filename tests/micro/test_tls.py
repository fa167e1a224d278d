"""https: a CA file, a pinned certificate, and nobody else; on CPython and MicroPython."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import shutil
import socket
import ssl
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.tools import ci, micropython, serve

ROOT = Path(__file__).resolve().parent.parent.parent
HERE = Path(__file__).resolve().parent


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """(certificate, key, SHA-256 of the certificate) of a self-signed localhost."""
    if not shutil.which("openssl"):
        ci.missing("openssl makes the test's certificate")
    folder = tmp_path_factory.mktemp("tls")
    pem, key = folder / "cert.pem", folder / "key.pem"
    argv = ["openssl", "req", "-x509", "-nodes", "-days", "30"]
    argv += ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    argv += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    argv += ["-keyout", str(key), "-out", str(pem)]
    subprocess.run(argv, check=True, capture_output=True, timeout=60)
    der = ssl.PEM_cert_to_DER_cert(pem.read_text())
    (folder / "cert.der").write_bytes(der)
    return pem, key, hashlib.sha256(der).hexdigest()


@contextlib.contextmanager
def relay(server, pem, key):
    """TLS in front of a server; the port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem, key)
    loop = asyncio.new_event_loop()
    ready = threading.Event()
    ports = []
    tasks = set()

    async def copy(reader, writer):
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def connection(reader, writer):
        tasks.add(asyncio.current_task())
        with contextlib.suppress(OSError, asyncio.CancelledError):
            far = await asyncio.open_connection(server.host, server.port)
            await asyncio.gather(copy(reader, far[1]), copy(far[0], writer))

    async def main():
        listener = await asyncio.start_server(connection, "127.0.0.1", 0, ssl=context)
        ports.append(listener.sockets[0].getsockname()[1])
        ready.set()

    loop.set_exception_handler(lambda loop, context: None)  # clients that refuse us are the point
    thread = threading.Thread(target=lambda: (loop.run_until_complete(main()), loop.run_forever()), daemon=True)
    thread.start()
    assert ready.wait(10)
    yield ports[0]
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)


@pytest.mark.parametrize("build", ["cpython", 64, 32])
def test_certificates_are_checked(build, certificate):
    pem, key, pin = certificate
    python, ca = [sys.executable], pem
    if build != "cpython":
        ca = pem.with_suffix(".der")
        try:
            python = micropython.find(build)
        except micropython.Unavailable as exc:
            ci.missing(exc)
    with serve.start("--memory") as server, relay(server, pem, key) as port:
        argv = [*python, HERE / "tls_client.py", ROOT, f"https://localhost:{port}/v1/stream/tls", ca, pin]
        done = subprocess.run([str(word) for word in argv], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "done" in done.stdout, done.stdout + done.stderr


def make(folder: Path, name: str, host: str, *, days: tuple[str, str] | None = None) -> tuple[Path, Path]:
    """A self-signed certificate for a host, PEM and DER beside it; and its key."""
    pem, key = folder / f"{name}.pem", folder / f"{name}.key"
    request = ["openssl", "req", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    request += ["-subj", f"/CN={host}", "-addext", f"subjectAltName=DNS:{host}", "-keyout", str(key)]
    if days is None:
        argv = [*request, "-x509", "-days", "30", "-out", str(pem)]
        subprocess.run(argv, check=True, capture_output=True, timeout=60)
    else:
        subprocess.run([*request, "-out", str(folder / "request")], check=True, capture_output=True, timeout=60)
        (folder / "index").touch()
        (folder / "serial").write_text("01")
        (folder / "ca.cnf").write_text(
            f"[ca]\ndefault_ca = x\n[x]\ndatabase = {folder}/index\nserial = {folder}/serial\n"
            f"new_certs_dir = {folder}\ndefault_md = sha256\npolicy = any\ncopy_extensions = copy\n"
            "[any]\ncommonName = supplied\n"
        )
        argv = ["openssl", "ca", "-batch", "-selfsign", "-config", str(folder / "ca.cnf"), "-keyfile", str(key)]
        argv += ["-startdate", days[0], "-enddate", days[1], "-in", str(folder / "request"), "-out", str(pem)]
        subprocess.run(argv, check=True, capture_output=True, timeout=60)
    text = pem.read_text()
    der = ssl.PEM_cert_to_DER_cert(text[text.index("-----BEGIN") :])
    pem.with_suffix(".der").write_bytes(der)
    return pem, key


@contextlib.contextmanager
def dribbling(pem: Path, key: Path):
    """Ports, with TLS and without, of a server that answers anything by a byte every 0.1 s."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem, key)
    stop = threading.Event()

    def serve_one(sock: socket.socket, tls: bool) -> None:
        with contextlib.suppress(OSError), sock:
            sock.settimeout(5)
            wrapped = context.wrap_socket(sock, server_side=True) if tls else sock
            wrapped.recv(65536)
            for byte in b"HTTP/1.1 200 OK\r\n" + b"X-Filler: abc\r\n" * 100:
                wrapped.sendall(bytes([byte]))
                if stop.wait(0.1):
                    return

    def listen(listener: socket.socket, tls: bool) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock = listener.accept()[0]
                threading.Thread(target=serve_one, args=(sock, tls), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        for listener, tls in ((one, True), (other, False)):
            threading.Thread(target=listen, args=(listener, tls), daemon=True).start()
        yield one.getsockname()[1], other.getsockname()[1]
        stop.set()


@pytest.mark.parametrize("build", ["cpython", 64, 32])
def test_firmware_as_boards_have_it(build, certificate, tmp_path):
    """No getpeercert(), and a rejected certificate is a ValueError: see board_tls. Not proven on a board."""
    python = [sys.executable]
    if build != "cpython":
        try:
            python = micropython.find(build)
        except micropython.Unavailable as exc:
            ci.missing(exc)
    pem, key, _ = certificate
    other, _ = make(tmp_path, "other", "localhost")
    elsewhere = make(tmp_path, "elsewhere", "elsewhere.example")
    expired = make(tmp_path, "expired", "localhost", days=("200101000000Z", "210101000000Z"))
    ca = tmp_path / "ca.der"
    ca.write_bytes(pem.with_suffix(".der").read_bytes())
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(serve.start("--memory"))
        port = stack.enter_context(relay(server, pem, key))
        wrong = stack.enter_context(relay(server, *elsewhere))
        late = stack.enter_context(relay(server, *expired))
        slow, plain = stack.enter_context(dribbling(pem, key))
        silent = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        urls = [f"https://localhost:{number}/v1/stream/s" for number in (port, wrong, late)]
        argv = [*python, HERE / "board_tls_client.py", ROOT, urls[0], ca, other.with_suffix(".der"), *urls[1:]]
        argv += [f"https://localhost:{slow}", plain, f"https://localhost:{silent.getsockname()[1]}/s"]
        done = subprocess.run([str(word) for word in argv], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0 and "done" in done.stdout, done.stdout + done.stderr
