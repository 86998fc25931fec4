"""Order statistics of magnitudes over several arrays, without joining or sorting them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Inexact

from orthoreg_jax.arithmetic.precision import wide_type


def kth_magnitude(leaves: Sequence[Inexact[Array, ...]], k: int) -> Float[Array, ""]:
    """The exact k-th largest magnitude, counted from 1, over all entries of several arrays.

    NaN if one of them is NaN.

    A bisection over the bits: magnitudes, being floats from 0 up, are ordered as their bits are.
    31 passes (63 in float64) that only compare and count need no copy of the arrays, where a sort
    would need the whole vector twice.

    Args:
      leaves: arrays of any shapes.
      k: from 1 to the number of entries.
    """
    dtype = wide_type(*(leaf.dtype for leaf in leaves))
    integer = jnp.int64 if dtype == jnp.float64 else jnp.int32
    bits = [
        jax.lax.bitcast_convert_type(jnp.abs(jnp.asarray(leaf, dtype)), integer) for leaf in leaves
    ]
    top = jax.lax.bitcast_convert_type(jnp.array(jnp.inf, dtype), integer)

    def halve(_: Any, bounds: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bounds  # at least k entries are >= low, fewer are >= high
        middle = low + (high - low) // 2
        count = sum(jnp.sum(leaf >= middle, dtype=jnp.uint32) for leaf in bits)
        enough = count >= jnp.uint32(k)
        return jnp.where(enough, middle, low), jnp.where(enough, high, middle)

    start = (jnp.zeros((), integer), top + 1)
    low, _ = jax.lax.fori_loop(0, 8 * dtype.itemsize, halve, start)
    ordered = jnp.stack([jnp.all(leaf <= top) for leaf in bits]).all()
    return jnp.where(ordered, jax.lax.bitcast_convert_type(low, dtype), jnp.nan)
