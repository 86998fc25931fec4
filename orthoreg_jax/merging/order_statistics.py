"""Order statistics over several arrays, without joining or sorting them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Inexact

from orthoreg_jax.arithmetic.precision import wide_type


def kth_magnitude(leaves: Sequence[Inexact[Array, ...]], k: int) -> Float[Array, ""]:
    """The exact k-th largest magnitude, counted from 1, over all entries of several arrays.

    NaN if one of them is NaN.

    It bisects over bits, because non-negative floats are ordered as their bits are. The 31 passes
    (63 in float64) only compare and count, without a copy of the arrays; a sort would need the
    whole vector twice.

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


def kth_smallest(
    chunks: Callable[[], Iterable[Float[np.ndarray, "t n"]]], ranks: Sequence[int]
) -> Float[np.ndarray, "t k"]:
    """The exact order statistics of each row of numbers that come in pieces.

    NaN for all rows if one number is NaN.

    The bits of floats, negative ones turned round, are ordered as the floats are. Each pass counts
    numbers by their next 16 bits: two passes for float32, four for float64, which keep nothing.

    Args:
      chunks: starts a pass: the columns of all rows, piece by piece, in one type.
      ranks: counted from the smallest, 0.
    """
    found: Any = None
    shift = 0
    for number in range(4):
        counts: Any = None
        for chunk in chunks():
            if np.isnan(chunk).any():
                return np.full((len(chunk), len(ranks)), np.nan, chunk.dtype)
            codes = _ordered_bits(chunk)
            width = codes.dtype.itemsize * 8
            shift = width - 16 * (number + 1)
            if found is None:
                found = np.zeros((len(chunk), len(ranks)), codes.dtype)
                left = np.tile(np.asarray(ranks, np.int64), (len(chunk), 1))
            if counts is None:
                counts = np.zeros((*found.shape, 2**16), np.int64)
            for row, code in enumerate(codes):
                digits = (code >> shift) & 0xFFFF
                for place in range(len(ranks)):
                    own = digits
                    if number:  # those that begin as the one that is looked for
                        own = digits[code >> (shift + 16) == found[row, place] >> (shift + 16)]
                    counts[row, place] += np.bincount(own.astype(np.int64), minlength=2**16)
        below = np.cumsum(counts, axis=-1)
        digit = (below <= left[..., None]).sum(axis=-1)
        before = np.take_along_axis(below - counts, digit[..., None], axis=-1)[..., 0]
        left -= before
        found |= digit.astype(found.dtype) << found.dtype.type(shift)
        if not shift:
            break
    return _floats(found)


def _ordered_bits(values: np.ndarray) -> np.ndarray:
    kind = np.dtype(f"u{values.dtype.itemsize}").type
    bits = np.ascontiguousarray(values).view(kind)
    top = kind(1) << kind(values.dtype.itemsize * 8 - 1)
    return np.where(bits & top, ~bits, bits | top)


def _floats(codes: np.ndarray) -> np.ndarray:
    kind = codes.dtype.type
    top = kind(1) << kind(codes.dtype.itemsize * 8 - 1)
    bits = np.where(codes & top, codes & ~top, ~codes)
    return np.ascontiguousarray(bits).view(f"f{codes.dtype.itemsize}")
