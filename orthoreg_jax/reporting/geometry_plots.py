"""Figures of the task vectors: angles between them, singular values, norms."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from orthoreg_jax.evaluation.results import Results

from .style import GREY, grouped_bars, method_colour, panels, place_legend, styled, task_label
from .summary import Method, group_methods

# Below this share of the largest singular value a value is rounding, not rank.
ROUNDING = 1e-6


@styled
def cosines(results: Results) -> Figure:
    """Cosines between task vectors, one heat map for each method, on one colour scale."""
    methods = group_methods(results)
    maps = [np.mean([run["geometry"]["cosines"] for run in method.runs], 0) for method in methods]
    titles = [task_label(title, 18) for title in results["tasks"].values()]
    count = len(titles)
    off_diagonal = np.abs(np.array(maps))[:, ~np.eye(count, dtype=bool)]
    # Symmetric, so that white is orthogonal; the diagonal is 1 always and stays out.
    limit = max(float(off_diagonal.max(initial=0)), 1e-3)
    rows = math.ceil(len(methods) / 2)
    figure, axes = panels(len(methods), 2, 3.4 + 2.0 / rows, sharex=True, sharey=True)
    for position, (part, method, values) in enumerate(zip(axes, methods, maps, strict=True)):
        shown = np.ma.masked_array(values, np.eye(count, dtype=bool))
        edges = np.arange(count + 1) - 0.5
        image = part.pcolormesh(
            edges, edges, shown, cmap="RdBu_r", vmin=-limit, vmax=limit, edgecolors="white"
        )
        part.set_aspect("equal")
        part.set_ylim(count - 0.5, -0.5)
        _write_cells(part, values, limit, min(9.0, 72 / count))
        part.set_title(method.label)
        part.set_xticks(range(count), titles, rotation=90, fontsize=8.5)
        part.set_yticks(range(count), titles, fontsize=8.5)
        part.tick_params(length=0, labelbottom=position + 2 >= len(methods))
        part.grid(visible=False)
        part.spines[:].set_visible(False)
    bar = figure.colorbar(image, ax=axes, label="Cosine", location="bottom", shrink=0.5, aspect=40)
    bar.locator = MaxNLocator(4, symmetric=True)
    bar.update_ticks()
    return figure


@styled
def angles(results: Results) -> Figure:
    """Angles between columns of the weights and of their updates, a panel for each leaf."""
    methods = group_methods(results)
    leaves = _leaves(run["geometry"]["angles"] for run in results["runs"])
    titles = leaf_titles(leaves)
    figure, axes = panels(len(leaves), 3 if len(leaves) > 4 else 2, 2.6)
    for part, leaf in zip(axes, leaves, strict=True):
        before = 100 * np.array(results["weight_angles"][leaf])
        degrees = (np.arange(len(before)) + 0.5) * 180 / len(before)
        part.fill_between(degrees, before, color=GREY, alpha=0.35, linewidth=0, label="Weights")
        for method in methods:
            by_leaf = [run["geometry"]["angles"] for run in method.runs]
            found = [shares[leaf] for shares in by_leaf if leaf in shares]
            if found:
                colour = method_colour(method.name)
                part.plot(degrees, 100 * np.mean(found, axis=0), color=colour, label=method.label)
        part.set_title(titles[leaf])
        part.set_xticks([0, 45, 90, 135, 180])
    figure.supxlabel("Angle between two columns (degrees)", fontsize=10.5)
    figure.supylabel("Share of column pairs (%)", fontsize=10.5)
    place_legend(figure, *_legend(axes))
    return figure


def _leaves(by_leaf: Iterable[Mapping[str, Any]]) -> list[str]:
    """Leaves that any method changes, in order: modes change different ones."""
    return list(dict.fromkeys(leaf for leaves in by_leaf for leaf in leaves))


def _legend(axes: Sequence[Axes]) -> tuple[list[Any], list[str]]:
    """Each label of any panel once."""
    handles = {
        label: handle
        for part in axes
        for handle, label in zip(*part.get_legend_handles_labels(), strict=True)
    }
    return list(handles.values()), list(handles)


@styled
def disentanglement(results: Results) -> Figure:
    """Disentanglement error over both alphas: mean over pairs and seeds, one panel a method."""
    methods = group_methods(results)
    alphas = np.array(results["disentanglement_alphas"])
    maps = [
        np.mean([pair["error"] for run in method.runs for pair in run["disentanglement"]], axis=0)
        for method in methods
    ]
    figure, axes = panels(len(methods), 2, 3.3, sharex=True, sharey=True)
    for part, method, values in zip(axes, methods, maps, strict=True):
        image = part.pcolormesh(alphas, alphas, values, cmap="cividis", vmin=0, vmax=np.max(maps))
        part.set_title(f"{method.label}\nmean ξ {values.mean():.2f}")
        part.set_aspect("equal")
        part.grid(visible=False)
        # The square in which addition looks for alpha.
        part.add_patch(Rectangle((0, 0), 1, 1, fill=False, edgecolor="white", linewidth=1.2))
    figure.supxlabel("α of the second task", fontsize=10.5)
    figure.supylabel("α of the first task", fontsize=10.5)
    figure.colorbar(image, ax=axes, label="ξ", location="bottom", shrink=0.5, aspect=40)
    return figure


def _write_cells(axes: Axes, values: Float[np.ndarray, "t t"], limit: float, size: float) -> None:
    digits = 2 if limit >= 0.1 else 3
    for (row, column), value in np.ndenumerate(values):
        text = "1" if row == column else f"{value:z.{digits}f}".replace("0.", ".", 1)
        text = text.replace("-", "−")
        dark = row != column and abs(value) > 0.6 * limit
        colour = "#999999" if row == column else "white" if dark else "black"
        axes.text(column, row, text, ha="center", va="center", fontsize=size, color=colour)


@styled
def singular_values(results: Results) -> Figure:
    """Singular values of the weight updates, one panel for each kind of matrix."""
    methods = group_methods(results)
    leaves = _leaves(
        by_leaf
        for run in results["runs"]
        for by_leaf in run["geometry"]["singular_values"].values()
    )
    titles = leaf_titles(leaves)
    figure, axes = panels(len(leaves), 3 if len(leaves) > 4 else 2, 2.6, sharey=True)
    lowest = 1.0
    for part, leaf in zip(axes, leaves, strict=True):
        for method in methods:
            found = _spectra(method, leaf)
            if not found:
                continue
            spectra = np.array(found)
            floor = ROUNDING * spectra.max(initial=1e-30)
            visible = np.maximum(spectra, floor)
            mean = visible.mean(axis=0)
            low, high = np.percentile(visible, [10, 90], axis=0)
            rank = np.arange(1, len(mean) + 1)
            colour = method_colour(method.name)
            part.plot(rank, mean, color=colour, label=method.label)
            part.fill_between(rank, low, high, color=colour, alpha=0.2, linewidth=0)
            lowest = min([lowest, *mean[mean > 2 * floor].tolist()])
        part.axhline(1, color="black", linestyle=":", linewidth=1.2)
        part.set_yscale("log")
        part.set_title(titles[leaf])
    axes[0].set_ylim(lowest / 2, None)
    figure.supxlabel("Position among the singular values, largest first", fontsize=10.5)
    figure.supylabel("Singular value of the weight update", fontsize=10.5)
    place_legend(figure, *_legend(axes))
    return figure


def leaf_titles(leaves: Iterable[str]) -> dict[str, str]:
    """Short names of leaves: "blocks/mlp/fc1/kernel" is "fc1", unless two would be called so."""
    short = {}
    for leaf in leaves:
        parts = leaf.split("/")
        short[leaf] = parts[-2] if parts[-1] in ("kernel", "weight") and parts[1:] else parts[-1]
    counts = Counter(short.values())
    return {leaf: name if counts[name] == 1 else leaf for leaf, name in short.items()}


def _spectra(method: Method, leaf: str) -> list[list[float]]:
    """Of every seed, task and layer; none if the method does not change the leaf."""
    return [
        layer
        for run in method.runs
        for by_leaf in run["geometry"]["singular_values"].values()
        for layer in by_leaf.get(leaf, [])
    ]


@styled
def norms(results: Results) -> Figure:
    """The norm of every task vector, as grouped bars."""
    groups: list[tuple[str, Any, dict[str, Any]]] = []
    for method in group_methods(results):
        values = [
            [run["geometry"]["norms"][task] for run in method.runs] for task in results["tasks"]
        ]
        groups.append((method.label, np.array(values), {"color": method_colour(method.name)}))
    figure, axes = grouped_bars(results, groups)
    axes.set_xlabel("‖τ‖, norm over all weights of the image tower")
    place_legend(figure, *axes.get_legend_handles_labels())
    return figure
