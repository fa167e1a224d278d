"""Path patterns: the same in a token's rights and in a rule of retention."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, strategies as st

from ds_trio_server.globs import Glob
from ds_trio_server.store.retention import Retention, parse


def _kept(glob: str, path: str) -> bool:
    """Whether a rule of retention with this pattern is for this path."""
    return Retention([parse(f"{glob}=1h")]).of(path) == (3600.0, None)


@pytest.mark.parametrize(
    ("glob", "yes", "no"),
    [
        ("a", ["a"], ["b", "a/b", "A", "aa"]),
        ("a/*", ["a/b", "a/**"], ["a", "a/b/c", "b/a"]),
        ("a/**", ["a", "a/b", "a/b/c"], ["ab", "ab/c", "b/a/c", "A/b"]),
        ("**", ["a", "a/b/c"], []),
        ("*", ["a"], ["a/b"]),
        ("**/log", ["log", "a/log", "a/b/log"], ["a/log/b", "alog", "log/a"]),
        ("a/**/z", ["a/z", "a/b/z", "a/b/c/z", "a/z/z"], ["a", "z", "a/zz", "a/z/b"]),
        ("a/*/**", ["a/b", "a/b/c"], ["a", "b/b"]),
        ("*/x/*", ["a/x/b"], ["x/b", "a/x", "a/b/x/c"]),
        ("sensor-*", ["sensor-1", "sensor-"], ["sensor", "sensor-1/a", "xsensor-1"]),
        ("*.log", ["a.log", ".log"], ["a.logs"]),
        ("ab*ba", ["abba", "abxba"], ["aba"]),
        ("*-*-out", ["a-b-out", "--out", "a-b-c-out"], ["a-out", "-out", "a-b-out/c"]),
        ("a*b*a", ["aba", "axbya", "abbaba"], ["aa", "ab", "abab"]),
        ("a.c", ["a.c"], ["abc"]),
        ("[ab]?", ["[ab]?"], ["a", "ab"]),
        ("**/**", ["a", "a/b"], []),
        ("ä/ö", ["ä/ö"], ["a/o"]),
        ("a\nb*", ["a\nb\n"], ["a"]),
    ],
)
def test_globs(glob: str, yes: list[str], no: list[str]) -> None:
    for path in yes:
        assert Glob(glob).matches(path) and _kept(glob, path), path
    for path in no:
        assert not Glob(glob).matches(path) and not _kept(glob, path), path


@pytest.mark.parametrize("text", ["", "/", "a/", "/a", "a//b", "a/../b", "."])
def test_a_glob_that_could_match_nothing_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="an empty or a dot segment"):
        Glob(text)


@pytest.mark.parametrize("text", ["a**", "logs**/x", "**.log", "***"])
def test_two_stars_stand_alone(text: str) -> None:
    with pytest.raises(ValueError, match="stands alone"):
        Glob(text)


SEGMENTS = st.sampled_from(["a", "b", "ab", "*", "**", "a*", "*b", "a*b", "*a*", "*a*b*"])
PATHS = st.lists(st.text("ab", min_size=1, max_size=5), min_size=1, max_size=8)


@given(st.lists(SEGMENTS, min_size=1, max_size=6), PATHS)
def test_globs_agree_with_the_definition(glob: list[str], path: list[str]) -> None:
    def matches(glob: list[str], path: list[str]) -> bool:
        if not glob:
            return not path
        if glob[0] == "**":
            return any(matches(glob[1:], path[taken:]) for taken in range(len(path) + 1))
        return bool(path) and fits(glob[0], path[0]) and matches(glob[1:], path[1:])

    def fits(pattern: str, segment: str) -> bool:
        if not pattern:
            return not segment
        if pattern[0] == "*":
            return any(fits(pattern[1:], segment[taken:]) for taken in range(len(segment) + 1))
        return segment[:1] == pattern[0] and fits(pattern[1:], segment[1:])

    expected = matches(glob, path)
    assert Glob("/".join(glob)).matches("/".join(path)) == expected
    assert _kept("/".join(glob), "/".join(path)) == expected


@pytest.mark.parametrize("glob", ["**/a/" * 20 + "b", "*a" * 200 + "b", "/".join(["a*a*a"] * 20)])
def test_a_glob_takes_time_in_proportion_to_the_path(glob: str) -> None:
    began = time.process_time()
    assert not Glob(glob).matches("/".join(["a"] * 512))
    assert not Glob(glob).matches("a" * 1024)
    assert time.process_time() - began < 1
