"""https: a CA file, a pinned certificate, and nobody else; on CPython and MicroPython."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import shutil
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
