"""A sensor on a battery: wake, measure, keep the record in flash, now and then send all of them, sleep.

Every record gets into the stream exactly once, whatever the network does and whenever the power fails. The radio, which
costs a hundred times more than the rest, is off unless a batch is due: the outbox itself knows how many records wait.

    micropython sensor_logger.py [URL [FOLDER]]                     on a computer: one wake, then it ends
    mpremote cp micro/examples/sensor_logger.py :main.py            on a board: once more after each sleep
"""

import gc
import sys
import time

gc.threshold(1024)  # collect while importing: else it leaves holes all over a small heap

from ds_micro import NotFound, Outbox, Stream, StreamError  # noqa: E402

URL = "http://192.168.1.10:4437/v1/stream/greenhouse/7"  # an address: no name server to wait for
TOKEN = None
WIFI = None  # ("name", "password"); None: the network is up already
PRODUCER = "greenhouse-7"  # who appends; no two devices may share it

INTERVAL = 60  # seconds of sleep
BATCH = 20  # records before the radio is switched on; each batch is one request
GRACE = 5  # seconds after power-on or reset in which a computer can get in by Ctrl-C, before the port sleeps as well
DEADLINE = 20  # seconds that sending may take: what is left then waits for the next time

FOLDER = "outbox"
LIMIT = 64 * 1024  # bytes of flash; full after some 3,000 records, then the oldest are dropped


def measure():
    """One record. Small keys: they are stored, sent and stored again for every record."""
    record = {"n": time.ticks_ms() // 1000}
    try:
        import esp32

        if hasattr(esp32, "raw_temperature"):
            record["t"] = (esp32.raw_temperature() - 32) / 1.8
        else:
            record["t"] = esp32.mcu_temperature()  # C3, S3
    except (ImportError, AttributeError):
        record["t"] = 21.5  # no sensor here: put yours in its place
    now = time.time()
    if time.gmtime(now)[0] >= 2024:
        # Until NTP has answered, the clock is wrong by decades, and no time is better: the stream keeps the order.
        record["at"] = now + (946684800 if time.gmtime(0)[0] == 2000 else 0)
    return record


def connect():
    """Join the Wi-Fi, or OSError. With an address, for without a lease looking up a name can hang for very long."""
    if not WIFI:
        return None
    import network

    wlan = network.WLAN(network.STA_IF)
    wlan.active(True)
    wlan.connect(*WIFI)
    for _ in range(150):
        if wlan.isconnected():
            return wlan
        time.sleep_ms(100)
    raise OSError("no Wi-Fi, or no address")


def send(box, stream):
    """Send what waits; nothing here is fatal, because nothing is lost by trying again at the next wake."""
    wlan = None
    try:
        wlan = connect()
        try:
            left = box.flush(DEADLINE)
        except NotFound:
            stream.create()
            left = box.flush(DEADLINE)
        print("%d left, %d dropped so far" % (left, box.dropped), box.error or "")
        if wlan and time.gmtime()[0] < 2024:
            import ntptime

            ntptime.settime()
    except (StreamError, OSError) as exc:
        # A wrong token, a closed stream, no Wi-Fi: somebody has to look at it; meanwhile the outbox goes on filling.
        print("not sent:", exc)
    finally:
        stream.drop()
        if wlan:
            wlan.active(False)
            if hasattr(wlan, "deinit"):
                wlan.deinit()  # RP2: else its interrupts end the sleep at once


def grace():
    """Wait a little, unless this is a wake from deep sleep (which an RP2040 ends by its watchdog)."""
    try:
        import machine

        if machine.reset_cause() == getattr(machine, "DEEPSLEEP_RESET", machine.WDT_RESET):
            return
    except (ImportError, AttributeError):
        return  # not a board
    time.sleep(GRACE)


def sleep():
    """Deep sleep: the RAM is lost, and the program begins anew. Returns where there is no such thing."""
    try:
        from machine import deepsleep
    except ImportError:
        return
    deepsleep(INTERVAL * 1000)


def main(url=URL, folder=FOLDER):
    grace()
    stream = Stream(url, token=TOKEN)  # connects to nothing yet
    box = Outbox(folder, stream, producer=PRODUCER, limit=LIMIT)
    try:
        try:
            box.append(measure())
            full = False
        except OSError as exc:
            # The flash is full before the outbox is, or worn out: this record is lost; sending makes room for the next.
            print("not kept, OSError %s (28: no room in flash)" % exc.errno)
            full = True
        # Also while there is no server: a try every BATCH records, not at each wake.
        if full or box.records % BATCH == 0:
            send(box, stream)
    finally:
        box.close()
        sleep()


if __name__ == "__main__":
    main(*sys.argv[1:])
