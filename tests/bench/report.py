"""Medians and spreads: printed, kept as JSON, drawn as SVG."""

from __future__ import annotations

import datetime
import json
import math
import statistics
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from .rows import ROWS, Row

Result = dict[str, Any]


def summarize(row: Row, samples: dict[str, list[dict[str, float]]], profile: str = "") -> Result:
    """A row's result: per figure the values of every subject, and our ratio to each peer, round by round;
    and the profile of our server, if one was taken."""
    figures = []
    for figure in row.figures:
        values = {
            label: [one[figure.name] for one in rounds if figure.name in one] for label, rounds in samples.items()
        }
        if not values["ours"]:
            continue
        entry: Result = {"name": figure.name, "unit": figure.unit, "better": figure.better}
        entry["values"] = {label: spread(numbers) for label, numbers in values.items() if numbers}
        entry["ratios"] = {
            label: spread([mine / theirs for mine, theirs in zip(values["ours"], numbers, strict=False) if theirs])
            for label, numbers in values.items()
            if label != "ours" and numbers
        }
        if figure.value is not None:
            entry["target"] = figure.value
            entry["met"] = figure.met(entry["values"]["ours"]["median"], figure.value)
        if figure.ratio is not None:
            entry["target_ratio"] = figure.ratio
            entry["met_ratio"] = {
                label: figure.met(ratio["median"], figure.ratio) for label, ratio in entry["ratios"].items()
            }
        figures.append(entry)
    moment = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    result = {"name": row.name, "title": row.title, "measured": moment, "figures": figures}
    return {**result, "profile": profile.splitlines()} if profile else result


def spread(numbers: Sequence[float]) -> dict[str, float]:
    ordered = [float(f"{number:.5g}") for number in sorted(numbers)]
    return {"median": statistics.median(ordered), "min": ordered[0], "max": ordered[-1]} if ordered else {}


def show(result: Result) -> None:
    """A row's result as lines of text."""
    for figure in result["figures"]:
        sign = ">=" if figure["better"] == "more" else "<="
        for label, value in figure["values"].items():
            line = f"  {figure['name']:22} {label:12} {_span(value):>28} {figure['unit']:10}"
            if label == "ours" and "target" in figure:
                line += f" target {sign} {number(figure['target'])}: {_verdict(figure['met'])}"
            if label in figure["ratios"]:
                line += f" ours is {_span(figure['ratios'][label])} x"
                if "target_ratio" in figure:
                    line += f", target {sign} {number(figure['target_ratio'])}: {_verdict(figure['met_ratio'][label])}"
            print(line.rstrip(), flush=True)
    if "profile" in result:
        print("\n  " + "\n  ".join(result["profile"]), flush=True)


def _verdict(met: bool) -> str:
    return "met" if met else "NOT MET"


def _span(value: dict[str, float]) -> str:
    return f"{number(value['median'])} ({number(value['min'])} - {number(value['max'])})"


def number(value: float) -> str:
    """Three digits that matter, thousands separated."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def load(path: Path) -> Result:
    tree: Result = json.loads(path.read_text())
    return tree


def save(path: Path, result: Result, machine: dict[str, object], sizes: dict[str, object]) -> None:
    """Add the row to the JSON file, in place of an earlier one of its name, draw the picture again, and
    lay the profiles beside them as text."""
    rows = {row["name"]: row for row in load(path)["rows"]} if path.exists() else {}
    then = {name: value for name, value in machine.items() if name in ("commit", "load_average")}
    rows[result["name"]] = {**result, **then, "sizes": sizes}
    machine = {name: value for name, value in machine.items() if name not in then}
    order = [row.name for row in ROWS if row.name in rows]
    tree = {"machine": machine, "rows": [rows[name] for name in order]}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(tree, indent=1) + "\n")
    path.with_suffix(".svg").write_text(picture(tree))
    profiles = [
        "\n".join((f"{name}: {rows[name]['title']}\n", *rows[name]["profile"], "\n"))
        for name in order
        if "profile" in rows[name]
    ]
    if profiles:
        path.with_suffix(".profile.txt").write_text("\n".join(profiles))


# --------------------------------------------------------------------------------
# The picture: one bar a figure with a target, and how far it is from it. Right of the line is met.

_WIDTH, _LINE, _LEFT, _SCALE = 1000, 26, 430, 300
_DECADE = 1.5  # the axis ends at this many powers of ten on both sides


def picture(tree: Result) -> str:
    """An SVG document."""
    bars = [bar for row in tree["rows"] for figure in row["figures"] for bar in _bars(row, figure)]
    machine = tree["machine"]
    height = 88 + _LINE * len(bars)
    middle = _LEFT + _SCALE / 2
    about = f"{machine['processor']}, {machine['cores']} cores, {machine['system']}, {machine['python']}"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" font-family="sans-serif"'
        ' font-size="13">',
        f'<rect width="{_WIDTH}" height="{height}" fill="#fff"/>',
        f'<text x="16" y="24" font-size="15" font-weight="bold">Measured against the target</text>'
        f'<text x="16" y="44" fill="#555">{escape(about)}</text>'
        '<text x="16" y="62" fill="#555">bars to the right are better than the target (log scale), thin lines are the'
        " spread</text>",
        f'<line x1="{middle}" x2="{middle}" y1="74" y2="{height - 8}" stroke="#333"/>',
    ]
    for index, (label, margin, text) in enumerate(bars):
        y = 92 + _LINE * index
        low, at, high = (middle + _reach(one) for one in margin)
        color = "#2a7f62" if at >= middle else "#c05621"
        parts += [
            f'<text x="{_LEFT - 10}" y="{y + 4}" text-anchor="end">{escape(label)}</text>',
            f'<rect x="{min(middle, at):.1f}" y="{y - 7}" width="{abs(at - middle):.1f}" height="14" fill="{color}"/>',
            f'<line x1="{low:.1f}" x2="{high:.1f}" y1="{y}" y2="{y}" stroke="#111"/>',
            f'<text x="{_LEFT + _SCALE + 10}" y="{y + 4}">{escape(text)}</text>',
        ]
    return "\n".join([*parts, "</svg>\n"])


def _bars(row: Result, figure: Result) -> list[tuple[str, list[float], str]]:
    """(label, how many times better than the target: worst, median, best; the numbers as text)."""
    name = f"{row['name']}, {figure['name']}"
    sign = ">=" if figure["better"] == "more" else "<="
    found = []
    if "target" in figure:
        value, unit = figure["values"]["ours"], figure["unit"]
        text = f"{number(value['median'])} {unit} (target {sign} {number(figure['target'])})"
        found.append((name, _margins(figure, value, figure["target"]), text))
    if "target_ratio" in figure:
        for label, ratio in figure["ratios"].items():
            text = f"{number(ratio['median'])} x (target {sign} {number(figure['target_ratio'])})"
            found.append((f"{name} / {label}", _margins(figure, ratio, figure["target_ratio"]), text))
    return found


def _margins(figure: Result, value: dict[str, float], target: float) -> list[float]:
    """0 or less, as growth too small to see, is as good as the axis shows."""
    best = 10.0**_DECADE
    more = figure["better"] == "more"
    each = (value[key] for key in ("min", "median", "max"))
    return sorted((one / target if more else target / one if one > 0 else best) for one in each)


def _reach(margin: float) -> float:
    exponent = math.log10(margin) if margin > 0 else -_DECADE
    return max(-1.0, min(1.0, exponent / _DECADE)) * _SCALE / 2
