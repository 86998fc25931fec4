"""How figures look, and the sheet on which they are drawn.

A mode has one colour and one marker everywhere; with the penalty lines are solid and markers full,
without it lines are dashed and markers hollow.
"""

from __future__ import annotations

import csv
import io
import math
import re
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colorbar import Colorbar
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from orthoreg_jax.config import ORTHOREG
from orthoreg_jax.evaluation.results import Results

from .summary import Estimate, Method, group_methods

# Each colour on light and on dark ground. The page has them as variables, and its figures, too;
# files of figures take the first. Modes: after Okabe and Ito, as dark or light as text asks for.
PALETTE = {
    "ink": ("#1c2024", "#e6e8ea"),
    "soft": ("#59616a", "#a6aeb6"),
    "line": ("#dfe2e5", "#31373d"),
    "paper": ("#fafaf8", "#15181b"),
    "card": ("#ffffff", "#1d2125"),
    "accent": ("#0a5f9e", "#74bdf0"),
    "full": ("#0072b2", "#56b4e9"),
    "linearized": ("#bb4e00", "#f2924a"),
    "attention": ("#007a5a", "#35c79a"),
    "lora": ("#7d2a6c", "#f7c9e6"),
}
MARKERS = {"full": "o", "linearized": "s", "attention": "^", "lora": "D"}
# The same signs in text: hollow, full.
SIGNS = {"o": "○●", "s": "□■", "^": "△▲", "D": "◇◆"}
INK, SOFT, LINE, CARD = (PALETTE[name][0] for name in ("ink", "soft", "line", "card"))
WIDE, NARROW = 9.5, 4.0  # inches: a figure on a desk and in files, and on a phone
BAND = ("low", "high")  # columns of a curve's band in CSV files; empty where it has none
FONT = "system-ui, -apple-system, Segoe UI, Roboto, Noto Sans, DejaVu Sans, sans-serif"
STYLE: Any = {
    "font.size": 9.5,
    "text.color": INK,
    "text.parse_math": False,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.labelsize": 9,
    "figure.labelsize": 9,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "legend.fontsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.edgecolor": SOFT,
    "axes.labelcolor": SOFT,
    "axes.facecolor": CARD,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.8,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "ytick.minor.size": 0,
    "figure.constrained_layout.h_pad": 0.06,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "lines.markersize": 4.5,
    "figure.facecolor": CARD,
    "savefig.facecolor": CARD,
    # The same results give the same bytes; letters stay letters.
    "svg.hashsalt": "orthoreg",
    "svg.fonttype": "none",
}
styled = matplotlib.rc_context(STYLE)  # a decorator of functions that draw or save


def method_mode(method: str) -> str:
    """The mode whose colour and marker a method has; unknown ones get a fixed one of them."""
    mode = method.removesuffix(ORTHOREG)
    return mode if mode in MARKERS else list(MARKERS)[sum(mode.encode()) % len(MARKERS)]


def method_sign(method: str) -> str:
    """The marker of a method as a letter."""
    return SIGNS[MARKERS[method_mode(method)]][method.endswith(ORTHOREG)]


def method_look(method: str) -> dict[str, Any]:
    """Colour, marker and dashes of a method's lines, as matplotlib has them."""
    mode, full = method_mode(method), method.endswith(ORTHOREG)
    colour = PALETTE[mode][0]
    return {
        "color": colour,
        "marker": MARKERS[mode],
        "markerfacecolor": colour if full else CARD,
        "linestyle": "-" if full else (0, (3.5, 1.5)),
    }


class Sheet:
    """A figure under way: its panels, and every number that they show, for its CSV file.

    Args:
      titles: of the panels, one each.
      header: of the CSV file's columns; the first two are the panel and what is drawn in it.
      columns: of panels, when wide and when narrow.
      height: of a row of panels, inches.
      wide: for a desk or for a phone.
      extra: inches for what all panels share, without the legend.
      options: of matplotlib's `Figure.subplots`.
    """

    def __init__(
        self,
        titles: Sequence[str],
        header: Sequence[str],
        columns: tuple[int, int],
        height: float,
        wide: bool,
        extra: float = 0.0,
        **options: Any,
    ) -> None:
        self.wide, self.width = wide, WIDE if wide else NARROW
        self.columns = min(columns[0 if wide else 1], len(titles))
        rows = math.ceil(len(titles) / self.columns)
        # "compressed": panels of a fixed shape move together.
        size = (self.width, rows * height + extra)
        self.figure = Figure(figsize=size, layout="compressed")
        grid = self.figure.subplots(rows, self.columns, squeeze=False, **options)
        self.axes: list[Axes] = list(grid.flat)[: len(titles)]
        for unused in grid.flat[len(titles) :]:
            unused.remove()
        for axes, title in zip(self.axes, titles, strict=True):
            axes.set_title(title)
        self.rows: list[Sequence[object]] = [header]

    def note(self, axes: Axes, *numbers: object) -> None:
        """A line of the CSV file: the title of the panel, and what was drawn in it."""
        self.rows.append((" ".join(axes.get_title("left").split()), *numbers))

    def csv(self) -> str:
        """The numbers, to six digits; empty where there is none."""
        text = io.StringIO()
        rows = (
            [f"{cell:.6g}" if isinstance(cell, float) else cell for cell in row]
            for row in self.rows
        )
        csv.writer(text, lineterminator="\n").writerows(rows)
        return text.getvalue()

    def curve(
        self,
        axes: Axes,
        method: Method,
        x: Sequence[float] | np.ndarray,
        curves: Float[np.ndarray, "lines x"],
        **look: Any,
    ) -> None:
        """A line and the band around it: its rows are low, middle and high, or the middle alone."""
        given = method_look(method.name) | look
        band = len(curves) == 3
        axes.plot(x, curves[len(curves) // 2], label=method.label, **given)
        if band:
            low, high = curves[0], curves[2]
            axes.fill_between(x, low, high, color=given["color"], alpha=0.13, linewidth=0)
        for place, values in zip(x, curves.T.tolist(), strict=True):
            low, middle, high = values if band else ("", *values, "")
            self.note(axes, method.label, float(place), middle, low, high)

    def dots(
        self, axes: Axes, row: int, method: Method, values: Mapping[str, Estimate], start: float
    ) -> None:
        """A row: a line from `start`, a stroke for each value but the last, the last as marker."""
        look = method_look(method.name) | {"linestyle": "", "clip_on": False}
        ends = [start, *(value.mean for value in values.values())]
        axes.plot(ends, [row] * len(ends), color=look["color"], linewidth=0.9)
        for name, value in values.items():
            if name != list(values)[-1]:
                look |= {"marker": "|", "markersize": 9}
            else:
                look |= {"marker": MARKERS[method_mode(method.name)], "markersize": 5.5}
            spread = value.deviation
            axes.errorbar(value.mean, row, xerr=spread, elinewidth=2.6, **look)
            self.note(axes, method.label, name, value.mean, "" if spread is None else spread)

    def heat(
        self,
        axes: Axes,
        method: Method,
        edges: tuple[Any, Any],
        values: Float[np.ndarray, "y x"],
        names: tuple[Sequence[object], Sequence[object]],
        **options: Any,
    ) -> QuadMesh:
        """A heat map; masked cells stay empty."""
        image = axes.pcolormesh(*edges, values, **options)
        axes.set_aspect("equal")
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
        for (row, column), value in np.ndenumerate(np.ma.getdata(values)):
            # Not the panel: its title holds more than the method.
            self.rows.append((method.label, names[0][row], names[1][column], float(value)))
        return image

    def bar(self, image: QuadMesh, label: str) -> Colorbar:
        """The scale of the heat maps, below them."""
        options: Any = {"location": "bottom", "shrink": 0.5, "aspect": 40}
        bar = self.figure.colorbar(image, ax=self.axes, label=label, **options)
        bar.outline.set_visible(False)
        return bar

    def legend(self) -> None:
        """One legend for the whole figure, above it: each label of any panel once."""
        found = {
            label: handle
            for axes in self.axes
            for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
        }
        longest = sorted(map(len, found), reverse=True)
        columns = min(4 if self.wide else 2, len(found))
        # A letter is about 0.08 inches wide, the sign before it 0.5.
        while columns > 1 and 0.08 * sum(longest[:columns]) + 0.5 * columns > self.width:
            columns -= 1
        self.figure.legend(found.values(), found, loc="outside upper left", ncols=columns)
        lines = math.ceil(len(found) / columns)
        self.figure.set_figheight(self.figure.get_figheight() + 0.19 * lines)

    def label(self, x: str, y: str = "") -> None:
        """Names the axes: x once, y at every row."""
        self.figure.supxlabel(x, color=SOFT)
        for axes in self.axes[:: self.columns]:
            axes.set_ylabel(y)


def task_sheet(results: Results, header: Sequence[str], wide: bool) -> Sheet:
    """A panel for each task, with a row for each method."""
    methods, width = group_methods(results), 30 if wide else 27
    titles = [
        textwrap.shorten(title, width, placeholder="…") for title in results["tasks"].values()
    ]
    sheet = Sheet(titles, header, (3, 1), 0.55 + 0.2 * len(methods), wide, 0.2, sharey=True)
    for axes in sheet.axes:
        axes.set_yticks(range(len(methods)), [method.label for method in methods], color=INK)
        axes.grid(axis="x", visible=False)
    axes.set_ylim(len(methods) - 0.4, -0.6)
    return sheet


def some_of(count: int) -> Int[np.ndarray, " shown"]:
    """Which of many points of a curve to show: the first, and others at even distances."""
    spread = np.linspace(0, count - 1, 72).astype(int)
    return np.unique(np.append(np.arange(24), spread))[:count]


def as_percent(*axes: Any) -> None:
    """Axes of shares that are written as per cent."""
    for each in axes:
        each.set_major_formatter(PercentFormatter(1, decimals=0, symbol=""))


@styled
def to_png(figure: Figure) -> bytes:
    """The figure as a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150, metadata={"Software": None})
    return buffer.getvalue()


@styled
def to_svg(figure: Figure) -> str:
    """The figure as an SVG file, without date, so that equal results give equal files."""
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(buffer, format="svg", metadata=nothing)

    svg = re.sub(r"\n\s+<", "\n<", re.sub(r"<[^>]*>", _shorten, buffer.getvalue()))
    used = set(re.findall(r"#(\w+)", svg))
    svg = re.sub(r' id="(\w+)"', lambda found: found[0] if found[1] in used else "", svg)
    return svg.replace("<svg ", f'<svg font-family="{FONT}" ', 1)


def _shorten(tag: re.Match[str]) -> str:
    """A tag without digits that nobody sees, and without the list of fonts in each."""
    short = re.sub(r"(\.\d\d)\d+", r"\1", tag[0])
    short = re.sub(r"font-family: [^;\"]*;? ?| transform=\"rotate\(-0[^\"]*\"", "", short)
    return re.sub(r"\s+(?=[LMQCz\"])|(?<=[LMQC])\s+", "", short) if short[:3] == "<pa" else short


def inline_svg(svg: str, name: str, label: str) -> str:
    """An SVG file as an element of a page: scalable, of its colours, its ids unique to the figure.

    Args:
      svg: from `to_svg`.
      name: of the figure; goes before every id.
      label: what a screen reader says; escaped already.
    """
    variables = {light: f"var(--{colour})" for colour, (light, _) in PALETTE.items()}
    element = re.sub(r"<style.*?</style>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    element = re.sub(r'\bid="', f'id="{name}-', element)
    element = re.sub(r'(href="|url\()#', rf"\1#{name}-", element)
    element = re.sub(r"#[0-9a-f]{6}\b", lambda found: variables.get(found[0], found[0]), element)
    opening, rest = element.split(">", 1)
    opening = re.sub(r'\s(width|height|font-family|version)="[^"]*"', "", opening)
    return f'{opening} role="img" aria-label="{label}">{rest}'
