"""https: certificate checking on by default, against a CA file or a pinned certificate.

`ca`: the path of a file with CA certificates, or their bytes (PEM, or DER on MicroPython), or None for the
system's (CPython only: a device has none). `pin`: the SHA-256 of the server's certificate (DER), in hexadecimal;
then nothing else is checked. `verify=False` turns all checks off. Checking dates needs a clock: set it (NTP) before
the first connection.
"""

import binascii
import errno
import hashlib
import sys

try:
    import ssl
except ImportError:
    import tls as ssl

_SILENT = "no TLS handshake: does that port speak https?"
_CPYTHON = sys.implementation.name != "micropython"

if _CPYTHON:

    class _Socket(ssl.SSLSocket):
        readinto = ssl.SSLSocket.recv_into


class PinMismatch(OSError):
    """The server's certificate is not the pinned one."""


class Wrapper:
    """Wraps connected sockets; `context` is for asyncio on CPython."""

    def __init__(self, ca=None, pin=None, verify=True):
        self._pin = pin.replace(":", "").lower() if pin else None
        if pin and (ca or len(self._pin) != 64):
            raise ValueError("pin must be a SHA-256 in hexadecimal, and without ca")
        self.context = context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if _CPYTHON:
            context.sslsocket_class = _Socket
        if pin or not verify:
            if _CPYTHON:
                context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            return
        if isinstance(ca, str):
            with open(ca, "rb") as f:
                ca = f.read()
        context.verify_mode = ssl.CERT_REQUIRED
        if not _CPYTHON:
            if not ca:
                raise ValueError("https needs ca= or pin= (or verify=False) on a device")
            context.load_verify_locations(ca if isinstance(ca, (bytes, bytearray)) else bytes(ca))
        elif ca:
            context.load_verify_locations(cadata=ca.decode() if b"-----BEGIN" in ca else ca)
        else:
            context.load_default_certs()

    def check(self, sock):
        """Raise PinMismatch unless the certificate is the pinned one."""
        if self._pin:
            certificate = sock.getpeercert(True)
            digest = binascii.hexlify(hashlib.sha256(certificate or b"").digest()).decode()
            if not certificate or digest != self._pin:
                raise PinMismatch(errno.EACCES, "the server's certificate has SHA-256 " + digest)

    def __call__(self, sock, host, ms, wait):
        """The wrapped socket, its handshake done within `ms`; `wait(flag, ms)` waits for the plain socket."""
        if _CPYTHON:
            sock.settimeout(ms / 1000)
            try:
                sock = self.context.wrap_socket(sock, server_hostname=host)
            except TimeoutError:
                raise OSError(110, _SILENT) from None
            sock.setblocking(False)
        else:
            # A non-blocking handshake runs with the first write or read; it is over once there is a certificate.
            import select
            from time import ticks_diff, ticks_ms

            start = ticks_ms()
            sock = self.context.wrap_socket(sock, server_hostname=host, do_handshake_on_connect=False)
            poll = select.poll()
            poll.register(sock, select.POLLIN | select.POLLOUT)
            one = bytearray(1)
            while True:
                if sock.readinto(one):
                    raise OSError(errno.EIO, "the server spoke first")
                if sock.getpeercert(True):
                    break
                if ticks_diff(ticks_ms(), start) > ms:
                    raise OSError(110, _SILENT)
                poll.modify(sock, select.POLLIN)
                poll.poll(100)
        self.check(sock)
        return sock

