"""Which images make up which batch: pure functions of a seed and a step."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Shaped


def training_rows(size: int, batch: int, step: int, seed: int) -> Int[np.ndarray, " batch"]:
    """Rows of a training batch.

    Batches cut an endless row of shuffled epochs, so every image is seen once per epoch, and any
    step can be resumed without having run the ones before it.

    Args:
      size: images in the split.
      batch: images in a batch; may be more than `size`.
      step: number of the batch, from 0.
      seed: fixes the order.
    """
    start, stop = step * batch, (step + 1) * batch
    epochs = range(start // size, (stop - 1) // size + 1)
    orders = [np.random.default_rng((seed, epoch)).permutation(size) for epoch in epochs]
    offset = epochs[0] * size
    return np.concatenate(orders)[start - offset : stop - offset]


class Batch(NamedTuple):
    """One evaluation batch of a fixed size; padding has weight 0."""

    images: Shaped[np.ndarray, "b ..."]
    labels: Int[np.ndarray, " b"]
    weights: Float[np.ndarray, " b"]


def evaluation_batches(
    images: Shaped[np.ndarray, "n ..."], labels: Int[np.ndarray, " n"], size: int
) -> list[Batch]:
    """All images once, in batches of one size, so that one compiled function serves them all."""
    batches = []
    for number in range(math.ceil(len(images) / size)):
        rows = slice(number * size, (number + 1) * size)
        padding = size - len(images[rows])
        batches.append(
            Batch(
                np.pad(images[rows], ((0, padding),) + ((0, 0),) * (images.ndim - 1)),
                np.pad(labels[rows], (0, padding)).astype(np.int32),
                np.pad(np.ones(len(images[rows]), np.float32), (0, padding)),
            )
        )
    return batches


def limited_rows(size: int, limit: int) -> Int[np.ndarray, " k"]:
    """At most `limit` of `size` rows, chosen by a fixed seed, in order; all of them if 0."""
    if limit == 0 or size <= limit:
        return np.arange(size)
    return np.sort(np.random.default_rng(0).permutation(size)[:limit])
