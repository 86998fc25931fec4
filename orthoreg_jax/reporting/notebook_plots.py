"""Figures of what a notebook has measured, in the look of the report's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Array, Float
from matplotlib.figure import Figure

from orthoreg_jax.arithmetic.paths import briefly
from orthoreg_jax.evaluation.checks import read_accuracies, read_numbers, read_rising

from .geometry_plots import ROUNDING, add_cosine_bar, cosine_limit, draw_cosines, draw_errors
from .panels import LETTER, Panels, as_percent, as_powers
from .style import INK, styled

CURVES = 6.4  # inches, width of curves
SQUARE = 4.2  # inches, of a heat map with few cells
CELLS = (0.24, 0.36, 0.8)  # inches: the smallest with a name, with a number, and the largest
Series = Float[Array | np.ndarray, "..."]


@styled
def plot_alphas(alphas: Sequence[float] | Series, accuracy: Series, tasks: Sequence[str]) -> Figure:
    """Accuracy of an edited model over alpha: a line for each task, and their mean.

    Args:
      alphas: as given to `sweep_accuracy`.
      accuracy: what it returned: a row for each alpha, a column for each task; from 0 to 1.
      tasks: their names.

    Returns:
      A matplotlib figure; its axes may be changed.

    Raises:
      ValueError: numbers of another shape, alphas that do not rise, or accuracies that are not from
        0 to 1.

    Examples:
      >>> figure = oj.plot_alphas([0.0, 0.5, 1.0], np.array([[0.5], [0.7], [0.6]]), ["mnist"])
      >>> figure.axes[0].get_xlabel()
      'α'
    """
    alphas, accuracy = read_rising(alphas), read_accuracies(accuracy, "accuracy")
    _check_shape("accuracy", accuracy, (len(alphas), len(tasks)), "alphas and tasks")
    panels = Panels(
        ("Accuracy of the edited model, %",), ("panel", "task", "α"), 1, 3.2, width=CURVES
    )
    (axes,) = panels.axes
    for name, values in zip(tasks, accuracy.T, strict=True):
        axes.plot(alphas, values, label=name, marker="o", markersize=3, linewidth=1)
    if len(tasks) > 1:
        axes.plot(alphas, accuracy.mean(axis=1), label="Mean", color=INK, linewidth=2.2)
    axes.set_xlabel("α")
    as_percent(axes.yaxis)
    panels.legend()
    return panels.figure


@styled
def plot_cosines(cosines: Series, names: Sequence[str]) -> Figure:
    """Cosines between task vectors as a heat map: white is orthogonal, the diagonal grey.

    Numbers are on the cells of up to 24 vectors.

    Args:
      cosines: of each pair, from `cosine_matrix`.
      names: of the vectors.

    Returns:
      A matplotlib figure.

    Raises:
      ValueError: numbers of another shape, or that are no cosines.

    Examples:
      >>> figure = oj.plot_cosines(np.array([[1.0, 0.2], [0.2, 1.0]]), ["mnist", "emoji"])
      >>> [label.get_text() for label in figure.axes[0].get_yticklabels()]
      ['mnist', 'emoji']
    """
    values, count = read_numbers(cosines, "cosines"), len(names)
    _check_shape("cosines", values, (count, count), "names and names")
    if count < 2:
        raise ValueError(f"cosines of {count} vectors; give at least two")
    if np.abs(values).max() > 1.001:  # rounding
        largest = values.flat[np.abs(values).argmax()]
        raise ValueError(f"cosines: contains {largest:g}; give numbers from -1 to 1")
    off = values[~np.eye(len(names), dtype=bool)]
    limit = cosine_limit([off])
    cell = min(max(SQUARE / count, CELLS[1] if count <= 24 else CELLS[0]), CELLS[2])
    side, margin = cell * count, LETTER * max(map(len, names)) + 0.3
    header = ("panel", "task", "other", "cosine")
    width = max(margin + side, 4.0)  # of the title, at least
    panels = Panels(("Cosines of task vectors",), header, 1, side, margin + 1.2, width)
    image = draw_cosines(panels, panels.axes[0], values, list(names), limit, cell)
    add_cosine_bar(panels, image)
    return panels.figure


@styled
def plot_disentanglement(
    alphas: Sequence[float] | Series, error: Series, tasks: Sequence[str] = ("first", "second")
) -> Figure:
    """The disentanglement error of two task vectors as a heat map over both alphas.

    Args:
      alphas: of both, rising.
      error: xi from `measure_disentanglement`: a row for each alpha of the first task, a column for
        each of the second.
      tasks: the two names.

    Returns:
      A matplotlib figure.

    Raises:
      ValueError: numbers of another shape, fewer than two alphas or alphas that do not rise, or
        errors that are not from 0 to 2.

    Examples:
      >>> figure = oj.plot_disentanglement([0.0, 1.0], np.array([[0.0, 0.1], [0.1, 0.3]]))
      >>> figure.axes[0].get_xlabel()
      'α of second'
    """
    values, corners = read_numbers(error, "error"), read_rising(alphas).tolist()
    _check_shape("error", values, (len(corners), len(corners)), "alphas and alphas")
    if len(corners) < 2:
        raise ValueError(f"{len(corners)} alphas; give at least two")
    if values.min() < 0 or values.max() > 2:
        wrong = values[(values < 0) | (values > 2)][0]
        raise ValueError(f"error: contains {wrong:g}; give numbers from 0 to 2")
    header = ("panel", "alpha of the first task", "alpha of the second task", "error")
    title = f"Disentanglement error, mean {values.mean():.2f}"
    panels = Panels((title,), header, 1, SQUARE, 0.9, SQUARE + 0.8)
    highest = max(float(values.max()), 1e-9)
    image = draw_errors(panels, panels.axes[0], values, corners, highest)
    panels.axes[0].set(xlabel=f"α of {tasks[1]}", ylabel=f"α of {tasks[0]}")
    panels.bar(image, "ξ")
    return panels.figure


@styled
def plot_singular_values(values: Mapping[str, Series]) -> Figure:
    """Singular values of weight updates, largest first, a line for each.

    Those below a millionth of the largest are rounding error, and left out.

    Args:
      values: by name, one matrix's or a stack's (layers, values), whose mean is drawn; from
        `singular_values`.

    Returns:
      A matplotlib figure.

    Raises:
      ValueError: nothing to draw, numbers that are not finite, or negative ones.

    Examples:
      >>> update = {"kernel": jnp.diag(jnp.array([3.0, 1.0]))}
      >>> figure = oj.plot_singular_values(oj.singular_values(update))
      >>> figure.axes[0].lines[0].get_ydata().tolist()
      [3.0, 1.0]
    """
    if not isinstance(values, Mapping):
        raise ValueError(
            f"values is {briefly(values)}; give a dict by name, as oj.singular_values returns it"
        )
    if not values:
        raise ValueError("no singular values to draw; give those of at least one matrix")
    header = ("panel", "matrix", "position")
    panels = Panels(("Singular values",), header, 1, 3.2, width=CURVES)
    (axes,) = panels.axes
    for name, own in values.items():
        numbers = read_numbers(own, str(name))
        if not numbers.size or numbers.min() < 0:
            raise ValueError(f"{name}: has no or negative singular values; give those of a matrix")
        mean = numbers.reshape(-1, numbers.shape[-1] if numbers.ndim else 1).mean(axis=0)
        there = mean > ROUNDING * mean.max()
        label = str(name) if there.any() else f"{name} (0)"
        place = np.arange(1, len(mean) + 1)[there]
        axes.plot(place, mean[there], label=label, marker="o", markersize=2)
    axes.axhline(1, color=INK, linestyle=(0, (1, 2)), linewidth=1)
    as_powers(axes)
    axes.set(xlabel="Position among the singular values, largest first")
    panels.legend()
    return panels.figure


@styled
def plot_accuracies(accuracies: Mapping[str, Mapping[str, float]]) -> Figure:
    """Accuracy of several models on each task, a row for each task.

    Args:
      accuracies: by model, then by task, as `measure_accuracies` returns them; from 0 to 1.

    Returns:
      A matplotlib figure.

    Raises:
      ValueError: no model, models of different tasks, or accuracies that are not from 0 to 1.

    Examples:
      >>> figure = oj.plot_accuracies({"zero-shot": {"mnist": 0.5}, "merged": {"mnist": 0.8}})
      >>> [label.get_text() for label in figure.axes[0].get_yticklabels()]
      ['mnist']
    """
    if not isinstance(accuracies, Mapping) or not all(
        isinstance(own, Mapping) for own in accuracies.values()
    ):
        raise ValueError(
            f"accuracies is {briefly(accuracies)}; give those of each model by name: "
            "{'merged': oj.measure_accuracies(...)}"
        )
    tasks = list(next(iter(accuracies.values()), {}))
    for model, own in accuracies.items():
        if list(own) != tasks:
            raise ValueError(f"{model} has accuracies of {list(own)}, expected {tasks}")
        read_accuracies(list(own.values()), str(model))
    if not tasks:
        raise ValueError("no accuracy to draw; give at least one model with one task")
    header, height = ("panel", "model", "task"), 0.8 + 0.3 * len(tasks)
    panels = Panels(("Accuracy, %",), header, 1, height, width=CURVES)
    (axes,) = panels.axes
    for number, (model, own) in enumerate(accuracies.items()):
        marker: Any = "osD^v"[number % 5]
        axes.plot(list(own.values()), range(len(tasks)), label=model, linestyle="",
                  marker=marker)  # fmt: skip
    axes.set_yticks(range(len(tasks)), tasks)
    axes.set_ylim(len(tasks) - 0.4, -0.6)
    as_percent(axes.xaxis)
    panels.legend()
    return panels.figure


def _check_shape(name: str, values: Any, expected: tuple[int, ...], of: str) -> None:
    if values.shape != expected:
        raise ValueError(
            f"{name} has shape {values.shape}, expected {expected}, by the number of {of}"
        )
