"""Which images make up a batch: pure functions of seed and step."""

from __future__ import annotations

import functools

import numpy as np
from jaxtyping import Int, Shaped


def training_rows(size: int, batch: int, step: int, seed: int) -> Int[np.ndarray, " batch"]:
    """Rows of one training batch.

    Batches cut up an endless sequence of shuffled epochs. So every image is seen once per epoch,
    and any step can be resumed without running the ones before it.

    Args:
      size: images in the split.
      batch: images in a batch; may exceed `size`.
      step: number of the batch, from 0.
      seed: determines the order.
    """
    start, stop = step * batch, (step + 1) * batch
    epochs = range(start // size, (stop - 1) // size + 1)
    offset = epochs[0] * size
    rows = np.concatenate([_epoch_order(size, seed, epoch) for epoch in epochs])
    return rows[start - offset : stop - offset]


def training_row(size: int, place: int, seed: int) -> int:
    """The row at a place in the endless sequence of shuffled epochs; see `training_rows`."""
    epoch, place = divmod(place, size)
    return int(_epoch_order(size, seed, epoch)[place])


@functools.lru_cache(maxsize=8)
def _epoch_order(size: int, seed: int, epoch: int) -> Int[np.ndarray, " size"]:
    return np.random.default_rng((seed, epoch)).permutation(size)


def evaluation_batches(
    images: Shaped[np.ndarray, "n ..."], size: int
) -> list[Shaped[np.ndarray, "b ..."]]:
    """Yields all images once, in batches of one size, so that one compiled function suffices.

    The last batch is padded with zeros.
    """
    padding = -len(images) % size
    padded = np.pad(images, ((0, padding),) + ((0, 0),) * (images.ndim - 1))
    return np.split(padded, len(padded) // size)


def limited_rows(size: int, limit: int) -> Int[np.ndarray, " k"]:
    """At most `limit` of `size` rows, chosen with a fixed seed, in order; 0: all of them."""
    if limit == 0 or size <= limit:
        return np.arange(size)
    return np.sort(np.random.default_rng(0).permutation(size)[:limit])
