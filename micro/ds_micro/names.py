"""CPython: name lookups with a deadline. (A device's own lookup cannot be interrupted; its port bounds it.)"""

import socket
import threading


def lookup(host, port, ms):
    """The first IPv4 address of a host name; OSError, TimeoutError."""
    found = []

    def look():
        try:
            found.append(socket.getaddrinfo(host, port, socket.AF_INET, socket.SOCK_STREAM)[0][-1])
        except OSError as exc:
            found.append(exc)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    thread.join(ms / 1000)
    if not found:
        raise TimeoutError(110, "looking up " + host)
    if isinstance(found[0], OSError):
        raise found[0]
    return found[0]
