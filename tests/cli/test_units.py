"""Numbers as operators write them: one spelling for every option, and an error that says what would be right."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, strategies as st

from ds_trio_server import units
from ds_trio_server.store import retention

RIGHT = [
    (units.size, "65536", 65536),
    (units.size, "64K", 65536),
    (units.size, "64k", 65536),
    (units.size, "16M", 1 << 24),
    (units.size, "2G", 1 << 31),
    (units.size, "1T", 1 << 40),
    (units.duration, "30", 30.0),
    (units.duration, "2.5", 2.5),
    (units.duration, "90s", 90.0),
    (units.duration, "15m", 900.0),
    (units.duration, "1.5s", 1.5),
    (units.duration, "1d", 86400.0),
    (units.whole_duration, "4w", 2419200),
    (units.whole_duration, "3600", 3600),
    (units.count, "12", 12),
    (units.port, "0", 0),
    (units.port, "65535", 65535),
    (units.share, "5%", 0.05),
    (units.share, "0%", 0.0),
    (units.switch, "1", True),
    (units.switch, "Yes", True),
    (units.switch, "off", False),
    (units.switch, "", False),
]
WRONG = [
    (units.size, ("", "K", "1.5M", "-1", "0", "16X", "16KB", "1 K", "²", "9" * 30, "0x10"), "not a size|out of range"),
    (units.duration, ("", "soon", "0", "-1", "1e3", "nan", "5y", "7D", "1 h", "m", "1.5h"), "not a time|out of range"),
    (units.duration, ("8w",), "out of range"),
    (units.whole_duration, ("1.5", "0.1h5", "0"), "whole seconds|not a time|out of range"),
    (units.count, ("", "0", "-1", "1e3", "1000000", "²", "many"), "is not a number, from 1 to 999999"),
    (units.port, ("", "x", "-1", "65536", "80.0", "٣"), "is not a port; a port is a number from 0 to 65535"),
    (units.share, ("5", "%", "100%", "-5%", "5.5%"), "is not a share; give a percentage below 100"),
    (units.switch, ("perhaps", "2"), "is neither yes nor no; give 1 or 0"),
]


@pytest.mark.parametrize(("parse", "text", "value"), RIGHT, ids=lambda value: getattr(value, "__name__", str(value)))
def test_what_can_be_written(parse: Callable[[str], object], text: str, value: object) -> None:
    assert parse(text) == value


@pytest.mark.parametrize(
    ("parse", "text", "complaint"), [(parse, text, why) for parse, texts, why in WRONG for text in texts]
)
def test_what_cannot_is_named_with_what_would_be_right(
    parse: Callable[[str], object], text: str, complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint) as refused:
        parse(text)
    assert str(refused.value).startswith(f"'{text}' is ")


def test_bounds_are_told_in_the_same_spelling() -> None:
    with pytest.raises(ValueError, match="a size here is 1K to 16M"):
        units.size("17M", 1024, 1 << 24)
    with pytest.raises(ValueError, match="a time here is 1m or more, and at most 12h"):
        units.duration("13h", 60, 12 * 3600)
    with pytest.raises(ValueError, match="more than 0, and at most 1d"):
        units.duration("0")
    with pytest.raises(ValueError, match="give a number with its unit, such as 90s"):
        units.duration("90", plain=False)
    with pytest.raises(ValueError, match="is not a number of connections, from 1 to 9"):
        units.count("10", 1, 9, "connections")


@given(st.integers(1, 1 << 53))
def test_a_size_can_be_given_as_it_is_shown(value: int) -> None:
    assert units.size(units.size_text(value)) == value


@given(st.integers(1, 10**9))
def test_a_duration_can_be_given_as_it_is_shown(value: int) -> None:
    assert units.duration(units.duration_text(value), most=1e12) == value


@pytest.mark.parametrize(
    ("text", "age", "size"),
    [("90m", 5400.0, None), ("90M", None, 90 << 20), ("7d", 604800.0, None), ("64k", None, 65536), ("5", None, 5),
     ("1T", None, 1 << 40), ("forever", None, None)],
)  # fmt: skip
def test_a_rule_of_retention_is_an_age_or_a_size_by_its_unit(text: str, age: float | None, size: int | None) -> None:
    rule = retention.parse(text)
    assert (rule.age, rule.bytes) == (age, size)


@pytest.mark.parametrize("text", ["0", "0s", "0K", "7y", "7D", "", "d", "-1d", "1.5M"])
def test_other_rules_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"neither an age .* nor a size"):
        retention.parse(text)
