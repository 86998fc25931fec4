"""Checks of what measurements take: grids of alphas, accuracies, numbers of images, tasks."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from orthoreg_jax.arithmetic.checks import check_scales
from orthoreg_jax.arithmetic.paths import briefly
from orthoreg_jax.tasks.task import Task


def read_alphas(alphas: Any) -> Float[np.ndarray, " a"]:
    """A grid of alphas as an array.

    Raises:
      ValueError: they are not a sequence of finite numbers, or there is none.
    """
    check_scales(alphas, "alphas")
    if not len(alphas):
        raise ValueError("alphas: there is none; give at least one")
    return np.asarray(alphas, float)


def read_rising(alphas: Any) -> Float[np.ndarray, " a"]:
    """A grid of alphas that rises.

    Raises:
      ValueError: it does not.
    """
    grid = read_alphas(alphas)
    falls = np.flatnonzero(np.diff(grid) <= 0)
    if len(falls):
        first, second = grid[falls[0] : falls[0] + 2]
        raise ValueError(
            f"alphas: {first:g} is followed by {second:g}, expected a grid that rises; sort alphas "
            "and accuracies together, as by np.argsort(alphas)"
        )
    return grid


def read_choices(alphas: Any) -> Float[np.ndarray, " a"]:
    """A grid of alphas that rises from 0, from which one is chosen.

    Raises:
      ValueError: it does not.
    """
    grid = read_rising(alphas)
    if grid[0] != 0:
        raise ValueError(
            f"alphas begin with {grid[0]:g}, expected 0: the unchanged model is one of the choices"
        )
    return grid


def read_numbers(values: Any, name: str) -> Float[np.ndarray, ...]:
    """An array of numbers.

    Raises:
      ValueError: it is something else, or contains NaN or infinity.
    """
    try:
        found = np.asarray(values)
        numbers = found.astype(float) if found.dtype.kind in "fiu" else None
    except (TypeError, ValueError):
        numbers = None
    if numbers is None:
        kind = type(values).__name__
        raise ValueError(f"{name} is {briefly(values)}, a {kind}; give an array of numbers")
    if not np.isfinite(numbers).all():
        where = np.argwhere(~np.isfinite(numbers))[0].tolist()
        raise ValueError(
            f"{name}: contains NaN or infinity, first at {where}; measure that model again, or "
            "leave its alpha out"
        )
    return numbers


def read_accuracies(values: Any, name: str) -> Float[np.ndarray, ...]:
    """Accuracies from 0 to 1, as they are measured.

    Raises:
      ValueError: they are not.
    """
    numbers = read_numbers(values, name)
    wrong = numbers[(numbers < 0) | (numbers > 1)]
    if wrong.size:
        raise ValueError(
            f"{name}: contains {wrong[0]:g}; give fractions from 0 to 1 (per cent divided by 100)"
        )
    return numbers


def check_share(share: Any) -> None:
    """Checks the fraction of an accuracy to keep.

    Raises:
      ValueError: it is not above 0 and up to 1.
    """
    good = isinstance(share, int | float | np.number) and not isinstance(share, bool)
    if not good or not 0 < share <= 1:
        raise ValueError(
            f"share is {briefly(share)}; give a fraction above 0 and up to 1: 0.95 keeps 95 %"
        )


def check_whole(name: str, value: Any, lowest: int) -> None:
    """Checks a number of images, or of rounds.

    Raises:
      ValueError: it is not an int from `lowest`.
    """
    try:
        number = lowest - 1 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = lowest - 1
    if number < lowest:
        raise ValueError(f"{name} is {briefly(value)}; give a whole number from {lowest}")


def read_tasks(tasks: Any, split: str) -> list[Task]:
    """Tasks as a list; each has a split.

    Raises:
      ValueError: there is none, one is no loaded task, or one has no such split.
    """
    if isinstance(tasks, Task):
        raise ValueError(f"tasks is one task, {tasks.name!r}; give a list, [task], or a dict")
    if not isinstance(tasks, Mapping | Sequence) or isinstance(tasks, str):
        raise ValueError(
            f"tasks is {briefly(tasks)}; give loaded tasks: oj.load_tasks('embedded', ['digits'])"
        )
    found = list(tasks.values()) if isinstance(tasks, Mapping) else list(tasks)
    if not found:
        raise ValueError("no task to measure on; give at least one")
    for task in found:
        check_task(task)
        if split not in task.splits:
            raise ValueError(
                f"task {task.name!r} has no split {briefly(split)}, only {list(task.splits)}"
            )
    return found


def check_task(task: Any) -> None:
    """Checks that a value is a loaded task, not its name.

    Raises:
      ValueError: it is not.
    """
    if not isinstance(task, Task):
        name = task if isinstance(task, str) else "mnist"
        raise ValueError(
            f"task is {briefly(task)}, a {type(task).__name__}; give a loaded task: "
            f"oj.load_tasks('embedded', [{name!r}])[{name!r}]"
        )
