"""Subscriptions: durable cursors that wake workers, as pure decisions (protocol section 9).

A subscription follows streams and has one cursor for each. When there is work it is woken: by a request to its webhook,
or by an event on a stream that workers watch and then claim. One worker at a time holds it, under a lease.

An embedder's day: `requests.parse` -> load the subscription it names -> `machine` -> store the change, with the wake
event that it may hold, in one transaction -> answer, deliver. `README.md` beside this has the table of states.

Its public names are its modules.
"""

if __debug__:  # not in what is compiled for a device
    __all__ = ["patterns", "urls", "config", "state", "machine", "requests", "documents", "tokens", "records"]
