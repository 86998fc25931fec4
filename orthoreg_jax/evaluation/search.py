"""Searches alpha: a coarse grid in relative length, then between the best and its neighbours.

A grid in alpha itself is unfair to long task vectors: a penalty that makes them ten times as long
moves the best alpha to a tenth, where a grid of the field has one or two points. The grid is
therefore one of ||alpha tau|| / ||theta_0||, the same for all methods, and so is the number of
evaluations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from .selection import Choice, Numbers, choose_addition, choose_negation, normalised

# Accuracies (alphas, sets) of some alphas.
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

    Each round tries two further alphas, halfway (by ratio) from the best one to its neighbours on
    either side; beyond the end of the grid, should the best be its last.

    Args:
      measure: accuracies of given alphas, a column for each task.
      alphas: tried first, rising from 0.
      single: of each task's own fine-tuned model.
      rounds: after the first; 0 leaves the grid as it is.

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

    Each round tries one further alpha for each share. Control accuracy falls as alpha grows, so
    while the next larger alpha breaks the bound, the bound lies between the two, and the middle is
    tried; otherwise the lowest target accuracy does, and the middle on its lower side is.

    Args:
      measure: accuracies of theta_0 - alpha * tau for given alphas: columns target and control.
      alphas: tried first, rising from 0.
      shares: of the zero-shot control accuracy.
      rounds: after the first.

    Returns:
      All that was tried, with the first share's choice; and the choice for each share.
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

    Task after task, `FACTORS` are tried on its alpha while the others stay; the best validation
    mean of normalised accuracy stays, the value before it if none is better.

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

    Of those that were tried: the least and the greatest that no worse one parts from the choice.
    """
    good = mean >= mean[position] - within
    low = high = position
    while low > 0 and good[low - 1]:
        low -= 1
    while high + 1 < len(alphas) and good[high + 1]:
        high += 1
    return float(alphas[low]), float(alphas[high])


def _tidy(alphas: Numbers) -> Float[np.ndarray, " a"]:
    """Rounds to four digits, so that the alpha in a table or card is the one measured."""
    return np.array([float(f"{alpha:.4g}") for alpha in alphas])


def _first(measure: Measure, alphas: Sequence[float]) -> Searched:
    grid = _tidy(alphas)
    return Searched(grid, measure(grid), Choice(0, 0.0, False))


def _try(measure: Measure, found: Searched, more: Sequence[float]) -> Searched:
    """Adds further alphas to a result; those already tried cost nothing."""
    new = np.setdiff1d(_tidy(more), found.alphas)
    if not len(new):
        return found
    alphas = np.append(found.alphas, new)
    order = np.argsort(alphas)
    accuracy = np.concatenate([found.accuracy, measure(new)])
    return Searched(alphas[order], accuracy[order], found.choice)


def _between(alphas: Float[np.ndarray, " a"], place: int, side: int) -> float:
    """The next alpha to try on one side of the best: halfway to the neighbour, by ratio."""
    if place == 0 and side < 0:  # nothing is below 0: once more on the other side
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
