"""make bench-device: what the client costs a device, as a table.

    python -m tests.bench.device [--records 10000] [--output hardware-notes/measured.md | --output -]

Size of the .mpy files; heap once imported and free heap over 10,000 records of a sensor's loop, on MicroPython's 32-bit
build with a heap of 40 KB; bytes on the wire for records of 20 bytes, beside MQTT QoS 1 with Mosquitto (from the PATH;
Debian: apt-get install mosquitto); records per second. It measures, and never fails on a figure.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bench import machine
from tests.tools import micropython, serve

from .proxy import Proxy

ROOT = Path(__file__).resolve().parents[3]
HERE = Path(__file__).resolve().parent
BUDGET = 16 * 1024
HEAP = "40k"
SIZE = 20
BATCH = 20
TOPIC = "greenhouse/7"
BROKER_PATHS = "/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin:/opt/homebrew/sbin"


def run(argv: Sequence[str], timeout: float = 600) -> str:
    done = subprocess.run(
        list(argv), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=timeout
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(argv)} ended with {done.returncode}:\n{done.stdout}")
    return done.stdout


@dataclass
class Sizes:
    """.mpy files: (bytes, name), of the blocking client, and of what is loaded when it is used."""

    client: list[tuple[int, str]]
    rare: list[tuple[int, str]]

    @property
    def total(self) -> int:
        return sum(size for size, _ in self.client)


def sizes(output: Path) -> Sizes:
    text = run([sys.executable, str(ROOT / "micro" / "build.py"), "--output", str(output)])
    groups: list[list[tuple[int, str]]] = [[]]
    for line in text.splitlines():
        if found := re.fullmatch(r" +(\d+)  (\S+\.mpy)", line):
            groups[-1].append((int(found[1]), found[2]))
        elif line.endswith("in all"):
            groups.append([])
    return Sizes(groups[0], groups[1])


@dataclass
class Loop:
    """A sensor's loop: heap after importing, free heap after each thousand records, records per second."""

    imported: int
    free: list[int]
    rate: float


def loop(interpreter: list[str], build: Path, folder: Path, records: int) -> Loop:
    with serve.start("--data", folder / "loop-data") as server:
        url = server.url + "/sensor"
        run([*serve.command(), "create", url])
        (folder / "loop").mkdir()
        argv = [*interpreter, "-X", f"heapsize={HEAP}", str(ROOT / "tests" / "micro" / "sensor_loop.py")]
        began = time.monotonic()
        text = run([*argv, str(build), url, str(folder / "loop"), str(records)])
        took = time.monotonic() - began
    imported = re.search(r"^imported (\d+)", text, re.MULTILINE)
    free = [int(found[1]) for found in re.finditer(r"^free \d+ (\d+)", text, re.MULTILINE)]
    assert imported, text
    return Loop(int(imported[1]), free, records / took)


@dataclass
class Wire:
    """Bytes on the wire per record, both ways, and records per second, one connection."""

    sent: float
    received: float
    rate: float

    @property
    def both(self) -> float:
        return self.sent + self.received


def wire(proxy: Proxy, argv: Sequence[str], records: int) -> Wire:
    took = int(run(argv).split()[-1])
    proxy.close()
    return Wire(proxy.sent / records, proxy.received / records, records / max(took, 1) * 1000)


def streams(interpreter: list[str], build: Path, folder: Path, records: int, batch: int, ram: bool = False) -> Wire:
    name = f"wire-{batch}{'-ram' if ram else ''}"
    with serve.start("--data", folder / f"{name}-data") as server, Proxy(server.port) as proxy:
        run([*serve.command(), "create", f"{server.url}/{TOPIC}"])
        url = f"http://127.0.0.1:{proxy.port}/v1/stream/{TOPIC}"
        outbox = "-" if ram else str(folder / name)
        argv = [*interpreter, str(HERE / "sender.py"), "streams", str(build), url, outbox]
        return wire(proxy, [*argv, str(records), str(SIZE), str(batch)], records)


@contextlib.contextmanager
def mosquitto(folder: Path) -> Iterator[int]:
    """A broker on a free port; FileNotFoundError when it is not installed."""
    program = shutil.which("mosquitto") or shutil.which("mosquitto", path=BROKER_PATHS)
    if not program:
        raise FileNotFoundError("mosquitto is not installed")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    config = folder / "mosquitto.conf"
    config.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\nlog_type none\n")
    process = subprocess.Popen([program, "-c", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(100):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.1)
        yield port
    finally:
        process.terminate()
        process.wait(10)


def mqtt(interpreter: list[str], folder: Path, records: int) -> Wire | None:
    try:
        with mosquitto(folder) as port, Proxy(port) as proxy:
            argv = [*interpreter, str(HERE / "sender.py"), "mqtt", "127.0.0.1", str(proxy.port), TOPIC]
            return wire(proxy, [*argv, str(records), str(SIZE)], records)
    except FileNotFoundError:
        return None


def version(argv: Sequence[str], pattern: str) -> str:
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(list(argv), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=20)
        if found := re.search(pattern, done.stdout):
            return found[1]
    return "not installed"


def measure(records: int, folder: Path) -> str:
    interpreter = micropython.find(32)
    build = folder / "mpy"
    size = sizes(build)
    heap = loop(interpreter, build, folder, records)
    singly = streams(interpreter, build, folder, max(100, records // 10), 1)
    batched = streams(interpreter, build, folder, records, BATCH)
    in_ram = streams(interpreter, build, folder, records, BATCH, ram=True)
    broker = mqtt(interpreter, folder, records)
    probe = [*interpreter, "-c", "import sys; print(sys.version)"]
    broker_program = shutil.which("mosquitto") or shutil.which("mosquitto", path=BROKER_PATHS) or "mosquitto"
    facts = machine.describe(folder)
    ways = [
        (f"outbox, {BATCH} records to a request", batched),
        ("outbox, each record a request", singly),
        (f"outbox in RAM, {BATCH} records to a request", in_ram),
        *([("MQTT QoS 1, Mosquitto", broker)] if broker else []),
    ]
    return TEXT.format(
        date=datetime.date.today(),
        commit=facts["commit"],
        computer=f"{facts['processor']}, {facts['cores']} cores, {facts['system']}",
        micropython=version(probe, r"(v[0-9][^ ;]*)"),
        mosquitto=version([broker_program, "-h"], r"version (.*)"),
        total=size.total,
        budget=BUDGET,
        imported=heap.imported,
        heap=HEAP,
        first=heap.free[0],
        last=heap.free[-1],
        drift=heap.free[-1] - heap.free[0],
        records=f"{records:,}",
        size=SIZE,
        batch=BATCH,
        topic=TOPIC,
        ours=f"{batched.both:.2f}",
        mqtt=f"{broker.both:.2f}" if broker else "not measured",
        rate=f"{heap.rate:.0f}",
        wire=table(
            (name, *(f"{value:.2f}" for value in (way.sent, way.received, way.both)), f"{way.rate:.0f}")
            for name, way in ways
        ),
        free=table((f"{1000 * (at + 1):,}", free) for at, free in enumerate(heap.free)),
        client=table((name, count) for count, name in size.client),
        rare=table((name, count) for count, name in size.rare),
    )


def table(rows: Iterable[Sequence[object]]) -> str:
    return "\n".join(f"| {' | '.join(map(str, row))} |" for row in rows)


TEXT = """\
# Measured

Written by `make bench-device`. Size, heap and bytes are a board's own, up to its port's differences; records per second
are this computer's, on loopback and its disk, and tell only how one way compares to another.

{date}, commit {commit}; {computer}; MicroPython {micropython} (Unix port, 32-bit), Mosquitto {mosquitto}.

## In short

| | |
| --- | ---: |
| blocking client with CBOR, writer, reader and outbox, .mpy | {total} bytes (budget {budget}) |
| heap once imported | {imported} bytes |
| free heap of {heap} after 1,000 records of a sensor's loop | {first} bytes |
| free heap after {records} records | {last} bytes ({drift:+}) |
| bytes on the wire per {size}-byte record, {batch} to a request | {ours} |
| the same with MQTT QoS 1 | {mqtt} |

## On the wire

TCP payload per record of {size} bytes, in bytes, on one connection, counted by a proxy on loopback. Stream path and
topic are `{topic}`. A TCP segment adds 40 bytes of IP and TCP heads, and Wi-Fi's own: MQTT needs two segments or more
for a record, a batch of {batch} about three for {batch}.

| | sent | received | both ways | records/s |
| --- | ---: | ---: | ---: | ---: |
{wire}

An outbox in a folder makes each record durable before it goes on, so its rate is the disk's. The MQTT client keeps
nothing. It is a minimal one of our own that sends the packets of umqtt.simple (3.1.1, clean session, PUBLISH and PUBACK
in turns). QoS 1 is at least once: a PUBLISH whose PUBACK is lost arrives twice.

## A sensor's loop

`tests/micro/sensor_loop.py` under `-X heapsize={heap}`, from .mpy files: each record into an outbox on a file system, a
flush every 20 records, every 200 a tail with its cursor saved. {records} records, {rate} records/s here.

| records | free heap, bytes |
| ---: | ---: |
{free}

## .mpy files

| the blocking client | bytes |
| --- | ---: |
{client}
| in all | {total} |

| loaded when used | bytes |
| --- | ---: |
{rare}
"""


def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench-device", description="What the client costs a device.")
    parser.add_argument("--records", type=int, default=10_000, help="how many (default: 10000)")
    parser.add_argument("--output", default=str(ROOT / "hardware-notes" / "measured.md"), help="- only prints")
    options = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory(prefix="ds-bench-") as folder:
            text = measure(max(1000, options.records), Path(folder))
    except micropython.Unavailable as exc:
        print(f"make bench-device needs MicroPython: {exc}", file=sys.stderr)
        return 1
    print(text)
    if options.output != "-":
        Path(options.output).write_text(text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
