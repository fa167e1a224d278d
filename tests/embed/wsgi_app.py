"""Streams as a WSGI application, in a SQLite file: wsgi_app.py FILE [port] [long-poll] [chunk] [root]

A thread for each request: a long-poll, or an event stream, blocks its own."""

import random
import socketserver
import sys
import threading
from wsgiref import simple_server

from ds_core.server import responses, shell, storage
from sqlite_store import Store


class Streams:
    def __init__(self, file, **options):
        self.moved = threading.Event()
        self.store = Store(file, self.wake)
        self.shell = shell.Shell(self.store.clock.now, random.random, **options)

    def wake(self):
        moved, self.moved = self.moved, threading.Event()
        moved.set()

    def turn(self, exchange):
        while True:
            moved = self.moved
            said = self.store.run(exchange.next())
            if not isinstance(said, storage.Wait):
                return said
            moved.wait(said.seconds)

    def __call__(self, environ, start_response):
        headers = {name[5:].replace("_", "-"): value for name, value in environ.items() if name.startswith("HTTP_")}
        if environ.get("CONTENT_TYPE"):
            headers["Content-Type"] = environ["CONTENT_TYPE"]
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        origin = environ["wsgi.url_scheme"] + "://" + environ["HTTP_HOST"]
        exchange = self.shell.exchange(environ["REQUEST_METHOD"], environ["REQUEST_URI"], headers, body, origin)
        said = self.turn(exchange)
        start_response(f"{said.status} {responses.PHRASES[said.status]}", responses.pairs(said, exchange.length))
        yield said.body
        while not exchange.done:
            yield self.turn(exchange)


class Handler(simple_server.WSGIRequestHandler):
    def get_environ(self):
        environ = super().get_environ()
        environ["REQUEST_URI"] = self.path  # PATH_INFO is decoded: %2F in it is a slash
        if "content-type" not in self.headers:
            del environ["CONTENT_TYPE"]  # which wsgiref makes up
        return environ

    def log_message(self, *args):
        pass


class Server(socketserver.ThreadingMixIn, simple_server.WSGIServer):
    daemon_threads = True
    request_queue_size = 128


def main(file, port="4437", long_poll="30", chunk="16777216", root="/v1/stream/"):
    app = Streams(file, long_poll=float(long_poll), chunk=int(chunk), root=root)
    server = simple_server.make_server("127.0.0.1", int(port), app, Server, Handler)
    print(f"listening on http://127.0.0.1:{server.server_port}{root.rstrip('/')}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
