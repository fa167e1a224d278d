"""What boards have for TLS, for tests: the port's module `tls`, and micropython-lib's `ssl` on top of it.

As there, a socket has no getpeercert(), load_verify_locations() takes its first argument by position (data in `tls`, a
file's name in `ssl`), nothing waits when do_handshake_on_connect is false, and a certificate that is rejected is a
ValueError, raised by the read or write in which the handshake ends. Behind it is the interpreter's own TLS.
"""

import io
import sys

CPYTHON = sys.implementation.name == "cpython"
if CPYTHON:
    import ssl as real
else:
    import tls as real

PROTOCOL_TLS_CLIENT = real.PROTOCOL_TLS_CLIENT
CERT_NONE = real.CERT_NONE
CERT_REQUIRED = real.CERT_REQUIRED


class Socket:
    """Of CPython's, what a board's has."""

    def __init__(self, sock):
        self._sock = sock
        self.fileno = sock.fileno
        self.close = sock.close

    def _try(self, call, argument):
        try:
            return call(argument)
        except (real.SSLWantReadError, real.SSLWantWriteError):
            import time

            time.sleep(0.001)  # a board's poll knows what the handshake waits for, this one's does not
            return None
        except real.SSLCertVerificationError as exc:
            raise ValueError(exc.verify_message) from None

    def readinto(self, view):
        return self._try(self._sock.recv_into, view)

    def write(self, view):
        return self._try(self._sock.send, view)


class SSLContext:
    def __init__(self, protocol):
        self._real = real.SSLContext(protocol)

    def __getattr__(self, name):
        if name != "verify_mode":
            raise AttributeError(name)
        return self._real.verify_mode

    def __setattr__(self, name, value):
        if name == "_real":
            super().__setattr__(name, value)
            return
        assert name == "verify_mode", name
        if CPYTHON:
            self._real.check_hostname = value != CERT_NONE
        self._real.verify_mode = value

    def load_verify_locations(self, cadata):
        assert isinstance(cadata, bytes)
        if CPYTHON:
            self._real.load_verify_locations(cadata=cadata)
        else:
            self._real.load_verify_locations(cadata)

    def wrap_socket(self, sock, server_side=False, do_handshake_on_connect=True, server_hostname=None):
        assert not do_handshake_on_connect, "it would block, whatever the socket is set to"
        if isinstance(sock, io.BytesIO):
            return object()
        wrapped = self._real.wrap_socket(sock, server_hostname=server_hostname, do_handshake_on_connect=False)
        return Socket(wrapped) if CPYTHON else wrapped


class ssl:
    """micropython-lib's."""

    CERT_NONE = CERT_NONE
    CERT_REQUIRED = CERT_REQUIRED
    PROTOCOL_TLS_CLIENT = PROTOCOL_TLS_CLIENT

    class SSLContext(SSLContext):
        def load_verify_locations(self, cafile=None, cadata=None):
            if cafile:
                with open(cafile, "rb") as f:
                    cadata = f.read()
            super().load_verify_locations(cadata)


def install():
    """From now on, the device's client finds this."""
    this = sys.modules[__name__]
    sys.modules["ssl" if not CPYTHON else "ssl of a board"] = ssl
    sys.modules["tls"] = this
    import ds_micro.tls

    ds_micro.tls.tls = this
    ds_micro.tls._CPYTHON = False
