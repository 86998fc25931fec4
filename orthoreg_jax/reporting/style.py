"""How figures look: one colour for each method, everywhere, that colour-blind readers can tell."""

from __future__ import annotations

import io
import math
import re
import textwrap
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from orthoreg_jax.config import ORTHOREG
from orthoreg_jax.evaluation.results import Results

from .summary import Method

GREY = "#7f7f7f"
# Okabe and Ito's palette, its yellow darkened to be seen on white.
COLOURS = {
    "full": "#0072B2",
    "full+orthoreg": "#D55E00",
    "linearized": "#56B4E9",
    "linearized+orthoreg": "#E69F00",
    "attention": "#009E73",
    "attention+orthoreg": "#CC79A7",
    "lora": "#000000",
    "lora+orthoreg": "#B3A100",
}
MARKERS = dict(zip(COLOURS, "osv^DdPX", strict=True))
WIDTH = 8.0  # inches of every figure
STYLE: Any = {
    "font.size": 10.5,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#555555",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.8,
    "figure.constrained_layout.w_pad": 0.08,
    "figure.constrained_layout.h_pad": 0.08,
    "legend.frameon": False,
    "legend.fontsize": 10,
    "lines.linewidth": 1.8,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    # The same results give the same bytes.
    "svg.hashsalt": "orthoreg",
    "svg.fonttype": "path",
}
styled = matplotlib.rc_context(STYLE)  # a decorator of functions that draw or save


def method_colour(method: str) -> str:
    """The colour of a method; names that the palette does not know get a fixed one of it."""
    if method in COLOURS:
        return COLOURS[method]
    return list(COLOURS.values())[sum(method.encode()) % len(COLOURS)]


def pale(colour: str) -> tuple[float, ...]:
    """A colour mixed with white, not transparent: the grid must not show through."""
    return tuple(0.75 + 0.25 * part for part in to_rgb(colour))


def method_marker(method: str) -> str:
    """The shape of a method's points, so that curves differ without colour, too."""
    return MARKERS.get(method, "s" if method.endswith(ORTHOREG) else "o")


def panels(
    count: int, columns: int, panel_height: float, **options: Any
) -> tuple[Figure, list[Axes]]:
    """A figure of `count` panels in rows of `columns`."""
    columns = min(columns, count)
    rows = math.ceil(count / columns)
    figure = Figure(figsize=(WIDTH, rows * panel_height), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, **options)
    axes = list(grid.flat)
    for unused in axes[count:]:
        unused.remove()
    return figure, axes[:count]


def draw_curves(axes: Axes, x: Any, curves: Float[np.ndarray, "seeds x"], method: Method) -> None:
    """The mean over seeds, with a band of one standard deviation if there are several."""
    colour, mean = method_colour(method.name), curves.mean(axis=0)
    marker = method_marker(method.name)
    axes.plot(x, mean, color=colour, label=method.label, marker=marker, markersize=3.5)
    if len(curves) > 1:
        spread = curves.std(axis=0, ddof=1)
        axes.fill_between(x, mean - spread, mean + spread, color=colour, alpha=0.2, linewidth=0)


def place_legend(
    figure: Figure, handles: Sequence[Any], labels: Sequence[str], columns: int = 3
) -> None:
    """One legend for the whole figure, above it."""
    longest = sorted(map(len, labels), reverse=True)
    columns = min(columns, len(labels))
    # A letter is about 0.08 inches wide, the sign before it 0.6.
    while columns > 1 and 0.08 * sum(longest[:columns]) + 0.6 * columns > WIDTH:
        columns -= 1
    figure.legend(handles, labels, loc="outside upper center", ncols=columns)


def grouped_bars(
    results: Results, groups: Sequence[tuple[str, Float[np.ndarray, "tasks _"], dict[str, Any]]]
) -> tuple[Figure, Axes]:
    """Horizontal bars, one group for each task; whiskers are the deviation over seeds."""
    count = len(results["tasks"])
    height = 1.3 + count * (0.17 * len(groups) + 0.18) + 0.12 * len(groups)
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = figure.subplots()
    thickness = 0.82 / len(groups)
    for position, (label, values, look) in enumerate(groups):
        y = np.arange(count) + (position - (len(groups) - 1) / 2) * thickness
        spread = values.std(axis=1, ddof=1) if values.shape[1] > 1 else None
        whiskers = {"elinewidth": 1, "ecolor": "#333333"}
        axes.barh(
            y,
            values.mean(axis=1),
            thickness * 0.9,
            xerr=spread,
            label=label,
            error_kw=whiskers,
            **look,
        )
    axes.set_yticks(np.arange(count), [task_label(title) for title in results["tasks"].values()])
    axes.set_ylim(count - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", visible=False)
    return figure, axes


def task_label(title: str, width: int = 22) -> str:
    """A task's title for an axis: in two lines at most, its dollar signs not read as formulas."""
    lines = textwrap.wrap(title, width) or [title]
    if len(lines) > 2:
        lines = [lines[0], lines[1][: width - 1] + "…"]
    return "\n".join(lines).replace("$", r"\$")


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
    return buffer.getvalue()


def inline_svg(svg: str, name: str, label: str) -> str:
    """An SVG file as an element of a page: scalable, its ids unique to the figure.

    Args:
      svg: from `to_svg`.
      name: of the figure; goes before every id.
      label: what a screen reader says; escaped already.
    """
    element = svg[svg.index("<svg") :]
    element = re.sub(r'\bid="', f'id="{name}-', element)
    element = re.sub(r'(href="|url\()#', rf"\1#{name}-", element)
    opening, rest = element.split(">", 1)
    opening = re.sub(r'\s(width|height)="[^"]*"', "", opening)
    return f'{opening} role="img" aria-label="{label}">{rest}'
