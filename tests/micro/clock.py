"""Ticks that go round, and waits of months: clock.py ROOT URL FOLDER PERIOD

PERIOD: at which the ticks go round, a power of two; 2**30 on boards, more on a 64-bit build.
"""


import sys

ROOT, URL, FOLDER, PERIOD = sys.argv[1:5]
PERIOD = int(PERIOD)
sys.path[:0] = [ROOT, ROOT + "/micro"]

import ds_micro.net as net  # noqa: E402

real = net.ticks_ms
start = real()
ahead = PERIOD - 5000  # the first wrap is near
net.ticks_ms = lambda: (real() - start + ahead) % PERIOD
net._clock[:] = [0, net.ticks_ms()]

from ds_micro import Outbox, Stream  # noqa: E402

DAY = 86400000


def pass_time(ms, look):
    """Time goes by, and somebody looks at least every so often."""
    global ahead
    while ms > 0:
        step = min(ms, look)
        ahead += step
        ms -= step
        net.now()


# The clock never goes back, and misses nothing as long as it is asked.
for look in (1, 1000, DAY, 6 * DAY, 12 * DAY):
    for total in (look, 3 * look, 20 * look):
        before = net.now()
        pass_time(total, look)
        assert total <= net.now() - before < total + 1000, (look, total, net.now() - before)

# A flush after any time sends.
s = Stream(URL + "-flush", timeout=3)
s.create()
box = Outbox(None, s, "p")
for i, ms in enumerate((0, DAY, 5 * DAY, PERIOD // 2 - 1000, PERIOD // 2, PERIOD - 3600000, PERIOD - 20000, 60000)):
    ahead += ms
    box.append(i)
    assert box.flush(3) == 0, (i, box.error)
assert list(s.read()) == list(range(8))

# Age, offline for any time, and after a restart.
nobody = Stream("http://127.0.0.1:1/s", timeout=1)
for path in (None, FOLDER + "/age"):
    box = Outbox(path, nobody, "p", age=60)
    box.append(1)
    assert not box.due()
    ahead += 59000
    assert not box.due()
    ahead += 2000
    for _ in range(30):
        assert box.due()
        ahead += DAY // 2
    assert box.flush(0.2) == 1 and box.due()
box.close()
box = Outbox(path, nobody, "p", age=60)
assert box.due(), "what was there at the start is as old as can be"
assert Outbox(None, nobody, "p", age=60).due() is False

# A pause that the server asked for ends, however long nobody came.
box = Outbox(None, nobody, "p")
box.append(1)
assert box.flush(0.1) == 1 and box._later > net.now()
ahead += 10 * DAY
assert box._later < net.now()
# Long deadlines are no overflow.
for timeout in (5 * 10**5, 10**7, 10**9):
    assert Outbox(None, s, "q").flush(timeout) == 0
assert list(s.read(live="long-poll", deadline=0.2, patience=10**9)) == list(range(8))
print("done")
