"""The type for sums over weights, independent of the type of the weights."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike


def wide_type(*dtypes: DTypeLike) -> np.dtype:
    """float64 if one of the types is, else float32.

    Callers convert to it explicitly, so they also work under strict type promotion.
    """
    double = any(jnp.dtype(dtype) == jnp.float64 for dtype in dtypes)
    return jnp.dtype(jnp.float64 if double else jnp.float32)
