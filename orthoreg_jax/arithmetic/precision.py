"""The type for sums over weights, independent of the type of the weights, and their unit."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float


def wide_type(*dtypes: DTypeLike) -> np.dtype:
    """float64 if one of the types is, else float32.

    Callers convert to it explicitly, so they also work under strict type promotion.
    """
    double = any(jnp.dtype(dtype) == jnp.float64 for dtype in dtypes)
    return jnp.dtype(jnp.float64 if double else jnp.float32)


def power_of_two(largest: Float[Array, "*k"]) -> Float[Array, "*k"]:
    """A unit for numbers whose squares would overflow long before they do.

    The power of 2 at or below `largest`, the largest magnitude; 1 for magnitudes seen in training
    (up to 2^40), so that rounding there is the same as without; NaN where it is not finite.
    """
    largest = jax.lax.stop_gradient(largest)
    _, exponent = jnp.frexp(largest)
    power = jnp.ldexp(jnp.ones_like(largest), exponent - 1)
    unit = jnp.where(largest > 2.0**40, power, 1.0)
    return jnp.where(jnp.isfinite(largest), unit, jnp.nan)
