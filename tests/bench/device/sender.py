"""Sends RECORDS records of SIZE bytes, on MicroPython or CPython; prints how many milliseconds it took.

    micropython sender.py streams LIBRARIES URL OUTBOX RECORDS SIZE BATCH
    micropython sender.py mqtt HOST PORT TOPIC RECORDS SIZE

`streams`: through an outbox in a folder, or in RAM ("-"), BATCH records to a request. `mqtt`: QoS 1, the packets that
umqtt.simple sends (MQTT 3.1.1, clean session, one PUBLISH, then its PUBACK).
"""

import sys
import time

try:
    from time import ticks_diff, ticks_ms
except ImportError:

    def ticks_ms():
        return int(time.monotonic() * 1000)

    def ticks_diff(a, b):
        return a - b


def record(n, size):
    """A CBOR item of `size` bytes: a byte string."""
    return bytes([0x40 + size - 1]) + b"%0*d" % (size - 1, n)


def streams(libraries, url, outbox, records, size, batch):
    sys.path[:0] = [libraries]
    from ds_micro import Outbox, Stream

    box = Outbox(
        None if outbox == "-" else outbox, Stream(url, buffer=512), producer="sensor", limit=16 * 1024, count=int(batch)
    )
    start = ticks_ms()
    for n in range(int(records)):
        box.append(record(n, int(size)), raw=True)
        if n % int(batch) == int(batch) - 1:
            assert box.flush(20) == 0, box.error
    return ticks_diff(ticks_ms(), start)


def mqtt(host, port, topic, records, size):
    import socket

    sock = socket.socket()
    sock.connect(socket.getaddrinfo(host, int(port))[0][-1])
    read, write = (sock.recv, sock.sendall) if hasattr(sock, "sendall") else (sock.read, sock.write)
    topic = topic.encode()
    name = b"sensor"
    write(b"\x10" + bytes([12 + len(name)]) + b"\x00\x04MQTT\x04\x02\x00\x00\x00" + bytes([len(name)]) + name)
    assert read(4) == b"\x20\x02\x00\x00", "not accepted"
    start = ticks_ms()
    for n in range(int(records)):
        data = record(n, int(size))
        pid = (n % 65535 + 1).to_bytes(2, "big")
        write(b"\x32" + bytes([4 + len(topic) + len(data)]) + b"\x00" + bytes([len(topic)]) + topic + pid + data)
        assert read(4) == b"\x40\x02" + pid, "not acknowledged"
    took = ticks_diff(ticks_ms(), start)
    write(b"\xe0\x00")
    sock.close()
    return took


print({"streams": streams, "mqtt": mqtt}[sys.argv[1]](*sys.argv[2:]))
