"""Durable Streams, sans-IO: the protocol, decided without sockets, clocks, threads or disks.

Three rooms: `wire` (what both ends put on the wire), `server` (the decisions of the end that keeps streams) and
`client` (the machines of the end that appends and reads). Import from the room you need; importing this package costs
a device nothing.
"""

__version__ = "0.1.0"

if __debug__:  # not in what is compiled for a device
    __all__ = ["wire", "server", "client", "__version__"]
