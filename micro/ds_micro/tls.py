"""https: certificate checking on by default, against a CA file or a pinned certificate.

`ca`: the path of a file with CA certificates, or their bytes (PEM, or DER on MicroPython), or None for the
system's (CPython only: a device has none). `pin`: the SHA-256 of the server's certificate (DER), in hexadecimal;
then nothing else is checked. `verify=False` turns all checks off. Checking dates needs a clock: set it (NTP) before
the first connection.

On MicroPython this is the port's own module `tls` (1.24 and newer): `ssl` on top of it differs from port to port. No
handshake is waited for there, the first write completes it. Only with `pin` there is something to do in between, and
only where the port keeps the peer's certificate: most boards' firmware does not. A self-signed one works as `ca`.
"""

import binascii
import hashlib
import sys

_CPYTHON = sys.implementation.name != "micropython"

if _CPYTHON:
    import ssl as tls

    class _Socket(tls.SSLSocket):
        readinto = tls.SSLSocket.recv_into
else:
    import tls


class Wrapper:
    """Wraps connected sockets; `context` is for asyncio on CPython."""

    def __init__(self, ca=None, pin=None, verify=True, **others):
        if others:
            from ds_micro.misspelt import STREAM, no_option

            no_option("Stream", others, STREAM)
        self._pin = pin.replace(":", "").lower() if pin else None
        if pin and (ca or len(self._pin) != 64 or self._pin.strip("0123456789abcdef")):
            raise ValueError("pin must be a SHA-256 in hexadecimal, and without ca")
        self.context = context = tls.SSLContext(tls.PROTOCOL_TLS_CLIENT)
        if _CPYTHON:
            context.sslsocket_class = _Socket
            context.check_hostname = bool(verify and not pin)
        if pin or not verify:
            context.verify_mode = tls.CERT_NONE
            if pin and not _CPYTHON:
                import io

                if not hasattr(self.wrap(io.BytesIO(), "x"), "getpeercert"):
                    raise ValueError("pin= needs a certificate that this firmware does not keep; ca= takes it (DER)")
            return
        if isinstance(ca, str):
            with open(ca, "rb") as f:
                ca = f.read()
        context.verify_mode = tls.CERT_REQUIRED
        if not _CPYTHON:
            if not ca:
                raise ValueError("https needs ca= or pin= (or verify=False) on a device")
            context.load_verify_locations(bytes(ca))
        elif ca:
            context.load_verify_locations(cadata=ca.decode() if b"-----BEGIN" in ca else ca)
        else:
            context.load_default_certs()

    def wrap(self, sock, host):
        """The wrapped socket, which does not block."""
        return self.context.wrap_socket(sock, server_hostname=host, do_handshake_on_connect=False)

    def ready(self, sock):
        """Whether a request may be written; False: when there is something to read, ask again."""
        if _CPYTHON:
            try:
                sock.do_handshake()
            except (tls.SSLWantReadError, tls.SSLWantWriteError):
                return False
        elif self._pin:
            # The handshake runs with this, and is over once there is a certificate.
            n = sock.readinto(bytearray(1))
            if n is not None:
                raise OSError(5 if n else 104)  # the server spoke first, or closed
            if not sock.getpeercert(True):
                return False
        self.check(sock)
        return True

    def check(self, sock):
        """Raise ValueError unless the certificate is the pinned one."""
        if self._pin:
            digest = binascii.hexlify(hashlib.sha256(sock.getpeercert(True)).digest()).decode()
            if digest != self._pin:
                raise ValueError("the server's certificate has SHA-256 " + digest)
