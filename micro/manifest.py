# For freezing into a firmware: make -C ports/esp32 FROZEN_MANIFEST=/path/to/micro/manifest.py
# (Add the board's own manifest with include() when it has one.)

package(  # noqa: F821
    "ds_core",
    (
        "__init__.py",
        "wire/__init__.py",
        "wire/http1.py",
        "wire/chunked.py",
        "wire/cbor.py",
        "wire/cbor_values.py",
        "wire/utf8.py",
        "wire/sse.py",
        "client/__init__.py",
        "wire/kinds.py",
        "client/errors.py",
        "client/refusals.py",
        "client/verdicts.py",
        "client/backoff.py",
        "client/writer.py",
        "client/memory.py",
        "client/reader.py",
        "client/bytesitems.py",
        "client/jsonitems.py",
        "client/events.py",
    ),
    base_path="..",
    opt=3,
)
package(  # noqa: F821
    "ds_micro",
    (
        "__init__.py",
        "net.py",
        "stream.py",
        "cursor.py",
        "operations.py",
        "trouble.py",
        "recovery.py",
        "outbox.py",
        "flash.py",
        "tls.py",
        "aio.py",
    ),
    base_path=".",
    opt=3,
)
