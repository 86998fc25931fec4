"""The shape of weight updates: singular values, Gram deviation, angles between columns."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .decompositions import svdvals
from .matrices import Rules, select_matrices
from .types import PyTree, Update


def singular_values(delta: Update, matrices: Rules | None = None) -> dict[str, Float[Array, "k s"]]:
    """Singular values of every weight update in descending order, by leaf path.

    Args:
      delta: a task vector, any pytree.
      matrices: how leaves are read, see `orthogonality_penalty`.

    Returns:
      For a leaf of k matrices with smaller side s, an array (k, s).

    Examples:
      >>> oj.singular_values({"bias": jnp.ones(2), "kernel": jnp.diag(jnp.array([1.0, 2.0]))})
      {'kernel': Array([[2., 1.]], dtype=float32)}
    """
    return {
        path: _svdvals(matrix.astype(jnp.float32))
        for path, matrix in select_matrices(delta, matrices).items()
    }


def _svdvals(matrices: Float[Array | np.ndarray, "k m n"]) -> Float[Array, "k s"]:
    traced = isinstance(matrices, jax.core.Tracer)
    return jnp.asarray(svdvals(matrices if traced else np.asarray(matrices)))


def stable_ranks(delta: Update, matrices: Rules | None = None) -> dict[str, Float[Array, " k"]]:
    """||dW||_F^2 / ||dW||_2^2 of every weight update, by leaf path; 0 for an update of zeros.

    Ranges from 1 (a single direction) to the smaller side (all directions equal).

    Args:
      delta: a task vector, any pytree.
      matrices: how leaves are read, see `orthogonality_penalty`.

    Examples:
      >>> oj.stable_ranks({"one": jnp.ones((4, 3)), "all": jnp.eye(3)})
      {'all': Array([3.], dtype=float32), 'one': Array([1.], dtype=float32)}
    """
    return {path: stable_rank(values) for path, values in singular_values(delta, matrices).items()}


def stable_rank(values: Float[Array, "k s"]) -> Float[Array, " k"]:
    """The stable rank of matrices, from their singular values in descending order."""
    largest = jnp.max(values, axis=1, initial=0) ** 2
    zero = largest == 0  # not `~(largest > 0)`, which is also true for NaN
    return jnp.where(zero, 0.0, jnp.sum(values**2, axis=1) / jnp.where(zero, 1.0, largest))


def gram_deviations(delta: Update, matrices: Rules | None = None) -> dict[str, Float[Array, " k"]]:
    """||G - I||_F of every weight update, G the Gram matrix of its smaller side, by leaf path.

    These are the terms of the penalty's released form, computed from the singular values.

    Args:
      delta: a task vector, any pytree.
      matrices: how leaves are read, see `orthogonality_penalty`.

    Examples:
      >>> oj.gram_deviations({"w": 2 * jnp.eye(4)})  # G - I = 3 I
      {'w': Array([6.], dtype=float32)}
    """
    return {
        path: gram_deviation(values) for path, values in singular_values(delta, matrices).items()
    }


def gram_deviation(values: Float[Array, "k s"]) -> Float[Array, " k"]:
    """||G - I||_F of matrices, from their singular values."""
    return jnp.linalg.norm(values**2 - 1, axis=1)


def column_angles(
    tree: PyTree, matrices: Rules | None = None, bins: int = 90
) -> dict[str, Float[Array, "k bins"]]:
    """Histograms of the angles between all pairs of columns of each matrix, by leaf path.

    Args:
      tree: a task vector, or weights.
      matrices: how leaves are read, see `orthogonality_penalty`.
      bins: number of bins of equal width, from 0 to 180 degrees.

    Returns:
      Fractions that sum to 1 for each matrix with two or more columns; zero columns count as
      orthogonal.

    Examples:
      >>> oj.column_angles({"w": jnp.eye(3)}, bins=3)["w"].tolist()  # all are right angles
      [[0.0, 1.0, 0.0]]
    """
    return {
        path: _angle_histograms(matrix.astype(jnp.float32), bins)
        for path, matrix in select_matrices(tree, matrices).items()
    }


@functools.partial(jax.jit, static_argnums=1)
def _angle_histograms(matrices: Float[Array, "k m n"], bins: int) -> Float[Array, "k bins"]:
    # The bins' lower edges, as cosines. Counting the pairs beyond each edge takes one pass per
    # edge, and 1/8 of the time of adding pairs to 90 bins one by one.
    edges = jnp.asarray(np.cos(np.linspace(0.0, np.pi, bins + 1)[:-1]), jnp.float32)

    def histogram(matrix: Float[Array, "m n"]) -> Float[Array, " bins"]:
        cosines = jnp.clip(_cosines(matrix), -1.0, 1.0)
        count = cosines.shape[0]
        pairs = jnp.where(jnp.eye(count, dtype=bool), 2.0, cosines)  # keeps the diagonal out
        beyond = jax.lax.map(lambda edge: jnp.sum(pairs <= edge), edges)
        return (beyond - jnp.append(beyond[1:], 0)) / max(1, count * (count - 1))

    return jax.lax.map(histogram, matrices)


def _cosines(matrix: Float[Array, "m n"]) -> Float[Array, "n n"]:
    norms = jnp.linalg.norm(matrix, axis=0)
    unit = matrix / jnp.where(norms > 0, norms, 1.0)
    return jnp.matmul(unit.T, unit, precision="highest")


def column_cosines(delta: Update, matrices: Rules | None = None) -> dict[str, Float[Array, " k"]]:
    """Mean |cosine| between different columns of each weight update, by leaf path.

    0 means that all columns are orthogonal; zero columns count as orthogonal. Matrices that are
    wider than tall are transposed first, because their columns cannot all be orthogonal.

    Args:
      delta: a task vector, any pytree.
      matrices: how leaves are read, see `orthogonality_penalty`.

    Examples:
      >>> oj.column_cosines({"w": jnp.eye(3)})
      {'w': Array([0.], dtype=float32)}
    """

    def mean_cosine(matrix: Float[Array, "m n"]) -> Float[Array, ""]:
        tall = matrix if matrix.shape[0] >= matrix.shape[1] else matrix.T
        cosines = jnp.abs(_cosines(tall))
        count = cosines.shape[0]
        off_diagonal = jnp.sum(cosines) - jnp.trace(cosines)
        return off_diagonal / max(1, count * (count - 1))

    return {
        path: jax.vmap(mean_cosine)(matrix.astype(jnp.float32))
        for path, matrix in select_matrices(delta, matrices).items()
    }
