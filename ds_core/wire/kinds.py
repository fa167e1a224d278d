"""What a content type says about a stream's bytes: the one place that decides, for both ends (protocol section 10)."""


def kind_of(content_type: str) -> str:
    """How bytes of this type come in items: "json", "cbor" or "bytes". Parameters and case do not matter."""
    text = content_type.split(";")[0].strip().lower().replace("application/", "+")
    if text == "+json":
        return "json"
    return "cbor" if text[-9:] == "+cbor-seq" else "bytes"
