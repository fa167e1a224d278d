"""The gateway: streams over HTTP/1.1 on trio, durable in SQLite.

``serve`` runs a server inside any trio program; the command ``ds serve`` is a thin shell around it.
"""
