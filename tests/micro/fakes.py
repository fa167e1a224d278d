"""A stream's server within the program, and flash whose power can be cut: for tests on MicroPython and CPython."""
# ruff: noqa: UP031 (MicroPython)


class PowerCut(BaseException):
    """Not an Exception: nothing in the code under test may survive it."""


class Server:
    """A stream's producer rules (protocol section 5), and what the stream has."""

    def __init__(self):
        self.bodies = []
        self.epoch = self.seq = -1

    def post(self, epoch, seq, body):
        """(status, headers)"""
        assert body
        echo = {"producer-epoch": str(epoch), "producer-seq": str(seq)}
        if epoch < self.epoch:
            return 403, {"producer-epoch": str(self.epoch)}
        if epoch == self.epoch and seq <= self.seq:
            return 204, {"producer-epoch": str(epoch), "producer-seq": str(self.seq)}
        if epoch == self.epoch and seq > self.seq + 1 or self.epoch < 0 < seq:
            expected = self.seq + 1 if epoch == self.epoch else 0
            return 409, {"producer-expected-seq": str(expected), "producer-received-seq": str(seq)}
        if epoch > self.epoch and seq:
            return 400, {}
        self.bodies.append(body)
        self.epoch, self.seq = epoch, seq
        return 200, echo


class Net:
    """A transport to `server` (a class attribute), which is never away. See ds_micro.net.Net."""

    server = None

    def __init__(self):
        self._in = b""
        self._out = b""

    async def open(self, host, port, ms, tls=None):
        self.close()

    def close(self):
        self._in = self._out = b""

    def stale(self):
        return bool(self._out)

    async def send(self, view, ms):
        self._in += bytes(view)
        head, end, body = self._in.partition(b"\r\n\r\n")
        fields = {}
        for line in head.split(b"\r\n")[1:]:
            name, _, text = line.partition(b": ")
            fields[name.lower()] = text
        if not end or len(body) < int(fields.get(b"content-length", b"0")):
            return
        epoch, seq = int(fields[b"producer-epoch"]), int(fields[b"producer-seq"])
        self._in = b""
        status, headers = self.server.post(epoch, seq, body)
        lines = ["HTTP/1.1 %d X" % status, "stream-next-offset: 1", "content-length: 0"]
        lines += ["%s: %s" % pair for pair in headers.items()]
        self._out += ("\r\n".join(lines) + "\r\n\r\n").encode()

    async def recv(self, view, ms):
        n = min(len(view), len(self._out))
        view[:n] = self._out[:n]
        self._out = self._out[n:]
        return n

    async def sleep(self, ms):
        pass


class Flash:
    """A block device in RAM. Its operation number `cut` (from 1) happens in half, or not at all, and none after it."""

    def __init__(self, data, block):
        self.data = data
        self._block = block
        self.ops = 0
        self.cut = 0
        self.half = False
        self.off = False  # then everything fails, without memory for an exception: files are closed by the collector

    def _op(self, at, new):
        self.ops += 1
        if self.ops == self.cut:
            self.off = True
            if self.half:
                self.data[at : at + len(new) // 2] = new[: len(new) // 2]
            raise PowerCut
        self.data[at : at + len(new)] = new

    def readblocks(self, block, buf, offset=0):
        if self.off:
            return -5
        at = block * self._block + offset
        buf[:] = memoryview(self.data)[at : at + len(buf)]
        return 0

    def writeblocks(self, block, buf, offset=0):
        if self.off:
            return -5
        # FAT writes several blocks at once, which a cut can part.
        for at in range(0, len(buf), self._block):
            part = bytes(buf[at : at + self._block])
            self._op(block * self._block + offset + at, part)
        return 0

    def ioctl(self, operation, block):
        if operation == 4:
            return len(self.data) // self._block
        if operation == 5:
            return self._block
        if self.off:
            return -5
        if operation == 6 and self._block == 4096:
            self._op(block * self._block, b"\xff" * self._block)
        return 0


def mount(kind, data, path, new=False):
    """Mount `kind` ("littlefs", "fat") from `data` there; the device."""
    import vfs

    device = Flash(data, 4096 if kind == "littlefs" else 512)
    if kind == "littlefs":
        if new:
            vfs.VfsLfs2.mkfs(device, progsize=32)
        system = vfs.VfsLfs2(device, progsize=32)
    else:
        if new:
            vfs.VfsFat.mkfs(device)
        system = vfs.VfsFat(device)
    vfs.mount(system, path)
    return device


def unmount(path, device):
    """As if the power went: nothing that is still open may write."""
    import vfs

    device.off = True
    try:
        vfs.umount(path)
    except (OSError, PowerCut):
        pass
