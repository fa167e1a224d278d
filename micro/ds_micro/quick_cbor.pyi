# The shapes of CBOR items, many at a time.

from ds_core.wire import cbor

class Decoder(cbor.Decoder):
    def many(self) -> list[object]: ...
