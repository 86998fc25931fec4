"""Searches alpha: a coarse grid in relative length, then between the best and its neighbours.

A grid in alpha is unfair to long task vectors: a penalty that makes them ten times as long divides
the best alpha by ten, where the usual grids have one or two points. The grid is therefore one of
||alpha tau|| / ||theta_0||. All methods share the grid and the number of evaluations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from .selection import Choice, Numbers, choose_addition, choose_negation, normalised

# Alphas -> accuracies (alphas, sets).
Measure = Callable[[Float[np.ndarray, " a"]], Float[np.ndarray, "a s"]]
ALPHA_FACTORS = (0.5, 2**-0.5, 2**0.5, 2.0)  # tried on each task's alpha, see `search_per_task`


class Searched(NamedTuple):
    """Every alpha tried, ascending, with its accuracies, and the one chosen."""

    alphas: Float[np.ndarray, " a"]
    accuracy: Float[np.ndarray, "a s"]
    choice: Choice


def search_addition(
    measure: Measure, alphas: Sequence[float], single: Float[np.ndarray, " t"], rounds: int
) -> Searched:
    """Searches alpha for an added or merged vector, by the criterion of `choose_addition`.

    Each round tries two further alphas, halfway (by ratio) between the best one and its neighbour
    on either side, or beyond the end of the grid if the best is the last.

    Args:
      measure: alphas -> accuracies, a column for each task.
      alphas: the first grid, rising from 0.
      single: accuracy of each task's own fine-tuned model.
      rounds: number of rounds after the first grid; 0 tries the grid only.

    Examples:
      >>> peak = lambda alphas: np.exp(-((alphas[:, None] - 0.3) ** 2))
      >>> found = search_addition(peak, [0.0, 0.125, 0.25, 0.5, 1.0], np.ones(1), rounds=3)
      >>> found.choice.alpha, len(found.alphas)
      (0.2973, 11)
    """
    found = _first(measure, alphas)
    for _ in range(rounds):
        best = choose_addition(found.alphas, found.accuracy, single).position
        found = _try(measure, found, [_between(found.alphas, best, side) for side in (-1, 1)])
    return found._replace(choice=choose_addition(found.alphas, found.accuracy, single))


def search_negation(
    measure: Measure, alphas: Sequence[float], shares: Sequence[float], rounds: int
) -> tuple[Searched, list[Choice]]:
    """Searches the alphas that forget a task, one for each share of control accuracy to keep.

    Each round tries one further alpha for each share. Control accuracy falls as alpha grows. If
    the next larger alpha violates the bound, the bound is between the two, and their middle is
    tried. Otherwise the target accuracy has its minimum nearby, and the middle on the side with the
    lower target accuracy is tried.

    Args:
      measure: alphas -> accuracies of theta_0 - alpha * tau, with columns target and control.
      alphas: the first grid, rising from 0.
      shares: fractions of the zero-shot control accuracy to keep.
      rounds: number of rounds after the first grid.

    Returns:
      Everything tried, with the first share's choice; and the choice for each share.
    """
    found = _first(measure, alphas)

    def choose(share: float) -> Choice:
        target, control = found.accuracy.T
        return choose_negation(found.alphas, target, control, share)

    for _ in range(rounds):
        sides = [(share, choose(share).position) for share in shares]
        found = _try(
            measure,
            found,
            [
                _between(found.alphas, best, _side(found.accuracy, best, share))
                for share, best in sides
            ],
        )
    choices = [choose(share) for share in shares]
    return found._replace(choice=choices[0]), choices


def search_per_task(
    measure: Callable[[Float[np.ndarray, "g v"]], Float[np.ndarray, "g t"]],
    alpha: float,
    single: Float[np.ndarray, " t"],
    rounds: int,
    count: int | None = None,
) -> Float[np.ndarray, " v"]:
    """Searches one alpha for each task vector of a sum, by coordinate search from a common one.

    For one task after another, multiplies its alpha by each of `ALPHA_FACTORS` while the others
    stay fixed, and keeps the alpha with the best mean normalised validation accuracy; if none is
    better, the alpha stays.

    Args:
      measure: accuracies (g, tasks) of g rows of alphas, theta_0 + sum_t alpha_t tau_t.
      alpha: of all, to begin with.
      single: of each task's own fine-tuned model.
      rounds: how often all tasks are gone through.
      count: of the alphas, where they are not one for each task.
    """
    alphas = np.full(len(single) if count is None else count, float(alpha))
    best = normalised(measure(alphas[None]), single).mean(axis=1)[0]
    for task in np.tile(np.arange(len(alphas)), rounds):
        rows = np.tile(alphas, (len(ALPHA_FACTORS), 1))
        rows[:, task] = _tidy(rows[:, task] * np.array(ALPHA_FACTORS))
        means = normalised(measure(rows), single).mean(axis=1)
        if means.max() > best:
            best, alphas = means.max(), rows[int(np.argmax(means))]
    return alphas


def flat_range(
    alphas: Float[np.ndarray, " a"], mean: Float[np.ndarray, " a"], position: int, within: float
) -> tuple[float, float]:
    """The range of alphas around the chosen one that lose at most `within` accuracy.

    Its ends are alphas that were tried, with no worse alpha between them and the chosen one.
    """
    good = mean >= mean[position] - within
    low = high = position
    while low > 0 and good[low - 1]:
        low -= 1
    while high + 1 < len(alphas) and good[high + 1]:
        high += 1
    return float(alphas[low]), float(alphas[high])


def _tidy(alphas: Numbers) -> Float[np.ndarray, " a"]:
    """Rounds to four significant digits, so that a table or card shows the alpha measured."""
    return np.array([float(f"{alpha:.4g}") for alpha in alphas])


def _first(measure: Measure, alphas: Sequence[float]) -> Searched:
    grid = _tidy(alphas)
    return Searched(grid, measure(grid), Choice(0, 0.0, False))


def _try(measure: Measure, found: Searched, more: Sequence[float]) -> Searched:
    """Adds further alphas to a result; does not measure an alpha twice."""
    new = np.setdiff1d(_tidy(more), found.alphas)
    if not len(new):
        return found
    alphas = np.append(found.alphas, new)
    order = np.argsort(alphas)
    accuracy = np.concatenate([found.accuracy, measure(new)])
    return Searched(alphas[order], accuracy[order], found.choice)


def _between(alphas: Float[np.ndarray, " a"], place: int, side: int) -> float:
    """The next alpha to try on one side of the best: halfway to the neighbour, by ratio."""
    if place == 0 and side < 0:  # nothing is below 0, so this is a second point above it
        return float(alphas[1] / 4)
    if place + side == len(alphas):
        return float(alphas[place] ** 2 / alphas[place - 1]) if place > 1 else 2 * alphas[place]
    low, high = sorted((alphas[place], alphas[place + side]))
    return float(np.sqrt(low * high)) if low > 0 else float(high / 2)


def _side(accuracy: Float[np.ndarray, "a 2"], best: int, share: float) -> int:
    target, control = accuracy.T
    if best + 1 == len(target) or control[best + 1] < share * control[0] or best == 0:
        return 1
    return 1 if target[best + 1] <= target[best - 1] else -1
