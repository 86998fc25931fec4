"""Figures of a run's accuracies and training."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes

from orthoreg_jax.evaluation.results import Addition, Results, Run, TaskNegation

from .geometry_plots import angles, cosines, disentanglement, norms, singular_values
from .panels import BAND, Panels, as_percent, some_of, task_panels, whole_numbers
from .style import CARD, INK, SOFT, method_look, styled
from .summary import MethodRuns, control_name, control_shares, group_methods, zero_shot_mean
from .tables import share_text

# Method -> lines of metrics.jsonl, one list for each task and seed.
Histories = Mapping[str, Sequence[Sequence[Mapping[str, Any]]]]
Curve = Addition | TaskNegation  # both have accuracies over alphas, and their vector's length
ZERO_SHOT_LINE: dict[str, Any] = {"color": SOFT, "linestyle": ":", "linewidth": 1.6, "zorder": 1}


def figures(results: Results, metrics: Histories) -> dict[str, Callable[[], Panels]]:
    """Functions that draw the figures of these results, by name."""
    measured = all(run["disentanglement"] for run in results["runs"])
    optional = (disentanglement,) if measured else ()
    matrices = any(run["geometry"]["angles"] for run in results["runs"])
    of_matrices = (singular_values, angles) if matrices else ()
    every = (addition, tasks, negation, *optional, cosines, *of_matrices, norms)
    drawn: dict[str, Callable[[], Panels]] = {
        draw.__name__: functools.partial(draw, results) for draw in every
    }
    if any(metrics.values()):
        drawn["training"] = functools.partial(training, results, metrics)
    return drawn


def over_seeds(curves: Float[np.ndarray, "seeds x"]) -> Float[np.ndarray, "lines x"]:
    """The mean; for several seeds, between the mean minus and plus one standard deviation."""
    mean = curves.mean(axis=0)
    if len(curves) == 1:
        return mean[None]
    spread = curves.std(axis=0, ddof=1)
    return np.array([mean - spread, mean, mean + spread])


@styled
def addition(results: Results) -> Panels:
    """Mean validation accuracy of the added model over alpha, normalised and absolute."""
    titles = ("Normalised: % of its own single-task accuracy", "Absolute: accuracy, %")
    panels = Panels(titles, ("panel", "method", "alpha", "accuracy", *BAND), 2, 3.0)
    (left, right), end = panels.axes, 0.0
    for method in group_methods(results):
        additions = [run["addition"] for run in method.runs]
        absolute = [_added_accuracy(run).mean(axis=0) for run in method.runs]
        normalised = [_normalised(run) for run in method.runs]
        x = common_lengths(additions)
        end = max(end, float(x[-1]))
        for axes, curves in ((left, normalised), (right, absolute)):
            lines = [read_at(x, *each) for each in zip(additions, curves, strict=True)]
            panels.curve(axes, method, x, over_seeds(np.array(lines)))
            for each, curve in zip(additions, curves, strict=True):
                index = each["alphas"].index(each["alpha"])
                _mark_choice(axes, each["alpha"] * each["length"], curve[index], method)
    right.axhline(zero_shot_mean(results, "val"), label="Zero-shot", **ZERO_SHOT_LINE)
    _length_axes(panels, end, "‖α Σ τ‖ / ‖θ₀‖, relative length of the added vectors")
    ring: Any = {"linestyle": "", "marker": "o", "markersize": 9, "markerfacecolor": CARD}
    right.plot([], [], color=INK, label="Chosen α", **ring)
    panels.legend()
    return panels


def common_lengths(tried: Sequence[Curve]) -> Float[np.ndarray, " x"]:
    """Relative lengths where any of the curves has a point, up to the end of the shortest curve."""
    lengths = [np.array(each["alphas"]) * each["length"] for each in tried]
    x = np.unique(np.round(np.concatenate(lengths), 6))
    return x[x <= min(each[-1] for each in lengths) + 1e-6]


def read_at(
    x: Float[np.ndarray, " x"], tried: Curve, values: Float[np.ndarray, " a"] | Sequence[float]
) -> Float[np.ndarray, " x"]:
    """A curve over alpha at given relative lengths, by linear interpolation."""
    return np.interp(x, np.array(tried["alphas"]) * tried["length"], values)


def _length_axes(panels: Panels, end: float, label: str) -> None:
    """Relative length up to `end` on a cube-root scale, because chosen lengths are small."""
    ticks = [tick for tick in (0, 0.01, 0.03, 0.1, 0.2, 0.5, 1, 2, 4) if tick <= end]
    for axes in panels.axes:
        axes.set_xscale("function", functions=(np.cbrt, _cube))
        axes.set_xlim(0, end)
        for line in axes.lines:
            line.set_clip_on(False)  # otherwise marks at both ends are cut in half
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.set_xlabel(label)
        as_percent(axes.yaxis)


def _cube(values: Any) -> Any:
    return np.asarray(values) ** 3


def _added_accuracy(run: Run) -> Float[np.ndarray, "tasks alphas"]:
    return np.array(list(run["addition"]["val"].values()))


def _normalised(run: Run) -> Float[np.ndarray, " alphas"]:
    """The mean over tasks that chooses alpha: divides by 1 where single-task accuracy is 0."""
    single = np.array([[run["single"]["val"][task]] for task in run["addition"]["val"]])
    return (_added_accuracy(run) / np.where(single > 0, single, 1.0)).mean(axis=0)


def _mark_choice(axes: Axes, x: float, y: float, method: MethodRuns) -> None:
    look = method_look(method.name)
    ring: Any = {"markerfacecolor": CARD, "clip_on": False, "linestyle": ""}
    axes.plot(x, y, **look | ring, markersize=9, zorder=5)
    axes.plot(x, y, **look | {"clip_on": False}, zorder=6)


@styled
def tasks(results: Results) -> Panels:
    """Test accuracy on every task: zero-shot, single-task and added, a panel for each task."""
    methods = group_methods(results)
    panels = task_panels(results, ("task", "method", "model", "accuracy", "deviation"))
    for axes, task in zip(panels.axes, results["tasks"], strict=True):
        zero_shot = results["zero_shot"]["test"][task]
        axes.axvline(zero_shot, label="Zero-shot", **ZERO_SHOT_LINE)
        panels.note(axes, "Zero-shot", "zero-shot", zero_shot, "")
        for row, method in enumerate(methods):
            values = {
                "single-task": method.over_seeds(functools.partial(_alone, task)),
                "added": method.over_seeds(functools.partial(_added, task)),
            }
            panels.dots(axes, row, method, values, values["added"].mean)
        as_percent(axes.xaxis)
    last, ink = panels.axes[-1], dict[str, Any](color=INK, linestyle="")
    last.plot([], [], "|", markersize=9, label="Fine-tuned on that task alone", **ink)
    last.plot([], [], "o", markersize=5.5, label="All task vectors added", **ink)
    panels.legend()
    panels.label("Test accuracy, %")
    return panels


def _alone(task: str, run: Run) -> float:
    return run["single"]["test"][task]


def _added(task: str, run: Run) -> float:
    return run["addition"]["test"][task]


@styled
def negation(results: Results) -> Panels:
    """Mean validation accuracy on forgotten tasks and on the control task over alpha."""
    titles = ("Tasks to forget: accuracy, %", "Control task: accuracy, %")
    panels = Panels(titles, ("panel", "method", "alpha", "accuracy", *BAND), 2, 3.0)
    (left, right), end = panels.axes, 0.0
    for method in group_methods(results):
        x = common_lengths([each for run in method.runs for each in run["negation"].values()])
        end = max(end, float(x[-1]))
        target, control = (
            [
                np.mean([read_at(x, each, of(each)) for each in run["negation"].values()], axis=0)
                for run in method.runs
            ]
            for of in (lambda task: task["target_val"], lambda task: task["control_val"])
        )
        panels.curve(left, method, x, over_seeds(np.array(target)))
        panels.curve(right, method, x, over_seeds(np.array(control)))
    left.axhline(zero_shot_mean(results, "val"), label="Zero-shot", **ZERO_SHOT_LINE)
    zero_shot = results["zero_shot"]["val"][control_name(results)]
    right.axhline(zero_shot, **ZERO_SHOT_LINE)
    for number, share in enumerate(control_shares(results)):
        level = float(share) * zero_shot
        right.axhline(level, color=INK, linestyle=(0, (1, 2)), linewidth=1)
        # Labels are on their lines, each further left, because the lines may be close together.
        box: Any = {"facecolor": CARD, "edgecolor": "none", "pad": 0.8}
        place: Any = {"transform": right.get_yaxis_transform(), "ha": "right", "va": "center"}
        text = share_text(share)
        right.text(0.99 - 0.1 * number, level, text, fontsize=7.5, bbox=box, **place)
    _length_axes(panels, end, "‖α τ‖ / ‖θ₀‖, relative length of the subtracted vector")
    for axes in panels.axes:
        axes.set_ylim(bottom=0)
    panels.legend()
    return panels


@styled
def training(results: Results, metrics: Histories) -> Panels:
    """Loss, and the penalty where there is one, over training steps."""
    methods = [method for method in group_methods(results) if metrics.get(method.name)]
    penalised = [method for method in methods if method.strengths]
    titles = ["Cross-entropy", "Penalty, before multiplying by λ"][: 2 if penalised else 1]
    panels = Panels(titles, ("panel", "method", "step", "value", *BAND), 2, 2.8)
    for key, drawn, axes in zip(
        ("loss", "penalty"), (methods, penalised), panels.axes, strict=False
    ):
        for method in drawn:
            steps, *curves = _history(metrics[method.name], key)
            shown = some_of(len(steps))
            panels.curve(axes, method, steps[shown], np.array(curves)[:, shown], marker="")
        axes.set_xlabel("Step")
        axes.ticklabel_format(useOffset=False)
        whole_numbers(axes.xaxis)
    panels.legend()
    return panels


def _history(
    histories: Sequence[Sequence[Mapping[str, Any]]], key: str
) -> Float[np.ndarray, "4 steps"]:
    """Steps, and the minimum, mean and maximum over all tasks and seeds at each."""
    values: dict[int, list[float]] = {}
    for lines in histories:
        for line in lines:
            if np.isfinite(line[key]):
                values.setdefault(line["step"], []).append(line[key])
    # A step that is missing from some histories would shift the mean.
    steps = sorted(step for step in values if len(values[step]) == len(histories))
    rows = [(s, min(values[s]), np.mean(values[s]), max(values[s])) for s in steps]
    return np.array(rows, dtype=float).reshape(-1, 4).T
