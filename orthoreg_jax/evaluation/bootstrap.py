"""Confidence intervals for a mean over tasks, by resampling the test images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Shaped

DRAWS = 2000
LEVEL = 0.95


class Interval(NamedTuple):
    """A mean and its confidence interval."""

    mean: float
    low: float
    high: float


def bootstrap_interval(
    values: Mapping[str, Shaped[np.ndarray, " _n"]],
    draws: int = DRAWS,
    level: float = LEVEL,
    seed: int = 0,
) -> Interval:
    r"""Percentile bootstrap of the mean over tasks of the mean over a task's images.

    Every draw resamples each task's images with replacement; the tasks are fixed. For an accuracy,
    give 1 (correct) or 0 (wrong). To compare two models on the same images, give the differences,
    -1, 0 or 1; this pairing removes the variance from images that both find hard. With several
    seeds, give each image's mean over seeds.

    Args:
      values: one number for each test image, by task.
      draws: number of resamplings.
      level: confidence level, the fraction of draws inside the interval.
      seed: seed of the resampling; the same images give the same interval.

    Raises:
      ValueError: there is no task, or a task has no images.

    Reference: B. Efron, R. Tibshirani, An Introduction to the Bootstrap (1993), chapter 13.
    """
    empty = [task for task, numbers in values.items() if len(numbers) == 0]
    if empty or not values:
        raise ValueError(f"tasks without images: {empty or 'all, none was given'}")
    rng = np.random.default_rng(seed)
    means = np.zeros(draws)
    for _, numbers in sorted(values.items()):  # the same draws, whatever the order of tasks
        size = len(numbers)
        # There are few distinct numbers, so it draws how often each one occurs.
        distinct, counts = np.unique(np.asarray(numbers, float), return_counts=True)
        means += rng.multinomial(size, counts / size, draws) @ distinct / size
    means /= len(values)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    mean = np.mean([np.mean(numbers) for numbers in values.values()])
    return Interval(float(mean), float(low), float(high))
