"""The figures of a run; here those of accuracy and of the course of training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from orthoreg_jax.evaluation.results import Results, Run

from .geometry_plots import angles, cosines, disentanglement, norms, singular_values
from .style import (
    GREY,
    draw_curves,
    grouped_bars,
    method_colour,
    method_marker,
    pale,
    panels,
    place_legend,
    styled,
)
from .summary import (
    Method,
    control_name,
    control_shares,
    group_methods,
    zero_shot_mean,
)
from .tables import share_text

# Lines of metrics.jsonl, by method, one list for each task and seed.
Metrics = Mapping[str, Sequence[Sequence[Mapping[str, Any]]]]
ZERO_SHOT: dict[str, Any] = {"color": GREY, "linestyle": "--", "linewidth": 1.4, "zorder": 1}


def draw_figures(results: Results, metrics: Metrics) -> Iterator[tuple[str, Figure]]:
    """Every figure with its name, one at a time, so that none is kept longer than needed."""
    measured = all(run["disentanglement"] for run in results["runs"])
    optional = (disentanglement,) if measured else ()
    for draw in (addition, tasks, negation, *optional, cosines, singular_values, angles, norms):
        yield draw.__name__, draw(results)
    if any(metrics.values()):
        yield "training", training(results, metrics)


@styled
def addition(results: Results) -> Figure:
    """Mean validation accuracy of the added model over alpha, normalised and absolute."""
    figure, (left, right) = panels(2, 2, 3.9)
    alphas = np.array(results["alphas"])
    for method in group_methods(results):
        absolute = np.array([_added_accuracy(run).mean(axis=0) for run in method.runs])
        normalised = np.array(
            [(_added_accuracy(run) / _single_accuracy(run)).mean(axis=0) for run in method.runs]
        )
        for axes, curves in ((left, 100 * normalised), (right, 100 * absolute)):
            draw_curves(axes, alphas, curves, method)
            for run, curve in zip(method.runs, curves, strict=True):
                index = int(np.argmin(np.abs(alphas - run["addition"]["alpha"])))
                _mark_choice(axes, alphas[index], curve[index], method)
    right.axhline(100 * zero_shot_mean(results, "val"), label="Zero-shot", **ZERO_SHOT)
    left.set_title("Normalised: % of its own single-task accuracy")
    right.set_title("Absolute: accuracy (%)")
    for axes in (left, right):
        axes.set_xlabel("α, the scale of the sum of all task vectors")
        axes.set_xlim(alphas[0], alphas[-1] * 1.02)
    handles, labels = right.get_legend_handles_labels()
    chosen = Line2D([], [], linestyle="", marker="o", markersize=10, color="none")
    chosen.set_markeredgecolor("black")
    place_legend(figure, [*handles, chosen], [*labels, "Chosen α"], columns=4)
    return figure


def _added_accuracy(run: Run) -> Float[np.ndarray, "tasks alphas"]:
    return np.array(list(run["addition"]["val"].values()))


def _single_accuracy(run: Run) -> Float[np.ndarray, "tasks 1"]:
    return np.array([[run["single"]["val"][task]] for task in run["addition"]["val"]])


def _mark_choice(axes: Axes, x: float, y: float, method: Method) -> None:
    colour = method_colour(method.name)
    marker = method_marker(method.name)
    axes.plot(x, y, marker, markersize=10, color="white", markeredgecolor=colour, zorder=5)
    axes.plot(x, y, marker, markersize=5, color=colour, zorder=6)


@styled
def tasks(results: Results) -> Figure:
    """Test accuracy on every task: zero-shot, single-task and added, as grouped bars."""
    methods, names = group_methods(results), list(results["tasks"])
    zero_shot = [[results["zero_shot"]["test"][task]] for task in names]
    groups = [("Zero-shot", np.array(zero_shot), {"color": GREY})]
    for method in methods:
        colour = method_colour(method.name)
        alone = [[run["single"]["test"][task] for run in method.runs] for task in names]
        added = [[run["addition"]["test"][task] for run in method.runs] for task in names]
        light: dict[str, Any] = {"facecolor": pale(colour), "edgecolor": colour, "linewidth": 0.8}
        groups.append((f"{method.label}: single-task", np.array(alone), light))
        groups.append((f"{method.label}: added", np.array(added), {"color": colour}))
    figure, axes = grouped_bars(results, [(label, 100 * v, s) for label, v, s in groups])
    axes.set_xlabel("Test accuracy (%)")
    axes.set_xlim(0, 100)
    place_legend(figure, *axes.get_legend_handles_labels(), columns=2)
    return figure


@styled
def negation(results: Results) -> Figure:
    """Mean validation accuracy on forgotten tasks and on the control task over alpha."""
    figure, (left, right) = panels(2, 2, 3.9)
    alphas = np.array(results["alphas"])
    for method in group_methods(results):
        target, control = (
            np.array(
                [
                    np.mean([task[key] for task in run["negation"].values()], 0)
                    for run in method.runs
                ]
            )
            for key in ("target_val", "control_val")
        )
        draw_curves(left, alphas, 100 * target, method)
        draw_curves(right, alphas, 100 * control, method)
    left.axhline(100 * zero_shot_mean(results, "val"), label="Zero-shot", **ZERO_SHOT)
    zero_shot = 100 * results["zero_shot"]["val"][control_name(results)]
    right.axhline(zero_shot, **ZERO_SHOT)
    for share in control_shares(results):
        right.axhline(float(share) * zero_shot, color="#333333", linestyle=":", linewidth=1.2)
        right.annotate(
            share_text(share),
            (1, float(share) * zero_shot),
            xycoords=("axes fraction", "data"),
            xytext=(3, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
        )
    left.set_title("Tasks to forget: accuracy (%)")
    right.set_title("Control task: accuracy (%)")
    for axes in (left, right):
        axes.set_xlabel("α, the scale of what is subtracted")
        axes.set_xlim(alphas[0], alphas[-1])
        axes.set_ylim(bottom=0)
    place_legend(figure, *left.get_legend_handles_labels())
    return figure


@styled
def training(results: Results, metrics: Metrics) -> Figure:
    """Loss, and the penalty where there is one, over training steps."""
    methods = [method for method in group_methods(results) if metrics.get(method.name)]
    penalised = [method for method in methods if method.strength]
    figure, axes = panels(2 if penalised else 1, 2, 3.7)
    for key, title, shown, part in (
        ("loss", "Cross-entropy", methods, axes[0]),
        ("penalty", "Penalty, before it is multiplied by λ", penalised, axes[-1]),
    ):
        for method in shown:
            steps, low, mean, high = _history(metrics[method.name], key)
            colour = method_colour(method.name)
            part.plot(steps, mean, color=colour, label=method.label)
            part.fill_between(steps, low, high, color=colour, alpha=0.15, linewidth=0)
        if shown:
            part.set_title(title)
            part.set_xlabel("Step")
            part.ticklabel_format(useOffset=False)
    place_legend(figure, *axes[0].get_legend_handles_labels())
    return figure


def _history(
    histories: Sequence[Sequence[Mapping[str, Any]]], key: str
) -> tuple[list[int], list[float], list[float], list[float]]:
    """Steps, and the least, mean and greatest value over all tasks and seeds at each."""
    values: dict[int, list[float]] = {}
    for lines in histories:
        for line in lines:
            if np.isfinite(line[key]):
                values.setdefault(line["step"], []).append(line[key])
    # A step that not every history has would shift the mean.
    steps = sorted(step for step in values if len(values[step]) == len(histories))
    bands = [(min(values[s]), float(np.mean(values[s])), max(values[s])) for s in steps]
    low, mean, high = (
        (list(column) for column in zip(*bands, strict=True)) if bands else ([], [], [])
    )
    return steps, low, mean, high
