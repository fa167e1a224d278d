# Targets, bodies, patterns, URLs, tokens, documents and records of subscriptions.
import json

from portable import raises

from ds_core.server import offsets
from ds_core.server.errors import ProtocolError
from ds_core.server.subscriptions import config, documents, machine, patterns, records, requests, tokens, urls
from ds_core.server.subscriptions.state import FIELDS, Link, Subscription

D = "/v1/stream/__ds/"


def refused(function, *args):
    try:
        found = function(*args)
    except ProtocolError as error:
        return error.status, error.code
    raise AssertionError("%r was not refused: %r" % (args, found))


def sign(data):
    """Enough of a keyed hash for a test."""
    total = 7
    for byte in data:
        total = (total * 31 + byte) % 0xFFFFFFFFFFFFFFC5
    return total.to_bytes(16, "big")


def test_patterns_match_whole_segments():
    for pattern, yes, no in (
        ("a/*", "a/b a/** a/*", "a a/b/c b/b"),
        ("a/**", "a a/b a/b/c", "b ab"),
        ("**", "a a/b/c", ""),
        ("*", "a *", "a/b"),
        ("**/t", "t a/t a/b/t t/t", "a t/a"),
        ("a/**/b/**/c", "a/b/c a/x/b/y/c a/b/b/c a/b/c/c", "a/c a/b a/b/c/d"),
        ("a/**/**/b", "a/b a/x/y/b", "a"),
        ("a/b*", "a/b*", "a/bc a/b"),
        ("a/%2A", "a/*", "a/b a/%2A"),
        ("a/%62", "a/b", "a/%62"),
        ("a/*/c", "a/b/c", "a/c a/b/b/c"),
    ):
        parts = patterns.parse(pattern)
        for path in yes.split():
            assert patterns.matches(parts, path), (pattern, path)
        for path in no.split():
            assert not patterns.matches(parts, path), (pattern, path)
    for wrong in ("a//b", "a/./b", "..", "__ds/**", "__ds", "a/%zz", "a/%00%FF", "x" * 1025):
        assert refused(patterns.parse, wrong) == (400, "INVALID_REQUEST") or wrong.startswith("a/%"), wrong
    # No pattern takes long.
    parts = patterns.parse("/".join(["**", "a"] * 200 + ["b"]))
    assert not patterns.matches(parts, "/".join(["a"] * 500))


def test_where_a_webhook_may_be():
    for url in (
        "https://ops.example/wake", "https://ops.example", "HTTPS://OPS.example:8443/w?a=b", "https://ops.example./",
        "https://203.0.114.7/", "http://localhost:9/x", "http://127.0.0.1:8080/webhook", "http://127.9.8.7/",
        "https://gw1/", "https://1.example/", "https://a-b.example:65535/", "https://8.8.8.8/",
    ):  # fmt: skip
        assert urls.check(url) == url
    for url in (
        "http://10.0.0.1/hook", "http://ops.example/", "ftp://ops.example/", "ops.example", "", "https://", "https:///x",
        "https://localhost/", "https://localhost./", "https://foo.localhost/", "http://localhost./", "https://127.0.0.1/",
        "https://10.1.2.3/", "https://172.16.0.1/", "https://172.31.255.255/", "https://192.168.1.1/",
        "https://169.254.169.254/latest", "https://0.0.0.0/", "https://100.64.1.1/", "https://224.0.0.1/",
        "https://255.255.255.255/", "https://198.18.0.1/", "https://192.0.2.1/", "https://2130706433/",
        "https://0x7f.1/", "https://127.1/", "https://010.8.8.8/", "https://1.2.3/", "https://1.2.3.4.5/",
        "https://1.2.3.256/", "https://1.2.3.4./", "https://user@ops.example/", "https://u:p@ops.example/",
        "https://ops.example@10.0.0.1/", "https://ops.example\\@10.0.0.1/", "https://ops.example/ x",
        "https://ops.example/\n", "https://ops.example:0/", "https://ops.example:65536/", "https://ops.example:/",
        "https://ops.example:8a/", "https://ops..example/", "https://.example/", "https://-a.example/",
        "https://[::1]/", "https://[::ffff:10.0.0.1]/", "https://[2001:db8::1]/", "https://[::1", "https://[]/",
        "https://ops.example/#x", "https://metadata.google.internal/", "https://router.lan/", "https://a_b.example/",
        "https://\u00e4.example/", "https://ops.example/" + "x" * 2048, "https:ops.example", "https:/ops.example",
        "https://ops.example?x@y/", "https://%31%30.0.0.1/", "//ops.example/",
    ):  # fmt: skip
        if url == "https://ops.example?x@y/":
            assert urls.check(url) == url  # the @ is in the query
            continue
        assert refused(urls.check, url) == (400, "WEBHOOK_URL_REJECTED"), url
    seen = []
    assert urls.check("http://10.0.0.1:80/hook", lambda *each: seen.append(each) or True)
    assert urls.check("https://[FD00::1]/", lambda *each: seen.append(each) or True)
    assert seen == [("http", "10.0.0.1", 80), ("https", "fd00::1", 443)]
    assert refused(urls.check, "http://a@10.0.0.1/", lambda *_: True) == (400, "WEBHOOK_URL_REJECTED")


def made(**given):
    body = {"type": "webhook", "pattern": "site/*", "webhook": {"url": "https://ops.example/wake"}}
    body.update(given)
    return config.Config("boiler", body)


def test_a_create_is_checked_field_by_field():
    found = made(streams=["/b/", "a", "b", "a%20c"], description=5, unknown=1, wake_stream=7)
    assert found.streams == ("a", "a c", "b") and found.lease_ttl_ms == 30000 and found.description is None
    assert found.wake_stream is None and found.matches("site/a") and not found.matches("a")
    pull = made(type="pull-wake", wake_stream="/site/wakes/", webhook=None)
    assert pull.wake_stream == "site/wakes" and not pull.matches("site/wakes") and pull.matches("site/x")
    assert made(pattern="/site/*/") == made() and made(lease_ttl_ms=30000) == made()
    assert made() == made(streams=[]) and made(streams=["a", "b"]) == made(streams=["b", "a", "b"])
    for other in (
        made(pattern="x"), made(streams=["a"]), made(lease_ttl_ms=1000), made(description="d"), made(min_interval_ms=1),
        made(webhook={"url": "https://ops.example/other"}), pull,
    ):  # fmt: skip
        assert other != made()
    for wrong in (
        {"type": None}, {"type": "Webhook"}, {"type": []}, {"streams": [5]}, {"streams": [""]}, {"streams": ["a//b"]},
        {"streams": ["__ds/x"]}, {"streams": ["a"] * 10001}, {"pattern": None}, {"pattern": "/"}, {"pattern": "a//b"},
        {"lease_ttl_ms": 999}, {"lease_ttl_ms": 600001}, {"lease_ttl_ms": "30000"}, {"lease_ttl_ms": None},
        {"lease_ttl_ms": 1000.5}, {"lease_ttl_ms": True}, {"min_interval_ms": -1}, {"webhook": None}, {"webhook": {}},
        {"webhook": {"url": ""}}, {"webhook": "https://x.example"}, {"type": "pull-wake"}, {"description": "x" * 1025},
        {"type": "pull-wake", "wake_stream": "/"}, {"type": "pull-wake", "wake_stream": "a", "streams": ["a"]},
    ):  # fmt: skip
        assert refused(lambda given: made(**given), wrong) == (400, "INVALID_REQUEST"), wrong
    made(webhook={"url": "http://10.0.0.1/"})  # whether it may be there is asked later, of one that is new
    assert refused(made(webhook={"url": "http://10.0.0.1/"}).check_url) == (400, "WEBHOOK_URL_REJECTED")


def test_what_targets_name():
    for method, raw, found in (
        ("GET", D + "jwks.json", ("jwks", "", "")),
        ("PUT", D + "subscriptions/a%20b%2Fc", ("subscription", "a b/c", "")),
        ("POST", D + "subscriptions/a/streams", ("streams", "a", "")),
        ("DELETE", D + "subscriptions/a/streams/x%2Fy", ("stream", "a", "x/y")),
        ("DELETE", D + "subscriptions/a/streams/x/y", ("stream", "a", "x/y")),
        ("DELETE", D + "subscriptions/a/streams/x%2520y", ("stream", "a", "x%20y")),
        ("POST", D + "subscriptions/a/callback", ("callback", "a", "")),
        ("POST", D + "subscriptions/a/claim", ("claim", "a", "")),
        ("POST", D + "subscriptions/a/ack", ("ack", "a", "")),
        ("POST", D + "subscriptions/a/release", ("release", "a", "")),
    ):
        assert tuple(requests.target(method, raw)) == found, raw
    for raw in ("", "x", "subscriptions", "subscriptions/", "subscriptions/a/b", "subscriptions/a/", "jwks.json/x",
                "subscriptions//claim", "subscriptions/a/claim/x", "subscriptions/a/streams/"):  # fmt: skip
        assert refused(requests.target, "GET", D + raw) == (404, "SUBSCRIPTION_NOT_FOUND"), raw
    for method, raw in (("POST", "jwks.json"), ("POST", "subscriptions/a"), ("GET", "subscriptions/a/claim")):
        assert refused(requests.target, method, D + raw) == (405, "METHOD_NOT_ALLOWED")
    for raw in ("subscriptions/%00", "subscriptions/" + "x" * 257, "subscriptions/%zz"):
        assert refused(requests.target, "GET", D + raw)[0] == 400
    assert refused(requests.target, "DELETE", D + "subscriptions/a/streams/a//b")[0] == 400


def test_bodies():
    assert requests.fields(b"") == {} and requests.fields(b'{"a": 1}') == {"a": 1}
    for body in (b"{", b"[]", b"5", b"\xff", b"null", b"["):
        assert refused(requests.fields, body) == (400, "INVALID_REQUEST"), body
    assert requests.streams({"streams": []}) == () and requests.streams({"streams": ["b", "a"]}) == ("a", "b")
    for wrong in ({}, {"streams": "a"}, {"streams": [""]}, {"streams": [1]}):
        assert refused(requests.streams, wrong) == (400, "INVALID_REQUEST")
    claim = requests.Claim({"worker": "w", "wait": 5})
    assert (claim.worker, claim.wait) == ("w", 5)
    for wrong in ({}, {"worker": ""}, {"worker": 5}, {"worker": "w", "wait": -1}, {"worker": "w", "wait": 61},
                  {"worker": "w", "wait": "5"}, {"worker": "w" * 257}):  # fmt: skip
        assert refused(requests.Claim, wrong) == (400, "INVALID_REQUEST")
    acks = [{"stream": "/a/", "offset": "x"}, {"path": "b", "offset": "y"}]
    ack = requests.Ack({"generation": 3, "wake_id": "w", "acks": acks})
    assert ack.acks == [("a", "x"), ("b", "y")] and not ack.done
    assert requests.Ack({"done": True}).done and not requests.Ack({"done": 1}).done
    for wrong in ({"acks": {}}, {"acks": [5]}, {"acks": [{"stream": "a"}]}, {"acks": [{"offset": "a"}]},
                  {"acks": [{"stream": "a", "offset": 5}]}, {"acks": [{"stream": "a//b", "offset": "x"}]}):  # fmt: skip
        assert refused(requests.Ack, wrong) == (400, "INVALID_REQUEST")
    requests.check_type("webhook", "callback")
    requests.check_type("pull-wake", "claim")
    assert refused(requests.check_type, "webhook", "claim") == (400, "INVALID_REQUEST")


def test_tokens_are_their_subscriptions_and_nobody_elses():
    token = tokens.mint("b\u00f6iler", 41, sign)
    assert tokens.generation("Bearer " + token, "b\u00f6iler", sign) == 41
    assert tokens.generation("bearer  " + token, "b\u00f6iler", sign) == 41
    for authorization in (
        None, "", "Bearer", "Bearer ", "Basic " + token, "Bearer " + token[:-1], "Bearer " + token + "A", "Bearer x.y",
        "Bearer ." + token.split(".")[1], "Bearer " + token.split(".")[0], "Bearer " + "x" * 9000, "Bearer .",
        "Bearer " + tokens.mint("other", 41, sign), "Bearer " + tokens.mint("b\u00f6iler", 41, lambda data: b"\1" * 16),
    ):  # fmt: skip
        assert refused(tokens.generation, authorization, "b\u00f6iler", sign) == (401, "TOKEN_INVALID"), authorization


def test_paths_are_shown_as_they_can_be_given_back():
    for given, path, shown in (("a b", "a b", "a%20b"), ("a%20b", "a b", "a%20b"), ("a%2520b", "a%20b", "a%2520b"),
                               ("b\u00fcro/\u20ac", "b\u00fcro/\u20ac", "b%C3%BCro/%E2%82%AC"),
                               ("b%C3%BCro", "b\u00fcro", "b%C3%BCro")):  # fmt: skip
        it = Subscription(made(streams=[given]), 0.0)
        assert it.config.streams == (path,)
        it.links[path] = Link(True, False, "-1", None)
        assert documents.document(it, "", None)["streams"][0]["path"] == shown
        assert config.path(shown, "x") == path
    assert refused(config.path, "a%zz", "x") == (400, "INVALID_REQUEST")


def test_documents_say_what_there_is():
    it = Subscription(made(streams=["x"]), 1764107650.6875)
    at = offsets.token
    it.links = {"x": Link(True, False, at(1, 5), at(1, 9)), "site/a": Link(False, True, "-1", at(2, 4)),
                "site/b": Link(False, True, at(3, 3), None)}  # fmt: skip
    found = json.loads(str(documents.encode(documents.document(it, "http://gw:4437", "ds_k")), "utf-8"))
    assert found["id"] == found["subscription_id"] == "boiler" and found["type"] == "webhook"
    assert found["webhook"] == {
        "url": "https://ops.example/wake",
        "signing": {"alg": "ed25519", "kid": "ds_k", "jwks_url": "http://gw:4437/v1/stream/__ds/jwks.json"},
    }
    assert found["created_at"] == "2025-11-25T21:54:10.687Z" and found["status"] == "active"
    assert found["streams"][0] == {"path": "site/a", "link_type": "glob", "acked_offset": "-1"}
    assert found["lag"] == {"streams": 2, "bytes": 8} and "wake_stream" not in found and "last_error" not in found
    hidden = documents.document(it, "http://gw", None, lambda path: path == "x")
    assert [each["path"] for each in hidden["streams"]] == ["x"] and hidden["lag"] == {"streams": 1, "bytes": 4}
    it.state = it.state.but(generation=3, wake_id="w", failures=2, error="no", failing_since=5.0)
    wake = documents.wake(it, "http://gw:4437", sign)
    assert wake["generation"] == 3 and wake["wake_id"] == "w"
    assert wake["callback_url"] == "http://gw:4437/v1/stream/__ds/subscriptions/boiler/callback"
    assert tokens.generation("Bearer " + wake["callback_token"], "boiler", sign) == 3
    assert wake["streams"][1] == {
        "path": "site/b", "link_type": "glob", "acked_offset": at(3, 3), "tail_offset": at(3, 3), "has_pending": False,
    }  # fmt: skip
    assert wake["streams"][2]["has_pending"] is True and wake["streams"][2]["link_type"] == "explicit"
    failed = documents.document(it, "http://gw", None)
    assert (failed["status"], failed["last_error"]) == ("failed", "no")
    assert failed["failing_since"] == "1970-01-01T00:00:05.000Z"
    assert documents.claimed(it, sign)["lease_ttl_ms"] == 30000
    assert documents.event(it, 4, "x", 5.25) == {
        "type": "wake", "subscription_id": "boiler", "stream": "x", "generation": 4, "ts": 5250,
    }  # fmt: skip
    assert documents.url("http://h", "a b/c") == "http://h/v1/stream/__ds/subscriptions/a%20b%2Fc"


def test_what_is_kept_comes_back():
    pull = made(type="pull-wake", wake_stream="w%20x%2520", min_interval_ms=5, description="d\u00e9", streams=["q%25"])
    for it in (made(), pull):
        subscription = Subscription(it, 12.5)
        subscription.state = subscription.state.but(
            phase="leased", generation=9, wake_id="w_1", holder="h", due=1.25, failures=1, error="e", woken_at=0.5,
            failing_since=3.75, announced=True,
        )  # fmt: skip
        back = records.subscription("boiler", 12.5, records.config_text(it), records.state_text(subscription.state))
        assert back.config == it and back.id == "boiler" and back.created == 12.5
        for name in FIELDS:
            assert getattr(back.state, name) == getattr(subscription.state, name), name
    for link in (Link(True, True, "-1", None), Link(False, True, "x", "y"), Link(True, False, "z", "z")):
        back = records.link(records.link_kind(link), link.acked, link.tail)
        for name in ("explicit", "glob", "acked", "tail"):
            assert getattr(back, name) == getattr(link, name)
    text = records.state_text(subscription.state)
    kept = records.config_text(pull)
    for config_text, state in ((kept.replace('"v": 1', '"v": 2'), text), (kept, text.replace("[1", "[2", 1))):
        with raises(ValueError):
            records.subscription("boiler", 0.0, config_text, state)
    with raises(machine.Held):
        raise machine.Held("h", 1)
