# The shapes of JSON values, many at a time.

from ds_core.client import jsonitems

class Decoder(jsonitems.Decoder):
    def many(self) -> list[object]: ...
