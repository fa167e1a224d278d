"""The client against a server that answers anything, and one (SILENT) that never does.

    wrong_answers.py ROOT URL FOLDER SILENT
"""
# ruff: noqa: UP031 (MicroPython)

import sys

ROOT, URL, FOLDER, SILENT = sys.argv[1:]
sys.path[:0] = [ROOT, ROOT + "/micro"]

import time  # noqa: E402

import ds_micro  # noqa: E402
from ds_micro import Outbox, Stream  # noqa: E402

# status and body -> the class of the error, and what it says
CASES = (
    ("200/empty", "BadResponse", "login page"),
    ("200/html", "BadResponse", "login page"),
    ("204/empty", "BadResponse", "login page"),
    ("301/empty", "StreamError", "moved to https://elsewhere.example/s; use that"),
    ("400/empty", "BadRequest", "no reason given"),
    ("401/empty", "Unauthorized", "no reason given; see token="),
    ("404/empty", "NotFound", "no reason given; not created"),
    ("409/empty", "Conflict", "no reason given"),
    ("418/empty", "StreamError", "no reason given"),
    ("307/html", "StreamError", "moved to https://elsewhere.example/s"),
    ("400/json", "BadRequest", "some message"),
    ("401/json", "Unauthorized", "token="),
    ("403/json", "Forbidden", "some message"),
    ("404/json", "NotFound", "not created"),
    ("404/html", "NotFound", "HTML"),
    ("409/json", "Conflict", "some message"),
    ("410/json", "Gone", "'now'"),
    ("413/json", "TooLarge", "segment"),
    ("418/html", "StreamError", "HTML"),
    ("429/json", "Busy", "some message"),
    ("503/html", "Busy", "HTML"),
    ("500/empty", "ServerError", "500"),
    ("507/json", "NoSpace", "some message"),
)


def check(exc, case, kind, text, body=True):
    assert exc.__class__ is getattr(ds_micro, kind), (case, exc)
    assert exc.url.startswith(URL), (case, exc.url)
    if body:
        assert text in str(exc) and len(str(exc)) < 200, (case, exc)


def error_of(call, *args):
    begun = time.time()
    try:
        call(*args)
    except ds_micro.StreamError as exc:
        assert time.time() - begun < 5
        return exc
    raise AssertionError("no error")


async def waits():
    return "afar"


for token, expected in (
    ("abc", "Bearer abc"),
    ("Basic abc", "Basic abc"),
    (lambda: "abc", "Bearer abc"),
    (lambda: "Basic abc", "Basic abc"),
    (waits, "Bearer afar"),
    (None, "None"),
):
    for options in ({"token": token}, {"headers": {"Authorization": token and expected}} if token else {}):
        exc = error_of(Stream(URL + "/400/echo", timeout=10, **options).create)
        assert exc.message == expected, (exc.message, expected)

boxes = 0
for case, kind, text in CASES:
    s = Stream(URL + "/" + case, timeout=10)
    again = kind in ("Busy", "ServerError", "NoSpace")
    for call in (s.create, lambda: s.append(1), s.seal):  # noqa: B023
        exc = error_of(call)
        check(exc, case, kind, text)
        assert exc.retry == again
    check(error_of(s.head), case, kind, text, body=False)
    check(error_of(lambda: list(s.read(patience=0.2))), case, kind, "Stream-Next-Offset" if case[0] == "2" else text)  # noqa: B023
    for path in (None, FOLDER + "/box%d" % boxes):
        boxes += 1
        box = Outbox(path, s, "p")
        box.append({"n": 1})
        begun = time.time()
        if again:
            assert box.flush(0.3) == 1
            exc = box.error
        else:
            exc = error_of(box.flush, 2)
        assert time.time() - begun < 4
        check(exc, case, kind, text)
        assert (box.records, box.dropped) == (1, 0), case  # nothing is lost

# An answer that is no answer to a read, or whose offset is none.
for case in ("204/next", "206/next", "200/blank", "200/ampersand"):
    exc = error_of(lambda: list(Stream(URL + "/" + case, timeout=10).read(patience=0.2)))  # noqa: B023
    assert exc.__class__ is ds_micro.BadResponse and URL in str(exc), (case, exc)

for url, text in (("http://no-such-host.invalid/s", "name"), ("http://127.0.0.1:1/s", "")):
    s = Stream(url, timeout=5)
    for call in (s.create, lambda: list(s.read(patience=0.2))):  # noqa: B023
        exc = error_of(call)
        assert exc.__class__ is ds_micro.Disconnected and exc.retry and text in str(exc), exc

s = Stream(SILENT + "/s", timeout=0.3, live_timeout=0.3)
for call in (s.create, s.head, lambda: s.append(1), lambda: list(s.read(patience=0.2))):
    exc = error_of(call)
    assert exc.__class__ is ds_micro.Timeout and exc.retry and "no progress" in str(exc), exc
box = Outbox(None, s, "p")
box.append(1)
assert box.flush(0.5) == 1 and box.error.__class__ is ds_micro.Timeout
