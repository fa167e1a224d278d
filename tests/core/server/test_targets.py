"""Request targets: one canonical path for a stream, and the query (protocol sections 1 and 2)."""

from portable import raises

from ds_core.server import targets
from ds_core.server.errors import ProtocolError

ROOT = "/v1/stream/"


def refused(status, function, *args):
    with raises(ProtocolError) as caught:
        function(*args)
    assert caught.value.status == status, (status, args)


def test_every_spelling_of_a_path_is_one_path():
    for raw, path in (
        ("a", "a"),
        ("a/b/c", "a/b/c"),
        ("%61/%62", "a/b"),
        ("%7Euser", "~user"),
        ("caf%C3%A9", "café"),
        ("caf%c3%a9", "café"),
        ("caf\xc3\xa9", "café"),  # raw UTF-8 in a head, which is decoded as Latin-1
        ("%F0%9F%98%80", "😀"),
        ("a%20b", "a b"),
        ("a+b", "a+b"),
        ("100%25", "100%"),
        ("%2561", "%61"),  # decoded once, never twice
        ("...", "..."),
        (".a", ".a"),
        ("a%3Fb%23", "a?b#"),
        ("__dsx", "__dsx"),
        ("a/__ds", "a/__ds"),
    ):
        assert targets.stream_path(ROOT + raw) == path, raw


def test_a_path_goes_to_a_url_and_back():
    for path in ("a", "a/b c/d", "café/😀", "100%", "a?b=c&d#e", "~-._!$&'()*+,;=:@", '"<>\\^`{|}'):
        url = targets.url_path(path)
        assert targets.stream_path(url) == path
        assert targets.url_path(targets.stream_path(url)) == url
        for char in url:
            assert "!" <= char <= "~"


def test_what_has_no_canonical_form_is_400():
    for raw in (
        "", "/", "a/", "/a", "a//b", ".", "..", "a/.", "a/..", "../a", "a/../b", "./a",
        "%2e", "%2E%2e", "a/%2e%2E/b", ".%2e",
        "a%2Fb", "a%2fb", "%2F",
        "%00", "a%00b", "a%0Ab", "a%0d", "%1f", "%7F", "a\x00b", "a\nb", "a\x7f",
        "%", "%4", "a%", "a%4", "%zz", "%+1", "% 41", "%-1", "%٣1",
        "%FF", "%C3", "%C3%28", "caf\xe9", "%E2%82", "%80",  # not UTF-8
        "%C0%80", "%C0%AF", "%C1%A1", "%E0%80%AF", "%F0%80%80%AF", "%C0%AE%C0%AE",  # overlong
        "%ED%A0%80", "%ED%BF%BF", "%F4%90%80%80", "%F8%88%80%80%80",  # surrogates, beyond Unicode
        "\u20ac%41", "\u0142",  # no byte of any head
    ):  # fmt: skip
        refused(400, targets.stream_path, ROOT + raw)


def test_what_is_no_stream_is_404():
    for raw in ("/", "/v1", "/v1/stream", "/v1/streams/a", "/V1/stream/a", "//v1/stream/a", "v1/stream/a", "", "*"):
        refused(404, targets.stream_path, raw)
    for raw in ("__ds", "__ds/subscriptions/1", "%5F_ds/x", "__d%73/jwks.json"):
        refused(404, targets.stream_path, ROOT + raw)


def test_long_paths_are_414():
    assert targets.stream_path(ROOT + "a" * targets.MAX_PATH) == "a" * targets.MAX_PATH
    refused(414, targets.stream_path, ROOT + "a" * (targets.MAX_PATH + 1))
    refused(414, targets.stream_path, ROOT + "%41" * targets.MAX_PATH)


def test_origin_and_absolute_targets():
    for target, expected in (
        ("/a/b", ("/a/b", "")),
        ("/a?x=1", ("/a", "x=1")),
        ("/a?x=1?y=2", ("/a", "x=1?y=2")),
        ("/?", ("/", "")),
        ("http://example.org/a?x", ("/a", "x")),
        ("HTTPS://example.org:4437/a/b", ("/a/b", "")),
        ("http://example.org", ("/", "")),
        ("http://example.org?x=/v1/stream/a", ("/", "x=/v1/stream/a")),
    ):
        assert targets.split_target(target) == expected, target
    for target in ("", "*", "example.org:443", "ftp://example.org/a", "a/b", "://x/y", "javascript://a/b"):
        refused(400, targets.split_target, target)


def test_a_fragment_is_400_and_an_encoded_number_sign_is_a_character():
    for target in (
        "#", "/#", "/v1/stream/x#z", "/v1/stream/x#", "/v1/stream/#x", "/v1/stream/x?offset=-1#z",
        "/v1/stream/x#?offset=-1", "http://example.org/v1/stream/x#z", "http://example.org#",
    ):  # fmt: skip
        refused(400, targets.split_target, target)
        refused(400, targets.resolve, target, True)
    assert targets.resolve("/v1/stream/x%23z?a=%23", True) == ("x#z", {"a": "#"})


def test_queries():
    for query, expected in (
        ("", {}),
        ("offset=-1", {"offset": "-1"}),
        ("live=sse&offset=now", {"live": "sse", "offset": "now"}),
        ("offset=", {"offset": ""}),
        ("offset", {"offset": ""}),
        ("%6Fffset=%2D1", {"offset": "-1"}),
        ("a=1&a=2", {"a": "2"}),
        ("a=b=c", {"a": "b=c"}),
        ("a=1+2", {"a": "1 2"}),
        ("&&a=1&", {"": "", "a": "1"}),
    ):
        assert targets.parse_query(query) == expected, query


def test_a_repeated_parameter_of_ours_is_400():
    for name in ("offset", "live", "cursor", "max-bytes"):
        refused(400, targets.parse_query, "%s=1&%s=1" % (name, name))
    refused(400, targets.parse_query, "offset=1&%6fffset=1")


def test_a_query_that_is_not_utf8_is_400():
    for query in ("offset=%FF", "%zz=1", "a=%", "a=%C0%80"):
        refused(400, targets.parse_query, query)


def test_an_authority_is_a_host_and_perhaps_a_port():
    for text, expected in (
        ("gateway.example", ("gateway.example", None)),
        ("Gateway.Example:4437", ("gateway.example", 4437)),
        ("localhost.", ("localhost.", None)),
        ("my_gateway-7:0", ("my_gateway-7", 0)),
        ("192.168.1.10:80", ("192.168.1.10", 80)),
        ("[::1]", ("::1", None)),
        ("[FE80::1]:65535", ("fe80::1", 65535)),
        ("[::ffff:192.0.2.1]:1", ("::ffff:192.0.2.1", 1)),
        ("x" * 255, ("x" * 255, None)),
    ):
        assert targets.authority(text) == expected, text


def test_anything_else_in_host_is_400():
    names = ("", ":80", "a b", " a", "a,b", "a/b", "a?b", "a#b", "user@a", "user:pass@a", "a\\b", 'a"b', "<a>", "a%20b")
    odd = ("\xe9", "a\r\nb", "a\x00", ".a", "a..b", "x" * 256)
    ports = ("a:", "a:x", "a:-1", "a:65536", "a:1234567", "a:8 0", "a:8:0", "a:\u0663")
    addresses = ("::1", "[::1", "[::1]x", "[::1]:", "[]", "[1]", "[:]", "[a:b]", "[::g]", "[::1]]", "[fe80::1%25eth0]")
    for text in names + odd + ports + addresses:
        refused(400, targets.authority, text)


def test_an_absolute_target_with_a_host_that_is_none_is_400():
    for target in ("http:///v1/stream/a", "http://user@h/v1/stream/a", "http://a b/v1/stream/a", "http://h:x?offset=-1"):
        refused(400, targets.split_target, target)


def test_an_absolute_target_has_an_authority():
    for target, expected in (
        ("/v1/stream/a", None),
        ("/x?next=http://evil.test/", None),
        ("*", None),
        ("http://gateway.example/v1/stream/a", "gateway.example"),
        ("HTTPS://gateway.example:1?x=/a", "gateway.example:1"),
        ("http://gateway.example#x", "gateway.example"),
        ("http://user@gateway.example/", "user@gateway.example"),
        ("http:///a", ""),
    ):
        assert targets.target_authority(target) == expected, target
