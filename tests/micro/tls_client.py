"""https on the device's client: python tls_client.py ROOT URL CA PIN"""

import sys

ROOT, URL, CA, PIN = sys.argv[1:]
sys.path[:0] = [ROOT, ROOT + "/micro"]

from ds_micro import Disconnected, Outbox, Stream, aio  # noqa: E402


def refused(make):
    try:
        make().head()
    except Disconnected:
        return
    raise AssertionError("an untrusted server was accepted")


for options in ({"ca": CA}, {"pin": PIN}, {"verify": False}):
    s = Stream(URL, timeout=5, **options)
    s.create()
    s.append({"n": 1}, "x" * 5000)
    box = Outbox(None, s, "p")
    box.append(2)
    assert box.flush(5) == 0, box.error
    assert len(list(s.read())) == 3
    s.delete()
    print("ok", sorted(options))
other = PIN[:-1] + ("0" if PIN[-1] != "0" else "1")
refused(lambda: Stream(URL, timeout=5, pin=other))
if sys.implementation.name == "cpython":
    refused(lambda: Stream(URL, timeout=5))  # not signed by anybody the system trusts
else:
    try:
        Stream(URL)
    except ValueError:
        pass
    else:
        raise AssertionError("no way to check the certificate, and no error")


async def main():
    import asyncio  # noqa: F401

    for options in ({"ca": CA}, {"pin": PIN}):
        s = aio.Stream(URL, timeout=5, **options)
        await s.create()
        await s.append(1)
        assert (await s.head()).status == 200
        await s.delete()
        print("ok aio", sorted(options))


import asyncio  # noqa: E402

asyncio.run(main())
print("done")
