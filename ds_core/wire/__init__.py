"""What both ends put on the wire: names, content types, HTTP/1.1 heads and bodies, SSE, CBOR.

Nothing is re-exported here: a device imports only the module it needs.
"""
