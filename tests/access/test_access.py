"""Rights, tokens and links, and the file that holds them."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ds_core.server import requests
from ds_core.server.errors import ProtocolError
from ds_trio_server.access import ANYBODY, Identity, file as access_file, policy, without_access
from ds_trio_server.access.file import Access, AccessFileError
from tests.access.conftest import Keys

ROOT = "/v1/stream/"


# What a request may do


def check(keys: Keys, method: str, path: str, token: str | None, **headers: str) -> int:
    """The status that access control answers with, 0 when it lets the request through."""
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    if token is not None:
        fields["authorization"] = f"Bearer {token}"
    command = requests.parse(method, ROOT + path, fields)
    try:
        Access(keys.file).check(command, fields, ROOT + path)
    except ProtocolError as error:
        names = [name for name, _ in error.headers]
        assert names == ["WWW-Authenticate"]
        return error.status
    return 0


def test_each_right_is_for_its_methods_only(keys: Keys) -> None:
    reader, writer = keys.token("r", read=["a/**"]), keys.token("w", write=["a/**"])
    creator = keys.token("c", create=["a/**"])
    allowed = {(method, name) for method in ("GET", "HEAD", "POST", "PUT", "DELETE")
               for name, token in (("r", reader), ("w", writer), ("c", creator))
               if check(keys, method, "a/b", token) == 0}  # fmt: skip
    assert allowed == {("GET", "r"), ("HEAD", "r"), ("HEAD", "w"), ("POST", "w"), ("PUT", "c"), ("DELETE", "c")}
    for method in ("GET", "HEAD", "POST", "PUT", "DELETE"):
        for token in (reader, writer, creator):
            assert check(keys, method, "b/a", token) == 403


def test_two_stars_mean_the_path_before_them_too(keys: Keys) -> None:
    device = keys.token("greenhouse", write=["greenhouse/**"], create=["**/log"])
    for path in ("greenhouse", "greenhouse/7", "greenhouse/7/air"):
        assert check(keys, "POST", path, device) == 0, path
    for path in ("greenhouses", "a/greenhouse", "commands"):
        assert check(keys, "POST", path, device) == 403, path
    assert check(keys, "PUT", "log", device) == check(keys, "PUT", "a/b/log", device) == 0
    assert check(keys, "PUT", "log/a", device) == 403


def test_a_fork_needs_its_source_read(keys: Keys) -> None:
    token = keys.token("t", create=["forks/*"], read=["open/*"], write=["secret/*"])
    assert check(keys, "PUT", "forks/a", token, stream_forked_from=ROOT + "open/a") == 0
    assert check(keys, "PUT", "forks/a", token, stream_forked_from=ROOT + "secret/a") == 403
    assert check(keys, "PUT", "forks/a", token, stream_forked_from="http://other" + ROOT + "secret/a") == 403
    assert check(keys, "PUT", "open/a", token, stream_forked_from=ROOT + "open/a") == 403


def test_a_path_counts_as_what_it_decodes_to(keys: Keys) -> None:
    token = keys.token("t", read=["a b/ä"])
    assert check(keys, "GET", "a%20b/%C3%A4", token) == 0
    assert check(keys, "GET", "a%20b/%c3%a4", token) == 0
    assert check(keys, "GET", "A%20b/%C3%A4", token) == 403


def test_who_is_unknown_is_401(keys: Keys) -> None:
    token = keys.token("t", read=["**"])
    assert check(keys, "GET", "a", token) == 0
    for wrong in (None, "", "ds_", token[:-1], token + "x", token.upper(), token[3:], "é" * 9, f"{token}, {token}"):
        assert check(keys, "GET", "a", wrong) == 401, wrong
    for scheme in ("Basic " + token, token, "Bearer", "bearer\t" + token):
        assert check(keys, "GET", "a", None, authorization=scheme) == 401, scheme
    for scheme in ("bearer ", "BEARER ", "Bearer  "):
        assert check(keys, "GET", "a", None, authorization=scheme + token) == 0, scheme
    keys.revoke("t")
    assert check(keys, "GET", "a", token) == 401


def test_rights_are_kept_for_the_next_request_within_a_bound(keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy, "_KNOWN_PATHS", 10)
    token = keys.token("t", read=["a/*"])
    control = Access(keys.file)
    headers = {"authorization": "Bearer " + token}
    for number in range(100):
        for path, allowed in ((f"a/{number}", True), (f"b/{number}", False)):
            for _ in range(2):
                try:
                    control.check(requests.parse("GET", ROOT + path, headers), headers, ROOT + path)
                    assert allowed
                except ProtocolError as error:
                    assert error.status == 403 and not allowed
            assert len(control.policy._known) <= 10


# Links

NOW = 1800000000


def follow(keys: Keys, target: str, wall: float = NOW, method: str = "GET") -> tuple[int, str]:
    headers: dict[str, str] = {}
    try:
        Access(keys.file).check(requests.parse(method, target, headers), headers, target, (), wall)
    except ProtocolError as error:
        return error.status, error.message
    return 0, ""


def test_a_link_reads_its_path_until_it_expires(keys: Keys) -> None:
    query = access_file.link(keys.file, "a b/c", NOW + 60)
    target = f"{ROOT}a%20b/c?{query}"
    assert follow(keys, target) == (0, "")
    assert follow(keys, target, method="HEAD") == (0, "")
    assert follow(keys, target + "&offset=-1&live=sse") == (0, "")
    assert follow(keys, target, NOW + 59.9) == (0, "")
    assert follow(keys, target, NOW + 60.0)[0] == 401
    assert "expired" in follow(keys, target, NOW + 60.0)[1]
    for method in ("POST", "PUT", "DELETE"):
        assert follow(keys, target, method=method)[0] == 403
    for other in ("a%20b/d", "a%20b", "a%20b/c/d", "A%20b/c"):
        assert follow(keys, f"{ROOT}{other}?{query}")[0] == 401


def test_a_link_cannot_be_changed(keys: Keys) -> None:
    query = access_file.link(keys.file, "a", NOW)
    expiry, kid, signature = query.removeprefix("share=").split(".")
    changed = [
        f"{NOW + 1}.{kid}.{signature}", f"0{expiry}.{kid}.{signature}x", f"{expiry}.{kid}.", f"{expiry}.{kid}",
        f"{expiry}.00000000.{signature}", f"-1.{kid}.{signature}", f".{kid}.{signature}", "", "..", "a.b.c.d",
        f"{expiry}.{kid}.{signature}.", f"{'9' * 40}.{kid}.{signature}", f"%C2%B2.{kid}.{signature}",
        f"{expiry}.{kid}.%C3%A4", signature,
    ]  # fmt: skip
    for link in changed:
        status, message = follow(keys, f"{ROOT}a?share={link}", NOW - 1)
        assert status == 401 and "valid" in message, link


def test_revoking_all_links_ends_them(keys: Keys) -> None:
    query = access_file.link(keys.file, "a", NOW + 60)
    with access_file.edit(keys.file) as content:
        access_file.renew_share_key(content)
    assert follow(keys, f"{ROOT}a?{query}")[0] == 401
    assert follow(keys, f"{ROOT}a?{access_file.link(keys.file, 'a', NOW + 60)}") == (0, "")


def test_a_token_goes_before_a_link(keys: Keys) -> None:
    target = f"{ROOT}a?{access_file.link(keys.file, 'a', NOW + 60)}"
    headers = {"authorization": "Bearer nobody"}
    with pytest.raises(ProtocolError) as refused:
        Access(keys.file).check(requests.parse("GET", target, headers), headers, target, (), NOW)
    assert refused.value.status == 401


# Certificates


def test_a_certificate_s_name_has_the_rights_of_that_name(keys: Keys) -> None:
    keys.token("press 7", with_token=False, write=["press/7"])
    control = Access(keys.file)
    command = requests.parse("POST", ROOT + "press/7", {})
    control.check(command, {}, ROOT + "press/7", ("unknown", "press 7"))
    for names in ((), ("unknown",), ("PRESS 7",)):
        with pytest.raises(ProtocolError) as refused:
            control.check(command, {}, ROOT + "press/7", names)
        assert refused.value.status == 401
    with pytest.raises(ProtocolError) as refused:
        control.check(requests.parse("GET", ROOT + "press/7", {}), {}, ROOT + "press/7", ("press 7",))
    assert refused.value.status == 403


# Whose a request is


def test_a_check_says_who_it_was_and_how_that_was_proved(keys: Keys) -> None:
    token = keys.token("press 7", read=["a"], write=["a"], metrics=True)
    control = Access(keys.file)
    shown = {"authorization": "Bearer " + token}

    def who(method: str, headers: dict[str, str], target: str = ROOT + "a", certified: Sequence[str] = ()) -> Identity:
        return control.check(requests.parse(method, target, headers), headers, target, certified, NOW)

    assert who("GET", shown) == who("POST", shown) == Identity("press 7", "token")
    assert who("GET", {}, certified=("unknown", "press 7")) == Identity("press 7", "certificate")
    assert who("GET", shown, certified=("other",)).kind == "token", "what is in the request goes before the connection"
    query = access_file.link(keys.file, "a", NOW + 60)
    assert who("GET", {}, f"{ROOT}a?{query}") == Identity(query.split(".")[1], "link")
    assert control.check_metrics(shown, "/metrics") == Identity("press 7", "token")


def test_without_access_control_it_is_anybody_or_a_certificate() -> None:
    assert without_access(()) is ANYBODY and tuple(ANYBODY) == ("", "none")
    assert without_access(("press 7", "press.example")) == Identity("press 7", "certificate")


# The file


def test_the_file_holds_no_token_and_is_for_its_owner(keys: Keys) -> None:
    token = keys.token("t", read=["**"])
    text = keys.file.read_text()
    assert token not in text and token.removeprefix("ds_") not in text
    assert stat.S_IMODE(keys.file.stat().st_mode) == 0o600
    assert [path.name for path in keys.file.parent.iterdir()] == [keys.file.name]
    assert len(token) >= 3 + 32


def test_an_edit_keeps_the_mode_of_the_file(keys: Keys) -> None:
    os.chmod(keys.file, 0o640)
    keys.token("t", read=["**"])
    assert stat.S_IMODE(keys.file.stat().st_mode) == 0o640
    assert not access_file.open_to_others(keys.file)
    os.chmod(keys.file, 0o644)
    assert access_file.open_to_others(keys.file)


def test_an_edit_goes_through_a_link_to_the_file(keys: Keys, tmp_path: Path) -> None:
    linked = tmp_path / "etc" / "access.json"
    linked.parent.mkdir()
    linked.symlink_to(keys.file)
    token = Keys(linked).token("t", read=["**"])
    assert linked.is_symlink() and [path.name for path in linked.parent.iterdir()] == ["access.json"]
    assert check(keys, "GET", "a", token) == 0


def test_edits_at_once_lose_nothing(keys: Keys) -> None:
    with ThreadPoolExecutor(8) as pool:
        tokens = list(pool.map(lambda number: keys.token(f"t{number}", read=[f"a/{number}"]), range(24)))
    assert len(access_file.entries(keys.file)) == len(set(tokens)) == 24
    assert [check(keys, "GET", f"a/{number}", token) for number, token in enumerate(tokens)] == [0] * 24


def test_equal_tokens_of_two_files_have_different_hashes(tmp_path: Path) -> None:
    assert policy.digest(b"1" * 32, "ds_x") != policy.digest(b"2" * 32, "ds_x")
    salts = set()
    for name in ("a", "b"):
        with access_file.edit(tmp_path / name, create=True):
            pass
        salts.add(json.loads((tmp_path / name).read_text())["salt"])
    assert len(salts) == 2


def test_a_failed_edit_changes_nothing(keys: Keys) -> None:
    keys.token("t", read=["**"])
    before = keys.file.read_bytes()
    with pytest.raises(ValueError, match="named 't'"):
        keys.token("t", read=["a"])
    with pytest.raises(ValueError, match="dot segment"):
        keys.token("u", read=["a//b"])
    with pytest.raises(AccessFileError, match="salt"), access_file.edit(keys.file) as content:
        content["salt"] = "00"
    assert keys.file.read_bytes() == before
    assert [path.name for path in keys.file.parent.iterdir()] == [keys.file.name]


ENTRY = {"name": "t", "hash": "00" * 32, "read": ["a"]}


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"version": 2}, "version 1"),
        ({"salt": "xyz"}, "hexadecimal"),
        ({"salt": "00"}, "16 to 64"),
        ({"salt": 5}, "salt"),
        ({"share_keys": {"a": "00"}}, "share key"),
        ({"share_keys": []}, "share_keys"),
        ({"tokens": {}}, "tokens"),
        ({"tokens": [5]}, "number 1"),
        ({"tokens": [{**ENTRY, "raed": ["a"]}]}, "token t: it has an unknown field 'raed'"),
        ({"tokens": [{**ENTRY, "read": "a"}]}, "token t: its read must be a list"),
        ({"tokens": [{**ENTRY, "read": ["/a"]}]}, "token t: '/a' has an empty"),
        ({"tokens": [{**ENTRY, "hash": "00"}]}, "token t: its hash must have 32 bytes"),
        ({"tokens": [{**ENTRY, "metrics": 1}]}, "metrics"),
        ({"tokens": [ENTRY, ENTRY]}, "token t: another token has this name"),
        ({"tokens": [{**ENTRY, "hash": "0A" * 32}, {"name": "u", "hash": "0a" * 32}]}, "u: it has the token of 't'"),
        ({"tokens": [{**ENTRY, "name": " "}]}, "a name has"),
        ({"tokens": [{"read": ["a"]}]}, "'name' must be a text"),
    ],
)
def test_a_bad_file_is_refused_in_one_line_that_says_where(
    keys: Keys, change: dict[str, object], complaint: str
) -> None:
    content = json.loads(keys.file.read_text())
    keys.file.write_text(json.dumps({**content, **change}))
    with pytest.raises(AccessFileError, match=complaint) as refused:
        Access(keys.file)
    assert str(keys.file) in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b"[" * 100_000, b"null"])
def test_what_is_no_access_file_is_refused(keys: Keys, content: bytes) -> None:
    keys.file.write_bytes(content)
    with pytest.raises(AccessFileError):
        Access(keys.file)


def test_a_missing_file_is_refused_and_how_to_make_one_is_said(tmp_path: Path) -> None:
    with pytest.raises(AccessFileError, match="ds token new"):
        Access(tmp_path / "none")
    with pytest.raises(AccessFileError, match="No such file"):
        access_file.edit(tmp_path / "no" / "folder", create=True).__enter__()


def test_a_file_that_may_not_be_read_is_not_one_to_be_made(keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", refuse)  # whoever runs this may read everything, perhaps
    with pytest.raises(AccessFileError, match="must belong to the server's account") as refused:
        Access(keys.file)
    assert "ds token new" not in str(refused.value)


def test_a_reload_is_all_or_nothing(keys: Keys) -> None:
    old = keys.token("old", read=["**"])
    control = Access(keys.file)

    def passes(token: str) -> bool:
        headers = {"authorization": "Bearer " + token}
        try:
            control.check(requests.parse("GET", ROOT + "a", headers), headers, ROOT + "a")
        except ProtocolError:
            return False
        return True

    good = keys.file.read_bytes()
    keys.file.write_bytes(b"{")
    with pytest.raises(AccessFileError):
        control.reload()
    assert passes(old)
    keys.file.write_bytes(good)
    keys.revoke("old")
    new = keys.token("new", read=["**"])
    assert passes(old) and not passes(new)
    control.reload()
    assert passes(new) and not passes(old)
