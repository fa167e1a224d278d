"""make demo: a sensor on real MicroPython, a gateway and a live reader in one terminal, while the power fails.

    python -m tests.demo [--seconds 25] [--cuts 8] [--seed N]

The sensor (`sensor.py`, on the 32-bit build with a heap of 64 KB) keeps records in an outbox, which is a folder, and
sends them to `ds serve`; `ds tail` prints the stream. A power cut is SIGKILL at a random instant, of the sensor or of
the gateway. In the end every record that was safe in the outbox must be in the stream exactly once, in order; a record
that was cut off while it was being kept may be there once or not at all. Exits with 0 when that is so.

SIGKILL does not lose what the operating system has cached: tests/micro cuts the outbox off on a modelled disk, and
tests/faults the gateway's store on a failing one.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import shlex
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from tests.tools import micropython, serve

ROOT = Path(__file__).resolve().parents[2]
PERIOD = 25  # ms between measurements
OFF = 0.4, 1.2  # seconds without power
HEAP = "64k"


class Screen:
    """Lines of several speakers, in the order in which they come."""

    COLORS = {"gateway": "36", "sensor": "33", "reader": "32", "POWER": "1;31", "proof": "1"}

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._began = time.monotonic()
        self._colored = sys.stdout.isatty()

    def __call__(self, who: str, text: str) -> None:
        label = f"{who:8}"
        if self._colored:
            label = f"\x1b[{self.COLORS[who]}m{label}\x1b[0m"
        with self._lock:
            print(f"{time.monotonic() - self._began:5.1f} s  {label} {text}", flush=True)


class Sensor:
    """The device: a process from one power-on to the next power cut, and what is known about its records."""

    def __init__(self, say: Screen, argv: list[str], url: str, outbox: Path) -> None:
        self._say = say
        self._argv = argv
        self._url = url
        self._outbox = outbox
        self._process: subprocess.Popen[str] | None = None
        self._thread: threading.Thread | None = None
        self.measured = -1
        self.safe: list[int] = []
        self.boots = self.repeated = 0
        self.trouble = ""

    def on(self, drain: bool = False) -> None:
        self.boots += 1
        first, period = (-1, 0) if drain else (self.measured + 1, PERIOD)
        argv = [*self._argv, self._url, str(self._outbox), str(first), str(period)]
        self._process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self._thread = threading.Thread(target=self._listen, args=(self._process,), daemon=True)
        self._thread.start()

    def _listen(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout
        for line in process.stdout:
            word, *numbers = line.split() if line.endswith("\n") else [""]
            if word == "measured":
                self.measured = int(numbers[0])
            elif word == "safe":
                self.safe.append(int(numbers[0]))
            elif word == "boot":
                self._say("sensor", f"on, {numbers[0]} records in its outbox, {numbers[1]} bytes of heap free")
            elif word == "repeated":
                self.repeated += int(numbers[0])
                self._say("sensor", "sent a request again that the gateway had already: dropped there")
            elif word and word != "done":
                self.trouble += line

    def off(self) -> None:
        """The power fails."""
        assert self._process and self._thread
        self._process.kill()
        self._process.wait()
        self._thread.join(10)

    def wait(self, seconds: float) -> int | None:
        """Wait for an end of its own: its exit status, None if there was none in time."""
        assert self._process and self._thread
        try:
            status = self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
        self._thread.join(10)
        return status


class Reader:
    """`ds tail`, all the time."""

    def __init__(self, say: Screen, url: str, folder: Path) -> None:
        self._say = say
        self.numbers: list[int] = []
        self._new: list[str] = []
        self._lock = threading.Lock()
        argv = [*serve.command(), "tail", url, "--cursor", str(folder / "cursor")]
        say("reader", "$ ds tail " + shlex.join(argv[-3:]))
        self.process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, env=serve.environment()
        )
        self._threads = [threading.Thread(target=run, daemon=True) for run in (self._listen, self._show)]
        for thread in self._threads:
            thread.start()

    def _listen(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            with self._lock:
                self.numbers.append(json.loads(line)["n"])
                self._new.append(line.strip())

    def _show(self) -> None:
        while self.process.poll() is None or self._new:
            time.sleep(0.25)
            with self._lock:
                new, self._new = self._new, []
                count = len(self.numbers)
            if len(new) > 1:
                self._say("reader", f"{new[0]} ... {new[-1]}  ({len(new)} new, {count} in all)")
            elif new:
                self._say("reader", f"{new[0]}  ({count} in all)")

    def wait(self, seconds: float) -> int | None:
        try:
            status = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
        for thread in self._threads:
            thread.join(5)
        return status


@contextlib.contextmanager
def ended(*processes: subprocess.Popen[str] | None) -> Iterator[None]:
    try:
        yield
    finally:
        for process in processes:
            if process and process.poll() is None:
                process.kill()
                process.wait()


def client(*words: str) -> str:
    argv = [*serve.command(), *words]
    return subprocess.run(
        argv, check=True, stdout=subprocess.PIPE, text=True, env=serve.environment(), timeout=60
    ).stdout


def prove(say: Screen, sensor: Sensor, stream: list[int], reader: list[int]) -> bool:
    """Compare what was measured with what arrived."""
    safe, known = set(sensor.safe), range(sensor.measured + 1)
    torn = set(known) - safe
    missing = sorted(safe - set(stream))
    twice = len(stream) - len(set(stream))
    say("proof", f"{len(known)} records measured, {len(safe)} safe in the outbox when the sensor went on")
    if torn:
        say("proof", f"{len(torn)} cut off while being kept: {len(torn & set(stream))} of these made it")
    say("proof", f"{len(stream)} records in the stream: {len(missing)} missing, {twice} twice, "
        f"{'in' if stream == sorted(stream) else 'OUT OF'} order")  # fmt: skip
    say("proof", f"{len(reader)} records printed by the reader: {'the same' if reader == stream else 'NOT THE SAME'}")
    if missing:
        say("proof", f"missing: {missing[:20]}")
    good = not missing and not twice and stream == sorted(stream) and reader == stream and set(stream) <= set(known)
    return good and bool(safe)


def demo(seconds: float, cuts: int, seed: int, folder: Path) -> bool:
    """One run; whether every record arrived exactly once."""
    say = Screen()
    chance = random.Random(seed)
    say("sensor", "needs MicroPython; the first time it is fetched")
    build = [sys.executable, str(ROOT / "micro" / "build.py"), "--output", str(folder / "mpy")]
    subprocess.run(build, check=True, stdout=subprocess.DEVNULL, timeout=120)
    argv = [*micropython.find(32), "-X", f"heapsize={HEAP}", str(Path(__file__).with_name("sensor.py"))]

    data = ("--data", str(folder / "data"), "--log-level", "warning")
    server = serve.start(*data)
    say("gateway", f"$ ds serve --data {folder / 'data'}")
    url = f"{server.url}/greenhouse/7"
    say("gateway", f"$ ds create {url}")
    client("create", url)
    reader = Reader(say, url, folder)
    sensor = Sensor(say, [*argv, str(folder / "mpy")], url, folder / "outbox")
    say("sensor", f"MicroPython, 32 bits, -X heapsize={HEAP}; a record every {PERIOD} ms into {folder / 'outbox'}")
    with ended(reader.process):
        sensor.on()
        try:
            # The two take turns, at random instants.
            for cut in range(cuts):
                time.sleep(seconds / cuts * (0.5 + chance.random() / 2))
                off = chance.uniform(*OFF) * min(1.0, seconds / cuts / 2)
                if cut % 2:
                    server.kill()
                    say("POWER", f"of the gateway is cut, for {off:.1f} s; the sensor goes on")
                    time.sleep(off)
                    server = serve.start(*data, port=server.port)
                    say("gateway", "on")
                else:
                    sensor.off()
                    say("POWER", f"of the sensor is cut, for {off:.1f} s, at record {sensor.measured}")
                    time.sleep(off)
                    sensor.on()
            time.sleep(1)
            sensor.off()
            say(
                "POWER",
                f"of the sensor is cut, at record {sensor.measured}, for the last time; now it sends what is left",
            )
            sensor.on(drain=True)
            if sensor.wait(60) != 0:
                say("proof", f"the sensor did not get rid of its records: {sensor.trouble}")
                return False
            client("close", url)
            say("gateway", "$ ds close " + url)
            if reader.wait(30) != 0:
                say("proof", "the reader did not come to the end")
                return False
            stream = [json.loads(line)["n"] for line in client("read", url).splitlines()]
        finally:
            sensor.off()
            server.kill()
    say("proof", f"{cuts + 1} power cuts, {sensor.repeated} requests repeated and recognized (seed {seed})")
    good = prove(say, sensor, stream, reader.numbers) and not sensor.trouble
    if sensor.trouble:
        say("proof", "the sensor said: " + sensor.trouble.strip())
    say("proof", "EVERY RECORD IS IN THE STREAM EXACTLY ONCE" if good else "FAILED")
    return good


def main() -> int:
    parser = argparse.ArgumentParser(prog="make demo", description="Exactly once, power cuts included.")
    parser.add_argument("--seconds", type=float, default=25, help="how long the power goes on and off (default: 25)")
    parser.add_argument("--cuts", type=int, default=8, help="power cuts of sensor and gateway in turns (default: 8)")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6), help="repeats the instants of a run")
    options = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory(prefix="ds-demo-") as folder:
            return 0 if demo(options.seconds, max(1, options.cuts), options.seed, Path(folder)) else 1
    except micropython.Unavailable as exc:
        print(f"make demo needs MicroPython: {exc}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    raise SystemExit(main())
