"""Sparsifiers: which entries a task vector keeps before vectors are combined."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Inexact

from .order_statistics import kth_magnitude
from .types import Cutoffs, Key, Values


class Sparsifier(NamedTuple):
    """How to sparsify each task vector before election and combination.

    `reads`, `random` and `cutoff` are those of `Merger`.

    Attributes:
      keep: (values, cutoffs, key, *options) -> the values, with 0 where they are left out.
      options: numbers that `keep` and `cutoff` take.
    """

    keep: Callable[..., Values]
    options: tuple[Any, ...] = ()
    reads: str = "entries"
    random: bool = False
    cutoff: Callable[..., Float[Array, ""]] | None = None


def everything() -> Sparsifier:
    """Keeps all entries."""
    return Sparsifier(_keep_all)


def largest(k: float, over: str) -> Sparsifier:
    """Keeps the largest k % of magnitudes, over the whole task vector or over each tensor."""
    if over == "vector":
        return Sparsifier(_keep_from, (k,), cutoff=_smallest_kept)
    return Sparsifier(_keep_largest, (k,), reads="tensors")


def drop(p: float) -> Sparsifier:
    """Drops each entry with probability p and multiplies the others by 1 / (1 - p)."""
    return Sparsifier(_drop, (p,), random=True)


def band(beta: float, gamma: float) -> Sparsifier:
    """Keeps each tensor's magnitudes between the quantiles beta and gamma."""
    return Sparsifier(_keep_band, (beta, gamma), reads="tensors")


def agreed(k: int, scale: float) -> Sparsifier:
    """Keeps entries that are large relative to the other tasks' for at least k tasks."""
    return Sparsifier(_keep_agreed, (k, scale))


def _keep_all(values: Values, cutoffs: Cutoffs, key: Key) -> Values:
    del cutoffs, key
    return values


def _keep_from(values: Values, cutoffs: Cutoffs, key: Key, k: float) -> Values:
    del key, k
    assert cutoffs is not None
    limits = cutoffs.astype(values.dtype).reshape(-1, *[1] * (values.ndim - 1))
    return jnp.where(jnp.abs(values) >= limits, values, 0)


def _keep_largest(values: Values, cutoffs: Cutoffs, key: Key, k: float) -> Values:
    del cutoffs
    own = jax.vmap(lambda value: _smallest_kept([value], k))(values)
    return _keep_from(values, own, key, k)


def _smallest_kept(leaves: Sequence[Inexact[Array, ...]], k: float) -> Float[Array, ""]:
    size = sum(leaf.size for leaf in leaves)
    return kth_magnitude(leaves, max(1, int(size * k / 100)))


def _drop(values: Values, cutoffs: Cutoffs, key: Key, p: float) -> Values:
    del cutoffs
    # One task after another, so that memory holds only one task's random bits.
    kept = jax.lax.map(
        lambda task: jax.random.bernoulli(task, 1 - p, values.shape[1:]),
        jax.random.split(key, len(values)),
    )
    return jnp.where(kept, values / (1 - p), 0)


def _keep_band(values: Values, cutoffs: Cutoffs, key: Key, beta: float, gamma: float) -> Values:
    del cutoffs, key
    size = values[0].size
    # Keeps at least one entry, however small the tensor.
    small = min(int(size * beta), size - 1)
    large = min(int(size * (1 - gamma)), size - 1 - small)

    def keep(value: Float[Array, ...]) -> Float[Array, ...]:
        low, high = kth_magnitude([value], size - small), kth_magnitude([value], large + 1)
        magnitude = jnp.abs(value)
        return jnp.where((magnitude >= low) & (magnitude <= high), value, 0)

    return jax.vmap(keep)(values)


def _keep_agreed(values: Values, cutoffs: Cutoffs, key: Key, k: int, scale: float) -> Values:
    del cutoffs, key
    others = jnp.sum(values, axis=0) - values
    needed = jnp.abs(values) >= scale * jnp.abs(others)
    return jnp.where(jnp.sum(needed, axis=0) >= k, values, 0)
