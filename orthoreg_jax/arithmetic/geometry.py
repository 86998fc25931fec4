"""The shape of weight updates: singular values, Gram deviation, angles between columns."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .matrices import Rules, select_matrices


def singular_values(delta: Any, matrices: Rules | None = None) -> dict[str, Float[Array, "k s"]]:
    """Singular values of every weight update, falling, by leaf path.

    Args:
      delta: a task vector, any pytree.
      matrices: how leaves are read, see `orthogonality_penalty`.

    Returns:
      For a leaf of k matrices with smaller side s, an array (k, s).
    """
    return {
        path: jnp.linalg.svd(matrix.astype(jnp.float32), compute_uv=False)
        for path, matrix in select_matrices(delta, matrices).items()
    }


def column_cosines(delta: Any, matrices: Rules | None = None) -> dict[str, Float[Array, " k"]]:
    """Mean |cosine| between two different columns of each weight update, by leaf path.

    0 means that all columns are orthogonal; columns that are zero count as orthogonal. Matrices
    wider than tall are transposed, as more columns than rows cannot all be orthogonal.
    """

    def mean_cosine(matrix: Float[Array, "m n"]) -> Float[Array, ""]:
        tall = matrix if matrix.shape[0] >= matrix.shape[1] else matrix.T
        norms = jnp.linalg.norm(tall, axis=0)
        unit = tall / jnp.where(norms > 0, norms, 1.0)
        cosines = jnp.abs(jnp.matmul(unit.T, unit, precision="highest"))
        count = cosines.shape[0]
        off_diagonal = jnp.sum(cosines) - jnp.trace(cosines)
        return off_diagonal / max(1, count * (count - 1))

    return {
        path: jax.vmap(mean_cosine)(matrix.astype(jnp.float32))
        for path, matrix in select_matrices(delta, matrices).items()
    }
