"""The end that keeps streams: requests in, decisions and responses out; no I/O, no clock.

An embedder's day: ``heads.parse`` (or any HTTP parser) -> ``requests.parse`` -> load the ``Stream``
-> ``stream.append`` / ``create.create`` / ``stream.head`` / ``stream.delete`` / ``reads.plan`` with a
``View`` -> store the change they return -> ``responses.encode_head``. The modules are imported one
by one, so that a device loads only what it uses.
"""
