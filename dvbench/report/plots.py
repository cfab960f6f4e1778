"""Plots as SVG for inside a page: ink has the page's own colour, text its font, each style a colour and a mark."""

from __future__ import annotations

import cmath
import io
import math
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

from dvbench.estimate import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

INK = "#000000"
# Told apart by every kind of colour vision (Wong 2011, Nature Methods 8:441), without the yellow, which paper loses.
COLOURS = (INK, "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
# Each mark's corners, how far it is turned in circles, and how far in its sides are drawn. Their number has no factor
# in common with that of the colours, so that 56 styles differ, and 8 do without any colour.
MARKS = ((32, 0, 1), (3, 0, 1), (4, 1 / 8, 1), (4, 0, 0.35), (4, 0, 1), (3, 1 / 2, 1), (4, 1 / 8, 0.35), (5, 0, 0.4))
LOG_FROM = 20  # a cost that spans more than this factor is drawn on a logarithmic axis
WIDTH, HEIGHT = 4.4, 2.9  # inches
LOOK: dict[str, Any] = {
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.linewidth": 0.7,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.constrained_layout.use": True,
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 10,
    "grid.alpha": 0.15,
    "grid.color": INK,
    "savefig.transparent": True,
    "svg.fonttype": "none",  # text stays text
    "text.parse_math": False,  # a metric's name may hold a dollar
}


@dataclass(frozen=True)
class Style:
    """A colour as CSS has it, and a mark's corners within [-1, 1], y upwards."""

    colour: str
    corners: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Series:
    """Points (x, estimate of y) in one style, joined by a line; ``hollow`` ones are not to be compared."""

    style: int
    points: Sequence[tuple[float, Estimate]]
    hollow: bool = False


@dataclass(frozen=True)
class Spectrum:
    """The power of samples and of the data, at frequencies in cycles per image."""

    style: int
    frequencies: Sequence[float]
    power: Sequence[float]
    reference: Sequence[float]
    hollow: bool = False


def style(number: int) -> Style:
    """Return the style of that number: of 0, a disc in the page's own ink."""
    colour = COLOURS[number % len(COLOURS)]
    count, turn, inner = MARKS[number % len(MARKS)]
    points = [cmath.rect(1, math.tau * (corner / count + turn)) for corner in range(count)]
    if inner < 1:
        between = [cmath.rect(inner, math.tau * ((corner + 0.5) / count + turn)) for corner in range(count)]
        points = [point for pair in zip(points, between, strict=True) for point in pair]
    size = max(abs(part) for point in points for part in (point.real, point.imag))  # each fills the same square
    # An angle of 0 points up.
    corners = tuple((point.imag / size, point.real / size) for point in points)
    return Style("currentColor" if colour == INK else colour, corners)


def quality(series: Sequence[Series], floors: Sequence[float], *, across: str, up: str, title: str, key: str) -> str:
    """Draw what was measured against what it cost, with intervals, and a dashed line at each of ``floors``.

    ``key`` tells the plots of one page apart. Returns an SVG element.
    """
    with _figure(key) as figure:
        axes = figure.subplots()
        for one in series:
            _points(axes, one)
        for floor in floors:
            axes.axhline(floor, color=INK, linewidth=1, linestyle=(0, (5, 3)))
        _scale(axes.xaxis, [x for one in series for x, _ in one.points])
        axes.xaxis.set_major_formatter(_amount)
        axes.set(xlabel=across, ylabel=up)
        axes.margins(y=0.1)
        return _element(figure, title)


def spectra(lines: Sequence[Spectrum], *, title: str, key: str) -> str:
    """Draw the spectra of samples over the data's, dashed, and their quotient in decibels below."""
    from matplotlib.ticker import NullFormatter

    with _figure(key, height=1.35 * HEIGHT) as figure:
        above, below = figure.subplots(2, sharex=True, height_ratios=(2, 1))
        for frequencies, power in dict.fromkeys((tuple(line.frequencies), tuple(line.reference)) for line in lines):
            above.plot(frequencies, power, color=INK, linewidth=1, linestyle=(0, (5, 3)), zorder=3)
        for line in lines:
            quotient = [
                10 * math.log10(power / data) if power > 0 and data > 0 else math.nan
                for power, data in zip(line.power, line.reference, strict=True)
            ]
            for axes, values in ((above, line.power), (below, quotient)):
                look = _look(style(line.style), hollow=line.hollow)
                axes.plot(line.frequencies, values, markevery=max(1, len(values) // 8), **look)
        below.axhline(0, color=INK, linewidth=1, linestyle=(0, (5, 3)))
        above.set(yscale="log", ylabel="power")
        below.set(xscale="log", xlabel="cycles per image", ylabel="samples / data, dB")
        _ticks(below.xaxis)
        above.yaxis.set_major_formatter(_power_of_ten)
        above.yaxis.set_minor_formatter(NullFormatter())
        return _element(figure, title)


@contextmanager
def _figure(key: str, height: float = HEIGHT) -> Iterator[Figure]:
    """Yield an empty figure in this page's look, whatever the user's own settings are."""
    from matplotlib import style as styles
    from matplotlib.figure import Figure

    with styles.context(["default", LOOK | {"svg.hashsalt": key}]):
        yield Figure(figsize=(WIDTH, height))


def _look(wanted: Style, *, hollow: bool) -> dict[str, Any]:
    from matplotlib.path import Path

    colour = INK if wanted.colour == "currentColor" else wanted.colour
    fill = "none" if hollow else colour
    return {
        "color": colour,
        "linewidth": 1.3,
        "marker": Path([*wanted.corners, wanted.corners[0]], closed=True),
        "markersize": 7,
        "markerfacecolor": fill,
        "markeredgecolor": colour,
        "markeredgewidth": 1,
    }


def _points(axes: Axes, series: Series) -> None:
    wanted = style(series.style)
    look = _look(wanted, hollow=series.hollow)
    axes.plot([x for x, _ in series.points], [y.value for _, y in series.points], **look, zorder=3)
    bars = [(x, y.low, y.high) for x, y in series.points if y.half is not None]
    at, lows, highs = zip(*bars, strict=True) if bars else ((), (), ())
    axes.vlines(at, lows, highs, color=look["color"], linewidth=1.3)


def _scale(axis: Axis, values: Sequence[float]) -> None:
    """Let an axis of costs start at zero, or be logarithmic where they lie far apart."""
    if min(values) > 0 and max(values) > LOG_FROM * min(values):
        axis.axes.set_xscale("log")
        _ticks(axis)
    else:
        axis.axes.set_xlim(left=0)
        axis.axes.locator_params(axis="x", nbins=6)


def _ticks(axis: Axis) -> None:
    """Put ticks with plain numbers at 1, 2 and 5 of each decade."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(_amount)
    axis.set_minor_formatter(NullFormatter())


def _amount(value: float, _: float | None = None) -> str:
    """Show an amount, a large one in thousands, millions and so on."""
    from matplotlib.ticker import EngFormatter

    return f"{value:g}" if value < 1e4 else EngFormatter(sep="\N{THIN SPACE}").format_eng(value)


def _power_of_ten(value: float, _: float | None = None) -> str:
    exponent = str(round(math.log10(value)))
    return "10" + exponent.translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def _element(figure: Figure, title: str) -> str:
    """Return the figure as an SVG element whose ink and font are those of the text about it."""
    file = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))  # equal records make equal pages
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # the page's font draws them
        figure.savefig(file, format="svg", metadata=nothing)
    text = file.getvalue()
    root = ET.fromstring(text)  # noqa: S314 - matplotlib's own words
    used = set(re.findall(r'(?:href="|url\()#([^")]+)', text))
    for element in root.iter():
        element.tag = _local(element.tag)
        element.attrib = {
            _local(name): value.replace(INK, "currentColor")
            for name, value in element.attrib.items()
            if name != "id" or value in used  # a page has many plots, and "axes_1" may be there once
        }
    for default in root.findall("defs[style]"):  # it would hold for the whole page
        root.remove(default)
    root.attrib = {"class": "plot", "viewBox": root.attrib["viewBox"], "role": "img", "aria-label": title}
    return ET.tostring(root, encoding="unicode")


def _local(name: str) -> str:
    """Return a name without its namespace: inside HTML there is none to say."""
    return name.rpartition("}")[2]
