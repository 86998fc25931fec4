"""Panels of a figure: their marks, and the numbers that they show."""

from __future__ import annotations

import csv
import functools
import io
import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colorbar import Colorbar
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter

from orthoreg_jax.evaluation.results import Results

from .style import INK, MARKERS, SOFT, method_look, method_mode, styled
from .summary import Estimate, MethodRuns, group_methods

WIDTH = 9.5  # inches, of every figure of a report
LETTER = 0.08  # inches, nearly, of a letter
TITLE_LETTER = 0.076  # of a panel's title
BAND = ("low", "high")  # columns of a curve's band in CSV files; empty without a band


class ShownFigure(Figure):
    """A figure that a notebook shows, also where nobody has imported pyplot."""

    @styled
    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png")
        return buffer.getvalue()


class Panels:
    """A figure being drawn: its panels, and every number that they show, for its CSV file.

    Args:
      titles: one title for each panel.
      header: column names of the CSV file; the first two are the panel and what is drawn in it.
      columns: number of columns of panels.
      height: height of a row of panels, in inches.
      extra: height of what all panels share, without the legend, in inches.
      width: of the figure, in inches.
      options: options of matplotlib's `Figure.subplots`.
    """

    def __init__(
        self,
        titles: Sequence[str],
        header: Sequence[str],
        columns: int,
        height: float,
        extra: float = 0.0,
        width: float = WIDTH,
        **options: Any,
    ) -> None:
        self.columns = min(columns, len(titles))
        rows = math.ceil(len(titles) / self.columns)
        # "compressed" moves panels of a fixed aspect ratio together.
        self.figure = ShownFigure(figsize=(width, rows * height + extra), layout="compressed")
        grid = self.figure.subplots(rows, self.columns, squeeze=False, **options)
        self.axes: list[Axes] = list(grid.flat)[: len(titles)]
        for unused in grid.flat[len(titles) :]:
            unused.remove()
        self.names = dict(zip(self.axes, titles, strict=True))
        for axes, title in self.names.items():
            axes.set_title(title)
        self.rows: list[Sequence[object]] = [header]

    def note(self, axes: Axes, *numbers: object) -> None:
        """Adds a line to the CSV file: the panel, and what was drawn in it."""
        self.rows.append((self.names[axes], *numbers))

    def csv(self) -> str:
        """The numbers as CSV, to six digits; a missing number is empty."""
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
        method: MethodRuns,
        x: Sequence[float] | np.ndarray,
        curves: Float[np.ndarray, "lines x"],
        **look: Any,
    ) -> None:
        """Draws a line and its band: the rows are low, middle and high, or only the middle."""
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
        self, axes: Axes, row: int, method: MethodRuns, values: Mapping[str, Estimate], start: float
    ) -> None:
        """Draws a row: a line from `start`, strokes for values, and a marker for the last."""
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
        edges: tuple[Any, Any],
        values: Float[np.ndarray, "y x"],
        names: tuple[Sequence[object], Sequence[object]],
        **options: Any,
    ) -> QuadMesh:
        """Draws a heat map; masked cells stay empty."""
        image = axes.pcolormesh(*edges, values, **options)
        axes.set_aspect("equal")
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
        for (row, column), value in np.ndenumerate(np.ma.getdata(values)):
            self.note(axes, names[0][row], names[1][column], float(value))
        return image

    def bar(self, image: QuadMesh, label: str) -> Colorbar:
        """Draws the colour scale of the heat maps, below them."""
        options: Any = {"location": "bottom", "shrink": 0.5, "aspect": 40}
        bar = self.figure.colorbar(image, ax=self.axes, label=label, **options)
        bar.outline.set_visible(False)
        return bar

    def legend(self) -> None:
        """Draws one legend above the whole figure, with each label once."""
        found = {
            label: handle
            for axes in self.axes
            for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
        }
        longest = sorted(map(len, found), reverse=True)
        columns = min(4, len(found))
        width = self.figure.get_figwidth()
        # The marker before a label is about 0.5 inches wide.
        while columns > 1 and LETTER * sum(longest[:columns]) + 0.5 * columns > width:
            columns -= 1
        self.figure.legend(found.values(), found, loc="outside upper left", ncols=columns)
        lines = math.ceil(len(found) / columns)
        self.figure.set_figheight(self.figure.get_figheight() + 0.19 * lines)

    def label(self, x: str, y: str = "") -> None:
        """Labels the axes: x once, y at every row."""
        self.figure.supxlabel(x, color=SOFT)
        for axes in self.axes[:: self.columns]:
            axes.set_ylabel(y)


def task_panels(results: Results, header: Sequence[str]) -> Panels:
    """A panel for each task, with a row for each method."""
    methods, titles = group_methods(results), list(results["tasks"].values())
    panels = Panels(titles, header, 3, 0.7 + 0.22 * len(methods), 0.2, sharey=True)
    letters = int((WIDTH - 1.7) / panels.columns / TITLE_LETTER)  # the methods' names take 1.7
    for axes, title in panels.names.items():
        axes.set_title(textwrap.shorten(title, letters, placeholder="…"))
        axes.set_yticks(range(len(methods)), [method.label for method in methods], color=INK)
        axes.grid(axis="x", visible=False)
    axes.set_ylim(len(methods) - 0.4, -0.6)
    return panels


def some_of(count: int) -> Int[np.ndarray, " shown"]:
    """Chooses points of a curve to show: the first, and others at even distances."""
    spread = np.linspace(0, count - 1, 72).astype(int)
    return np.unique(np.append(np.arange(24), spread))[:count]


def whole_numbers(axis: Any) -> None:
    """Few ticks, at whole numbers alone, for steps and positions."""
    axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))


def as_powers(axes: Axes) -> None:
    """Makes the y axis logarithmic, with labels such as 0.001: powers would not be text."""
    plain = functools.partial(np.format_float_positional, precision=2, fractional=False, trim="-")
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(lambda value, _: plain(value))
    axes.yaxis.set_minor_formatter(NullFormatter())


def as_percent(*axes: Any) -> None:
    """Labels axes of fractions in per cent, without rounding."""
    for each in axes:
        each.set_major_locator(MaxNLocator("auto", steps=[1, 2, 5, 10]))
        each.set_major_formatter(lambda share, _: f"{100 * share:.6g}")
