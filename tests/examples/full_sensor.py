"""The sensor's example on a device whose flash takes no more records."""

import sensor_logger

from ds_micro.flash import FlashStore


def append(self, record):
    raise OSError(28)


def main(*arguments):
    FlashStore.append = append
    sensor_logger.main(*arguments)
