"""A device that takes orders: follows a stream of commands, does them, and remembers in flash how far it got.

After a reset, a broken connection or a day without power it goes on with the first command it has not done yet; the
server keeps them. Commands are maps: {"led": true}, {"interval": 30}, {"reset": true}.

    micropython command_listener.py [URL [CURSOR]]                  on a computer
    mpremote cp micro/examples/command_listener.py :main.py         on a board
    curl --data-binary '{"led": true}' -H 'Content-Type: application/json' URL     from anywhere
"""

import gc
import sys
import time

gc.threshold(1024)  # collect while importing: else it leaves holes all over a small heap

from ds_micro import Cursor, Gone, NotFound, Stream, StreamError  # noqa: E402

URL = "http://192.168.1.10:4437/v1/stream/greenhouse/7/commands"
TOKEN = None
CONTENT_TYPE = "application/json"  # whoever commands has curl; between devices "application/cbor-seq" is smaller
WIFI = None  # ("name", "password"); None: the network is up already
LED = None  # a pin's number or name

PAUSE = 10  # seconds before another try, after what patience does not mend

CURSOR = "commands.cursor"


def act(command, settings):
    """Do one command. It may come twice, if the power fails between doing and saving: say what shall be ("led": true),
    not what shall change ("toggle").
    """
    print("command", command)
    if not isinstance(command, dict):
        return  # from somebody who thought of another device; an exception here would come back after every reset
    if "interval" in command:
        settings["interval"] = command["interval"]
    if "led" in command and LED is not None:
        from machine import Pin

        Pin(LED, Pin.OUT).value(1 if command["led"] else 0)


def connect():
    """Join the Wi-Fi and stay; the network stack joins again by itself."""
    if not WIFI:
        return
    import network

    wlan = network.WLAN(network.STA_IF)
    wlan.active(True)
    wlan.connect(*WIFI)
    while not wlan.isconnected():
        time.sleep_ms(200)


def follow(stream, cursor):
    """Do commands until the stream is closed. One small write to flash for each."""
    settings = {}
    items = stream.read(cursor, live="long-poll", patience=None)
    for command in items:
        # A reset is remembered before it is done, or it would be done for ever. For all else it is safer to do it twice
        # than not at all; save() first, and it is the other way round.
        if isinstance(command, dict) and command.get("reset"):
            cursor.save()
            import machine

            machine.reset()
        act(command, settings)
        cursor.save()


def mend(exc, stream, cursor):
    """Do something about an error, or raise it again."""
    if isinstance(exc, NotFound):
        stream.create()
    elif cursor.offset == "now" or not isinstance(exc, Gone) and exc.code != "INVALID_OFFSET":
        raise exc
    # Deleted and created anew, what we have not read is trimmed, or the server lost its disk and knows no such offset:
    # old orders are void.
    cursor.offset = "now"
    cursor.items = 0


def main(url=URL, path=CURSOR):
    connect()
    stream = Stream(url, token=TOKEN, content_type=CONTENT_TYPE)
    # A new device does not do what was ordered before its time: without a file it begins at the end.
    cursor = Cursor(path, offset="now").load()
    while True:
        try:
            if cursor.offset == "now":
                # Settle where that is, and keep it: what comes while we are off must not be skipped.
                cursor.offset = stream.head().offset
                cursor.save()
            follow(stream, cursor)
            print("the stream is closed: no more commands")
            return
        except StreamError as exc:
            try:
                mend(exc, stream, cursor)
            except StreamError as exc:
                # No server yet, or one that refuses us: somebody has to look at it, and a device must go on trying.
                print("no commands:", exc)
                time.sleep(PAUSE)


if __name__ == "__main__":
    main(*sys.argv[1:])
