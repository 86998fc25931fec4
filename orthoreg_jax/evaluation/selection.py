"""Chooses alpha on validation data, for addition and negation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from orthoreg_jax.words import counted

from .checks import check_share, read_accuracies, read_choices

Numbers = Float[np.ndarray, " _"] | Sequence[float]


class Choice(NamedTuple):
    """A point of the grid; `at_edge` if it is the last one, so a longer grid might change it."""

    position: int
    alpha: float
    at_edge: bool


def normalised(
    accuracy: Float[np.ndarray, "... t"], single: Float[np.ndarray, " t"]
) -> Float[np.ndarray, "... t"]:
    """Accuracy divided by the same method's own single-task accuracy.

    Raises:
      ValueError: a single-task accuracy is 0, so the ratio is undefined.
    """
    if np.any(single <= 0):
        raise ValueError(
            f"single-task accuracy is 0 (tasks {np.flatnonzero(single <= 0).tolist()}), so "
            "normalised accuracy is undefined; the fine-tuning failed"
        )
    return accuracy / single


def choose_addition(
    alphas: Numbers, accuracy: Float[np.ndarray, "a t"] | Sequence[Sequence[float]], single: Numbers
) -> Choice:
    """The alpha with the best mean normalised validation accuracy; ties go to the smaller.

    Args:
      alphas: the grid, rising from 0.
      accuracy: accuracy of the merged model from 0 to 1, by alpha and task.
      single: accuracy of each task's own fine-tuned model.

    Returns:
      The row of the grid, its alpha, and whether it is the last, so a longer grid might change it.

    Raises:
      ValueError: the grid does not rise from 0, shapes do not match, numbers are NaN or infinite,
        accuracies are not from 0 to 1, or a single-task accuracy is 0.

    Examples:
      >>> alphas, single = np.array([0.0, 0.5, 1.0]), np.array([0.9, 0.8])
      >>> accuracy = np.array([[0.5, 0.6], [0.7, 0.7], [0.6, 0.4]])
      >>> oj.choose_addition(alphas, accuracy, single)
      Choice(position=1, alpha=0.5, at_edge=False)
    """
    alphas = read_choices(alphas)
    accuracy, single = read_accuracies(accuracy, "accuracy"), read_accuracies(single, "single")
    if single.ndim != 1 or accuracy.shape != (len(alphas), len(single)) or accuracy.size == 0:
        raise ValueError(
            f"accuracy has shape {accuracy.shape}, expected one row for each of {len(alphas)} "
            f"alphas and one column for each of {counted(single.size, 'task')}"
        )
    means = normalised(accuracy, single).mean(axis=1)
    index = int(np.argmax(means))
    return Choice(index, float(alphas[index]), index == len(alphas) - 1)


def choose_negation(alphas: Numbers, target: Numbers, control: Numbers, share: float) -> Choice:
    """The alpha with the lowest target accuracy among those that keep control accuracy.

    Only points whose validation control accuracy is at least `share` times that at alpha 0 are
    considered. Ties go to the smaller alpha.

    Args:
      alphas: the grid, rising from 0; weights are theta_0 - alpha * tau.
      target: validation accuracy on the task to forget.
      control: validation accuracy on the control task.
      share: fraction of the zero-shot control accuracy to keep, above 0 and up to 1, e.g. 0.95.

    Returns:
      As `choose_addition`.

    Raises:
      ValueError: the grid does not rise from 0, where the zero-shot control accuracy is measured;
        there is not one number for each alpha; numbers are NaN or infinite; accuracies are not from
        0 to 1; or the share is no fraction.

    Examples:
      >>> alphas, target = np.array([0.0, 0.5, 1.0]), np.array([0.9, 0.4, 0.1])
      >>> oj.choose_negation(alphas, target, np.array([0.7, 0.69, 0.5]), share=0.95)
      Choice(position=1, alpha=0.5, at_edge=False)
    """
    alphas = read_choices(alphas)
    target, control = read_accuracies(target, "target"), read_accuracies(control, "control")
    check_share(share)
    if not target.shape == control.shape == alphas.shape:
        raise ValueError(
            f"{len(alphas)} alphas, but target has shape {target.shape} and control "
            f"{control.shape}; give one number for each alpha"
        )
    kept = control >= share * control[0]
    index = int(np.argmin(np.where(kept, target, np.inf)))
    return Choice(index, float(alphas[index]), index == len(alphas) - 1)
