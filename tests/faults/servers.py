"""A server process on a disk under command, and one request to a server."""

from __future__ import annotations

import http.client

from tests.faults import disk
from tests.tools import serve


def ask(server, method, path, body=b"", **headers):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    try:
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        if body:
            given["Content-Type"] = "text/plain"
        connection.request(method, path if path[0] == "/" else f"/v1/stream/{path}", body, given)
        response = connection.getresponse()
        return response.status, {n.lower(): v for n, v in response.getheaders()}, response.read()
    finally:
        connection.close()


class Faulty:
    """A server process on a disk under command; made with the shim, a folder, and options of `ds serve`."""

    def __init__(self, shim, tmp_path, *args):
        self.data = tmp_path / "data"
        self.data.mkdir(exist_ok=True)
        self.disk = disk.Control(tmp_path / "control")
        env = disk.preload(shim, self.data, tmp_path / "control")
        self.server = serve.start("--data", self.data, "--min-free", "0", *args, env=env)
        # The first commit is followed by a checkpoint, which no test is about; the second comes after that.
        assert self.ask("PUT", "first", b"x")[0] == 201
        assert self.ask("PUT", "second", b"x")[0] == 201

    def ask(self, method, path, body=b"", **headers):
        return ask(self.server, method, path, body, **headers)
