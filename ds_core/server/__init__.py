"""The end that keeps streams: requests in, decisions and responses out; no I/O, no clock.

An embedder's day: `heads.parse` (or any HTTP parser) -> `requests.parse` -> load what
`decide.needs` names into a `View` -> `decide.decide` / `reads.plan` -> store the change they
return -> `responses.encode_head`. The modules are imported one by one, so that a device loads only
what it uses.
"""
