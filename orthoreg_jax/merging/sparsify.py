"""What task vectors keep of their entries ahead of being combined."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Inexact

from .magnitudes import kth_magnitude


class Sparsifier:
    """What becomes of each task vector ahead of election and combination: here, nothing.

    `reads`, `random` and `cutoff` are those of `Merger`.
    """

    reads: str = "entries"
    random: bool = False

    def cutoff(self, leaves: Sequence[Inexact[Array, ...]]) -> Float[Array, ""] | None:
        """See `Merger.cutoff`."""
        del leaves
        return None

    def __call__(
        self, values: Float[Array, "t ..."], cutoffs: Float[Array, " t"] | None, key: Any
    ) -> Float[Array, "t ..."]:
        """One tensor of each task vector, made sparse."""
        del cutoffs, key
        return values


@dataclasses.dataclass(frozen=True)
class Everything(Sparsifier):
    """Keeps all entries."""


@dataclasses.dataclass(frozen=True)
class Largest(Sparsifier):
    """Keeps the largest k % of magnitudes, over the whole task vector or over each tensor."""

    k: float
    over: str

    @property
    def reads(self) -> str:  # type: ignore[override]
        return "entries" if self.over == "vector" else "tensors"

    def cutoff(self, leaves: Sequence[Inexact[Array, ...]]) -> Float[Array, ""] | None:
        return None if self.over == "tensor" else self._smallest_kept(leaves)

    def __call__(
        self, values: Float[Array, "t ..."], cutoffs: Float[Array, " t"] | None, key: Any
    ) -> Float[Array, "t ..."]:
        if cutoffs is None:
            cutoffs = jax.vmap(lambda value: self._smallest_kept([value]))(values)
        limits = cutoffs.astype(values.dtype).reshape(-1, *[1] * (values.ndim - 1))
        return jnp.where(jnp.abs(values) >= limits, values, 0)

    def _smallest_kept(self, leaves: Sequence[Inexact[Array, ...]]) -> Float[Array, ""]:
        size = sum(leaf.size for leaf in leaves)
        return kth_magnitude(leaves, max(1, int(size * self.k / 100)))


@dataclasses.dataclass(frozen=True)
class Drop(Sparsifier):
    """Drops each entry with probability p and multiplies the others by 1 / (1 - p)."""

    p: float
    random = True

    def __call__(
        self, values: Float[Array, "t ..."], cutoffs: Float[Array, " t"] | None, key: Any
    ) -> Float[Array, "t ..."]:
        # One task after another: of the random bits, memory holds one task's.
        kept = jax.lax.map(
            lambda task: jax.random.bernoulli(task, 1 - self.p, values.shape[1:]),
            jax.random.split(key, len(values)),
        )
        return jnp.where(kept, values / (1 - self.p), 0)


@dataclasses.dataclass(frozen=True)
class Band(Sparsifier):
    """Keeps, of each tensor, magnitudes from the quantile beta to the quantile gamma."""

    beta: float
    gamma: float
    reads = "tensors"

    def __call__(
        self, values: Float[Array, "t ..."], cutoffs: Float[Array, " t"] | None, key: Any
    ) -> Float[Array, "t ..."]:
        size = values[0].size
        # At least one entry is left, however small the tensor.
        small = min(int(size * self.beta), size - 1)
        large = min(int(size * (1 - self.gamma)), size - 1 - small)

        def band(value: Float[Array, ...]) -> Float[Array, ...]:
            low, high = kth_magnitude([value], size - small), kth_magnitude([value], large + 1)
            magnitude = jnp.abs(value)
            return jnp.where((magnitude >= low) & (magnitude <= high), value, 0)

        return jax.vmap(band)(values)


@dataclasses.dataclass(frozen=True)
class Agreed(Sparsifier):
    """Keeps entries that are large, beside those of the other tasks, for at least k tasks."""

    k: int
    scale: float

    def __call__(
        self, values: Float[Array, "t ..."], cutoffs: Float[Array, " t"] | None, key: Any
    ) -> Float[Array, "t ..."]:
        others = jnp.sum(values, axis=0) - values
        needed = jnp.abs(values) >= self.scale * jnp.abs(others)
        return jnp.where(jnp.sum(needed, axis=0) >= self.k, values, 0)
