"""Figures of what a notebook has measured, in the look of the report's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Array, Float
from matplotlib.figure import Figure

from .geometry_plots import add_cosine_bar, cosine_limit, draw_cosines, draw_errors
from .panels import Panels, as_percent
from .style import INK, styled

Series = Float[Array | np.ndarray, "..."]


@styled
def plot_alphas(alphas: Sequence[float] | Series, accuracy: Series, tasks: Sequence[str]) -> Figure:
    """Accuracy of an edited model over alpha: a line for each task, and their mean.

    Args:
      alphas: as given to `sweep_accuracy`.
      accuracy: what it returned: a row for each alpha, a column for each task; shares.
      tasks: their names.

    Returns:
      A matplotlib figure; its axes may be changed.

    Raises:
      ValueError: numbers of another shape.

    Examples:
      >>> figure = oj.plot_alphas([0.0, 0.5, 1.0], np.array([[0.5], [0.7], [0.6]]), ["mnist"])
      >>> figure.axes[0].get_xlabel()
      'α'
    """
    alphas, accuracy = np.asarray(alphas, float), np.asarray(accuracy, float)
    _check_shape("accuracy", accuracy, (len(alphas), len(tasks)), "alphas and tasks")
    panels = Panels(("Accuracy of the edited model, %",), ("panel", "task", "α"), 1, 3.2)
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
    """Cosines between task vectors as a heat map, in which white is orthogonal.

    Args:
      cosines: of each pair, from `cosine_matrix`.
      names: of the vectors.

    Returns:
      A matplotlib figure.

    Raises:
      ValueError: numbers of another shape.

    Examples:
      >>> figure = oj.plot_cosines(np.array([[1.0, 0.2], [0.2, 1.0]]), ["mnist", "emoji"])
      >>> [label.get_text() for label in figure.axes[0].get_yticklabels()]
      ['mnist', 'emoji']
    """
    values = np.asarray(cosines, float)
    _check_shape("cosines", values, (len(names), len(names)), "names and names")
    off = values[~np.eye(len(names), dtype=bool)]
    limit = cosine_limit([off])
    panels = Panels(("Cosines of task vectors",), ("panel", "task", "other", "cosine"), 1, 4.0)
    image = draw_cosines(panels, panels.axes[0], values, list(names), limit)
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
      ValueError: numbers of another shape.

    Examples:
      >>> figure = oj.plot_disentanglement([0.0, 1.0], np.array([[0.0, 0.1], [0.1, 0.3]]))
      >>> figure.axes[0].get_xlabel()
      'α of second'
    """
    values = np.asarray(error, float)
    corners = [float(alpha) for alpha in np.asarray(alphas)]
    _check_shape("error", values, (len(corners), len(corners)), "alphas and alphas")
    header = ("panel", "alpha of the first task", "alpha of the second task", "error")
    panels = Panels((f"Disentanglement error, mean {values.mean():.2f}",), header, 1, 4.0)
    highest = max(float(values.max()), 1e-9)
    image = draw_errors(panels, panels.axes[0], values, corners, highest)
    panels.axes[0].set(xlabel=f"α of {tasks[1]}", ylabel=f"α of {tasks[0]}")
    panels.bar(image, "ξ")
    return panels.figure


@styled
def plot_singular_values(values: Mapping[str, Series]) -> Figure:
    """Singular values of weight updates, largest first, a line for each.

    Args:
      values: by name, one matrix's or a stack's (layers, values), whose mean is drawn; from
        `singular_values`.

    Returns:
      A matplotlib figure.

    Raises:
      ValueError: nothing to draw.

    Examples:
      >>> update = {"kernel": jnp.diag(jnp.array([3.0, 1.0]))}
      >>> figure = oj.plot_singular_values(oj.singular_values(update))
      >>> figure.axes[0].lines[0].get_ydata().tolist()
      [3.0, 1.0]
    """
    if not values:
        raise ValueError("no singular values to draw; give those of at least one matrix")
    panels = Panels(("Singular values",), ("panel", "matrix", "position"), 1, 3.2)
    (axes,) = panels.axes
    for name, own in values.items():
        spectrum = np.atleast_2d(np.asarray(own, float)).reshape(-1, np.shape(own)[-1])
        mean = spectrum.mean(axis=0)
        axes.plot(np.arange(1, len(mean) + 1), mean, label=name, marker="o", markersize=2)
    axes.axhline(1, color=INK, linestyle=(0, (1, 2)), linewidth=1)
    axes.set_yscale("log")
    axes.set(xlabel="Position among the singular values, largest first")
    panels.legend()
    return panels.figure


@styled
def plot_accuracies(accuracies: Mapping[str, Mapping[str, float]]) -> Figure:
    """Accuracy of several models on each task, a row for each task.

    Args:
      accuracies: by model, then by task, as `measure_accuracies` returns them; shares.

    Returns:
      A matplotlib figure.

    Raises:
      ValueError: no model, or models of different tasks.

    Examples:
      >>> figure = oj.plot_accuracies({"zero-shot": {"mnist": 0.5}, "merged": {"mnist": 0.8}})
      >>> [label.get_text() for label in figure.axes[0].get_yticklabels()]
      ['mnist']
    """
    tasks = list(next(iter(accuracies.values()), {}))
    for model, own in accuracies.items():
        if list(own) != tasks:
            raise ValueError(f"{model} has accuracies of {list(own)}, expected {tasks}")
    if not tasks:
        raise ValueError("no accuracy to draw; give at least one model with one task")
    panels = Panels(("Accuracy, %",), ("panel", "model", "task"), 1, 0.8 + 0.3 * len(tasks))
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
