"""The type for sums over weights, independent of the type of the weights."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike


def wide_type(*dtypes: DTypeLike) -> np.dtype:
    """float64 if one of the types is, else float32.

    Explicit, so that callers convert and never promote: they work under strict promotion too.
    """
    double = any(jnp.dtype(dtype) == jnp.float64 for dtype in dtypes)
    return jnp.dtype(jnp.float64 if double else jnp.float32)
