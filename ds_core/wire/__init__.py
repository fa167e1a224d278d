"""What both ends put on the wire: names, content types, HTTP/1.1 heads and bodies, SSE, CBOR.

Its public names are its modules. None is imported here: a device loads only what it uses.
"""

if __debug__:  # not in what is compiled for a device
    __all__ = ["names", "media", "http1", "chunked", "sse", "cbor", "cbor_values", "cbor_check"]
