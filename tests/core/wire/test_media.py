"""Content types: what counts as the same one, and what a stream of it is made of (protocol section 10)."""

from portable import raises

from ds_core.wire import media


def test_the_essence_leaves_out_parameters_and_case():
    for given, expected in (
        ("application/json", "application/json"),
        ("Application/JSON", "application/json"),
        ("application/json; charset=utf-8", "application/json"),
        ("application/json;charset=utf-8", "application/json"),
        ("  text/plain  ; a=b; c=d", "text/plain"),
        ("application/vnd.sensor+cbor-seq", "application/vnd.sensor+cbor-seq"),
        ("x/y", "x/y"),
    ):
        assert media.essence(given) == expected, given


def test_what_is_no_content_type_is_refused():
    for given in (
        "",
        ";",
        "json",
        "/",
        "a/",
        "/b",
        "a/b/c",
        "a b/c",
        "a/b c",
        "a,b/c",
        "text/\x00",
        "text/pläin",
        "a//b",
    ):
        with raises(ValueError, "type/subtype"):
            media.essence(given)


def test_the_kind_follows_the_essence():
    for given, expected in (
        ("application/json", media.JSON),
        ("APPLICATION/JSON; charset=utf-8", media.JSON),
        ("application/cbor-seq", media.CBOR),
        ("application/vnd.sensor+cbor-seq; v=1", media.CBOR),
        ("application/octet-stream", media.BYTES),
        ("text/plain", media.BYTES),
        # One item is not a sequence, and a sequence of JSON texts is not the protocol's JSON mode.
        ("application/cbor", media.BYTES),
        ("application/vnd.sensor+cbor", media.BYTES),
        ("application/vnd.api+json", media.BYTES),
        ("application/json-seq", media.BYTES),
        ("application/x-ndjson", media.BYTES),
    ):
        assert media.kind_of(given) == expected, given


def test_text_and_json_are_text_for_sse():
    for given in ("text/plain", "Text/HTML; charset=utf-8", "application/json"):
        assert media.is_text(given), given
    for given in ("application/octet-stream", "application/cbor-seq", "image/png", "application/xml"):
        assert not media.is_text(given), given
