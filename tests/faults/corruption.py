"""Worn-out flash: every page of the file in turn is damaged; clients get what was stored or a refusal, never garbage.

    python -m tests.faults.corruption --seed 7

A page is filled with random bytes or zeros, torn in the middle, or has one bit turned over. Then the file is checked
as `ds check` does, and a server reads all of it to clients: no byte of content is ever wrong.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path

import trio

from ds_trio_server import gateway, server
from ds_trio_server.config import Config
from ds_trio_server.http.listeners import listen
from ds_trio_server.store.base import StorageFailed
from ds_trio_server.store.sqlite import maintenance
from ds_trio_server.store.sqlite.engine import SQLiteStore

from .client import Client, Cut

KINDS = ("noise", "zeros", "torn", "bit")
PAGE = 4096
STREAMS = 24
_VERIFIED = 0.5

Answer = tuple[int, str, str, bytes]


def harmed(page: bytes, kind: str, rng: random.Random) -> bytes:
    """What has become of a page."""
    if kind == "noise":
        return rng.randbytes(PAGE)
    if kind == "zeros":
        return bytes(PAGE)
    if kind == "torn":
        return page[: PAGE // 2] + bytes(PAGE // 2)
    found = bytearray(page)
    found[rng.randrange(PAGE)] ^= 1 << rng.randrange(8)
    return bytes(found)


async def _fill(client: Client, rng: random.Random) -> None:
    for number in range(STREAMS):
        path = f"s{number}"
        headers = {"Stream_Forked_From": f"/v1/stream/s{number - 1}"} if number % 5 == 4 else {}
        assert (await client("PUT", path, rng.randbytes(40), **headers))[0] == 201
        for seq in range(30):
            size = 20_000 if seq % 15 == 14 else rng.randrange(1, 800)
            producer = {"Producer_Id": f"p{number}", "Producer_Epoch": "0", "Producer_Seq": str(seq)}
            assert (await client("POST", path, rng.randbytes(size), **producer))[0] == 200


async def _read(client: Client) -> dict[str, Answer | None]:
    """What each stream is to a reader; None where it is refused or cut off."""
    found: dict[str, Answer | None] = {}
    for number in range(STREAMS):
        path = f"s{number}"
        try:
            status, headers, body = await client("GET", path)
            if status == 404:
                # That a stream is there has no checksum, only an index, which is looked at beside the first answers.
                await trio.sleep(_VERIFIED)
                status, headers, body = await client("GET", path)
        except Cut:
            found[path] = None
        else:
            found[path] = (status, headers.get("content-type", ""), headers.get("stream-next-offset", ""), body)
    return found


async def _with_server(folder: Path, use):  # type: ignore[no-untyped-def]
    listeners = listen("127.0.0.1", 0)
    port = listeners[0].getsockname()[1]
    result = None

    def started(running: server.Server) -> None:
        async def work() -> None:
            nonlocal result
            client = Client(port)
            try:
                result = await use(client)
            finally:
                await client.close()
                running.stop()

        nursery.start_soon(work)

    async with trio.open_nursery() as nursery:
        await gateway.serve(SQLiteStore(folder), Config(grace=1.0), listeners, started)
    return result


def _failures(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for each in error.exceptions for leaf in _failures(each)]
    return [error]


def run(folder: Path, seed: int, every: int = 1, say: bool = False) -> Counter[str]:
    """Damage every n-th page in each way; raises AssertionError for garbage. Counts what came of it."""
    rng = random.Random(seed)
    good, bad = folder / "good", folder / "bad"
    trio.run(_with_server, good, lambda client: _fill(client, rng))
    expected = trio.run(_with_server, good, _read)
    content = (good / "streams.db").read_bytes()
    counts: Counter[str] = Counter(pages=len(content) // PAGE)
    for number in range(rng.randrange(every), len(content) // PAGE, every):
        for kind in KINDS:
            at = number * PAGE
            page = harmed(content[at : at + PAGE], kind, rng)
            if page == content[at : at + PAGE]:
                continue
            counts["damages"] += 1
            shutil.rmtree(bad, ignore_errors=True)
            bad.mkdir()
            (bad / "streams.db").write_bytes(content[:at] + page + content[at + PAGE :])
            try:
                noticed = bool(maintenance.check(bad).problems)
            except maintenance.Unusable as error:
                assert "streams.db" in str(error)
                noticed = True
            found, failures = {}, []
            try:
                found = trio.run(_with_server, bad, _read)
            except BaseException as error:
                failures = _failures(error)
            for failure in failures:
                assert isinstance(failure, StorageFailed) and "streams.db" in str(failure), repr(failure)
                remedies = ("from a backup", "another --data directory")
                assert any(remedy in str(failure) for remedy in remedies), f"no remedy is named: {failure}"
            for path, answer in (found or {}).items():
                if answer is None or answer == expected[path]:
                    continue
                assert answer[0] == 500 and b"STREAM_DAMAGED" in answer[3], (
                    f"seed {seed}: page {number + 1}, {kind}: garbage was served at {path}: {answer[:3]}"
                )
                counts["streams refused"] += 1
            refused = any(answer and answer[0] == 500 for answer in (found or {}).values())
            counts["lived through"] += refused and not failures
            counts["noticed by the check"] += noticed
            counts["refused by the server"] += bool(failures) or refused
            counts["ended the server"] += bool(failures)
            counts["without effect"] += not noticed and not failures and found == expected
        if say and number % 50 == 0:
            print(f"page {number + 1}/{counts['pages']}: {dict(counts)}", flush=True)
    return counts


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--every", type=int, default=1, help="damage every n-th page only")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    options = parser.parse_args()
    print(f"--every {options.every} --seed {options.seed}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        counts = run(Path(folder), options.seed, options.every, say=True)
    print(", ".join(f"{count} {what}" for what, count in counts.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
