"""Figures of task vectors: angles, disentanglement error, singular values, norms."""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from orthoreg_jax.evaluation.results import Results, Run

from .geometry_tables import task_cosine
from .panels import (
    BAND,
    WIDTH,
    Panels,
    as_percent,
    as_powers,
    some_of,
    task_panels,
    whole_numbers,
)
from .style import CARD, INK, SOFT, styled
from .summary import MethodRuns, group_methods

# Singular values below this fraction of the largest are rounding error.
ROUNDING = 1e-6
# Sizes of letters on cells.
WHITE, BLACK = "#fefefe", "#010101"


def _maps(
    results: Results, header: tuple[str, ...], number: dict[str, str], margin: float
) -> tuple[Panels, list[MethodRuns]]:
    """A panel for each method, with the method's number in its title.

    A method without a penalty is above the same method with one.
    """
    methods = sorted(group_methods(results), key=lambda method: len(method.strengths))
    columns = max(2, math.ceil(len(methods) / 2))
    height = min(3.0, (WIDTH - margin) / columns) + 0.4
    options: Any = {"extra": margin, "sharex": True, "sharey": True}
    titles = [method.label for method in methods]
    panels = Panels(titles, header, columns, height, **options)
    for axes, method in zip(panels.axes, methods, strict=True):
        plain = method.label.partition(" + ")[0]
        second = f"+ {method.penalty}, mean" if method.penalty else "mean"
        title = f"{plain}\n{second} {number[method.name]}"
        axes.set_title(title)
    return panels, methods


@styled
def cosines(results: Results) -> Panels:
    """Cosines between task vectors, one heat map for each method, on one colour scale."""
    maps = {
        method.name: np.mean([run["geometry"]["cosines"] for run in method.runs], 0)
        for method in group_methods(results)
    }
    means = {
        method.name: f"{method.over_seeds(task_cosine).mean:.3f}"
        for method in group_methods(results)
    }
    names, count = list(results["tasks"]), len(results["tasks"])
    diagonal = np.eye(count, dtype=bool)  # always 1, so it is left out
    # A symmetric scale, so that white is orthogonal.
    limit = cosine_limit([values[~diagonal] for values in maps.values()])
    panels, methods = _maps(results, ("method", "task", "other", "cosine"), means, 1.2)
    for axes, method in zip(panels.axes, methods, strict=True):
        image = draw_cosines(panels, axes, maps[method.name], names, limit)
    add_cosine_bar(panels, image)
    return panels


def cosine_limit(values: Iterable[Float[np.ndarray, " _"]]) -> float:
    """End of the colour scale; at least 0.01, so that what is written as .000 is pale."""
    return max(*(float(np.abs(each).max(initial=0)) for each in values), 0.01)


def draw_cosines(
    panels: Panels,
    axes: Axes,
    values: Float[np.ndarray, "t t"],
    names: Sequence[str],
    limit: float,
    cell: float | None = None,
) -> QuadMesh:
    """One heat map of cosines, numbers on its cells if they have room; the diagonal is grey.

    Args:
      panels: the figure.
      axes: the panel.
      values: the cosines.
      names: of the task vectors.
      limit: the largest cosine of the colour scale.
      cell: width of a cell in inches; None: of a report's panels.
    """
    count = len(names)
    shown = np.ma.masked_array(values, np.eye(count, dtype=bool))
    cell = cell or (WIDTH - 1) / panels.columns / count  # nearly
    axes.set_facecolor((SOFT, 0.4))  # where nothing is drawn
    edges = np.arange(count + 1) - 0.5
    colours: Any = {"cmap": "RdBu_r", "vmin": -limit, "vmax": limit, "edgecolors": CARD}
    image = panels.heat(axes, (edges, edges), shown, (names, names), **colours)
    axes.set_ylim(count - 0.5, -0.5)
    if cell >= 0.25:
        _write_cells(axes, shown, limit, min(8.5, 25 * cell))
    axes.set_xticks(
        range(count), names, rotation=90, rotation_mode="anchor", ha="right", va="center"
    )
    axes.set_yticks(range(count), names)
    return image


def add_cosine_bar(panels: Panels, image: QuadMesh) -> None:
    """The scale of heat maps of cosines."""
    bar = panels.bar(image, "Cosine")
    bar.locator = MaxNLocator(4, symmetric=True)
    bar.update_ticks()


def _write_cells(axes: Axes, values: np.ma.MaskedArray, limit: float, size: float) -> None:
    digits = 2 if limit >= 0.1 else 3
    for (row, column), value in np.ndenumerate(values.data):
        if row != column:
            text = f"{value:z.{digits}f}".replace("0.", ".", 1).replace("-", "−")
            colour = WHITE if abs(value) > 0.6 * limit else BLACK
            axes.text(column, row, text, ha="center", va="center", fontsize=size, color=colour)


@styled
def disentanglement(results: Results) -> Panels:
    """Disentanglement error over both alphas: mean over pairs and seeds, one panel per method."""
    alphas = results["disentanglement_alphas"]
    maps = {
        method.name: np.mean(
            [pair["error"] for run in method.runs for pair in run["disentanglement"]], axis=0
        )
        for method in group_methods(results)
    }
    means = {name: f"{values.mean():.2f}" for name, values in maps.items()}
    header = ("method", "alpha of the first task", "alpha of the second task", "error")
    panels, methods = _maps(results, header, means, 0.8)
    highest = max(values.max() for values in maps.values())
    for axes, method in zip(panels.axes, methods, strict=True):
        image = draw_errors(panels, axes, maps[method.name], alphas, highest)
    pairs = {tuple(pair["tasks"]) for run in results["runs"] for pair in run["disentanglement"]}
    names = next(iter(pairs)) if len(pairs) == 1 else ("the first task", "the second task")
    for axes in panels.axes[-panels.columns :]:
        axes.set_xlabel(f"α of {names[1]}")
    for axes in panels.axes[:: panels.columns]:
        axes.set_ylabel(f"α of {names[0]}")
    panels.bar(image, "ξ")
    return panels


def draw_errors(
    panels: Panels,
    axes: Axes,
    values: Float[np.ndarray, "a a"],
    alphas: Sequence[float],
    highest: float,
) -> QuadMesh:
    """One heat map of the disentanglement error."""
    colours: Any = {"cmap": "cividis", "vmin": 0, "vmax": highest, "edgecolors": "face"}
    corners = np.array(alphas)
    image = panels.heat(axes, (corners, corners), values, (alphas, alphas), **colours)
    # The square in which addition looks for alpha.
    axes.add_patch(Rectangle((0, 0), 1, 1, fill=False, edgecolor=WHITE, linewidth=1.2))
    return image


@styled
def angles(results: Results) -> Panels:
    """Angles between columns of the weights and of their updates, a panel for each leaf."""
    methods, every = group_methods(results), results["weight_angles"]
    titles = leaf_titles(_leaves(run["geometry"]["angles"] for run in results["runs"]))
    header = ("matrix", "method", "degrees", "share")
    panels = Panels(list(titles.values()), (*header, *BAND), 3, 2.0)
    for axes, leaf in zip(panels.axes, titles, strict=True):
        before = np.array(every[leaf])
        degrees = (np.arange(len(before)) + 0.5) * 180 / len(before)
        for method in methods:
            by_leaf = [run["geometry"]["angles"] for run in method.runs]
            found = [shares[leaf] for shares in by_leaf if leaf in shares]
            if found:
                panels.curve(axes, method, degrees, np.mean(found, axis=0)[None], marker="")
        axes.fill_between(degrees, before, color=SOFT, alpha=0.3, linewidth=0, label="Weights")
        for place, share in zip(degrees, before, strict=True):
            panels.note(axes, "Weights", place, share, "", "")
        axes.set_xticks([0, 45, 90, 135, 180])
        as_percent(axes.yaxis)
    panels.label("Angle between two columns, degrees", "Share of column pairs, %")
    panels.legend()
    return panels


@styled
def singular_values(results: Results) -> Panels:
    """Singular values of the weight updates, one panel for each kind of matrix."""
    leaves = _leaves(
        by_leaf
        for run in results["runs"]
        for by_leaf in run["geometry"]["singular_values"].values()
    )
    titles = leaf_titles(leaves)
    header = ("matrix", "method", "position", "singular value", *BAND)
    panels = Panels(list(titles.values()), header, 3, 2.0, 0.2, sharey=True)
    lowest = 1.0
    for axes, leaf in zip(panels.axes, leaves, strict=True):
        for method in group_methods(results):
            found = _spectra(method, leaf)
            if not found:
                continue
            spectra = np.array(found)
            floor = ROUNDING * spectra.max(initial=1e-30)
            visible = np.maximum(spectra, floor)
            mean = visible.mean(axis=0)
            low, high = np.percentile(visible, [10, 90], axis=0)
            shown = some_of(len(mean))
            lines = np.array([low, mean, high])[:, shown]
            panels.curve(axes, method, shown + 1, lines, marker="")
            lowest = min([lowest, *mean[mean > 2 * floor].tolist()])
        axes.axhline(1, color=INK, linestyle=(0, (1, 2)), linewidth=1)
        as_powers(axes)
        whole_numbers(axes.xaxis)
    panels.axes[0].set_ylim(lowest / 2, None)
    panels.label("Position among the singular values, largest first", "Singular value")
    panels.legend()
    return panels


def _leaves(by_leaf: Iterable[Mapping[str, Any]]) -> list[str]:
    """Leaves that any method changes, in order; modes change different leaves."""
    return list(dict.fromkeys(leaf for leaves in by_leaf for leaf in leaves))


def leaf_titles(leaves: Iterable[str]) -> dict[str, str]:
    """Short, unique names of leaves: "fc1" for "blocks/mlp/fc1/kernel" if no other gets it."""
    short = {}
    for leaf in leaves:
        parts = leaf.split("/")
        short[leaf] = parts[-2] if parts[-1] in ("kernel", "weight") and parts[1:] else parts[-1]
    counts = Counter(short.values())
    return {leaf: name if counts[name] == 1 else leaf for leaf, name in short.items()}


def _spectra(method: MethodRuns, leaf: str) -> list[list[float]]:
    """Spectra of a leaf for every seed, task and layer; none if the method does not change it."""
    return [
        layer
        for run in method.runs
        for by_leaf in run["geometry"]["singular_values"].values()
        for layer in by_leaf.get(leaf, [])
    ]


@styled
def norms(results: Results) -> Panels:
    """The norm of every task vector, a panel for each task."""
    panels = task_panels(results, ("task", "method", "quantity", "norm", "deviation"))
    for axes, task in zip(panels.axes, results["tasks"], strict=True):
        for row, method in enumerate(group_methods(results)):
            norm = method.over_seeds(functools.partial(_norm, task))
            panels.dots(axes, row, method, {"norm": norm}, 0.0)
        axes.set_xlim(left=0)
    panels.label("‖τ‖, norm over all weights of the image tower")
    return panels


def _norm(task: str, run: Run) -> float:
    return run["geometry"]["norms"][task]
