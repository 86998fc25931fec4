"""Singular values and vectors of stacks of matrices, one matrix at a time.

Concrete arrays go to NumPy's LAPACK, outside XLA; XLA decomposes traced ones. XLA never gets a
batch: jaxlib 0.10 spreads a batch over the threads of the CPU client that the computation itself
runs on, and deadlocks when all of them wait (`experiments/upstream/batched_svd_hang.py`). LAPACK
never gets a matrix with NaN or infinite entries, on which it may not return: for such a matrix
every result is NaN.
"""

from __future__ import annotations

import concurrent.futures
import functools
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .types import PyTree

MatrixStack = Float[Array | np.ndarray, "k m n"]
Square = Float[Array | np.ndarray, "k m m"]


class Svd(NamedTuple):
    """A = left diag(values) right for each matrix; values are in descending order.

    Attributes:
      left: orthonormal columns.
      values: none negative.
      right: orthonormal rows.
    """

    left: Float[Array | np.ndarray, "k m s"]
    values: Float[Array | np.ndarray, "k s"]
    right: Float[Array | np.ndarray, "k s n"]


def svd(matrices: MatrixStack, rank: int | None = None) -> Svd:
    """The thin singular value decomposition of each matrix.

    For float32 it comes from the eigenvectors of A A^T in float64, in a tenth of the time of
    LAPACK's SVD. Singular values above 1e-7 times the largest, and their vectors, are as exact as
    LAPACK's in float64, rounded. Smaller ones are rounding error, and their vectors need not be
    orthogonal. For float64 it is LAPACK's.

    Args:
      matrices: NumPy arrays, or traced.
      rank: number of leading singular values to return; None returns all.

    Returns:
      NumPy arrays, or traced arrays if the matrices are traced.
    """
    if isinstance(matrices, jax.core.Tracer):
        return Svd(*jax.lax.map(lambda matrix: _cut(_traced_svd(matrix), rank), matrices))
    size = min(matrices.shape[1:])
    size = size if rank is None else min(rank, size)
    count, rows, columns = matrices.shape
    found = Svd(
        np.empty((count, rows, size), matrices.dtype),
        np.empty((count, size), matrices.dtype),
        np.empty((count, size, columns), matrices.dtype),
    )
    for number, parts in enumerate(_each(lambda matrix: _svd(matrix, size), matrices)):
        for whole, part in zip(found, parts, strict=True):
            whole[number] = part
    return found


def svdvals(matrices: MatrixStack) -> Float[Array | np.ndarray, "k s"]:
    """Singular values of each matrix in descending order, as in `svd`; differentiable if traced.

    Args:
      matrices: NumPy arrays, or traced.
    """
    if isinstance(matrices, jax.core.Tracer):
        return jax.lax.map(_traced_svdvals, matrices)
    values = np.empty((len(matrices), min(matrices.shape[1:])), matrices.dtype)
    for number, found in enumerate(_each(_svdvals, matrices)):
        values[number] = found
    return values


def pseudo_inverse(matrices: Square) -> Square:
    """The pseudo-inverse of each symmetric matrix.

    Eigenvalues of magnitude up to 10 m eps times the largest are rounding error and count as 0;
    eps is that of the matrices' type.

    Args:
      matrices: NumPy arrays, or traced.
    """
    if isinstance(matrices, jax.core.Tracer):
        return jax.lax.map(_traced_pseudo_inverse, matrices)
    rounding = 10 * matrices.shape[-1] * float(np.finfo(matrices.dtype).eps)
    found = [*_each(lambda matrix: _pseudo_inverse(matrix, rounding), matrices)]
    return np.stack(found) if found else matrices


def _svd(matrix: np.ndarray, size: int) -> tuple[Any, Any, Any]:
    rows, columns = matrix.shape
    if rows > columns:
        left, values, right = _svd(matrix.T, size)
        return right.T, values, left.T
    if not np.isfinite(matrix).all():
        return np.full((rows, size), np.nan), np.nan, np.full((size, columns), np.nan)
    if matrix.dtype == np.float64:
        return _cut(np.linalg.svd(matrix, full_matrices=False), size)
    wide = matrix.astype(np.float64)
    # float64 holds the squares of float32 numbers, and of numbers 1e-7 times as large.
    # Copied: a view would hold all vectors while other matrices are decomposed.
    left = np.linalg.eigh(wide @ wide.T).eigenvectors[:, ::-1][:, :size].copy()
    right = left.T @ wide
    values = np.linalg.norm(right, axis=1)
    return left, values, right / np.where(values > 0, values, 1.0)[:, None]


def _svdvals(matrix: np.ndarray) -> Any:
    if not np.isfinite(matrix).all():
        return np.nan
    if matrix.dtype == np.float64:
        return np.linalg.svd(matrix, compute_uv=False)
    wide = matrix.astype(np.float64)
    gram = wide @ wide.T if wide.shape[0] <= wide.shape[1] else wide.T @ wide
    return np.sqrt(np.maximum(np.linalg.eigvalsh(gram)[::-1], 0))


def _pseudo_inverse(matrix: np.ndarray, rounding: float) -> np.ndarray:
    if not np.isfinite(matrix).all():
        return np.full_like(matrix, np.nan)
    values, vectors = np.linalg.eigh(matrix.astype(np.float64))
    there = np.abs(values) > rounding * np.abs(values).max(initial=0)
    inverse = np.where(there, 1 / np.where(there, values, 1), 0)
    return ((vectors * inverse) @ vectors.T).astype(matrix.dtype)


def _cut(parts: Any, rank: int | None) -> tuple[Any, Any, Any]:
    left, values, right = parts
    return left[:, :rank], values[:rank], right[:rank]


def _one_by_one(decompose: Callable[[Any], Any], name: str) -> Callable[..., Any]:
    """Decomposes a traced matrix: never as a batch, even under vmap; NaN if it is not finite."""

    @jax.custom_jvp
    @jax.custom_batching.sequential_vmap
    @functools.wraps(decompose)
    def guarded(matrix: Float[Array, "m n"]) -> PyTree:
        finite = jnp.all(jnp.isfinite(matrix))
        parts = decompose(jnp.where(finite, matrix, 0))
        return jax.tree.map(lambda part: jnp.where(finite, part, jnp.nan), parts)

    @guarded.defjvp
    def refuse(primals: Any, tangents: Any) -> Any:
        raise NotImplementedError(
            f"{name} cannot be differentiated here (singular values can); to treat its input as "
            "a constant, use jax.lax.stop_gradient"
        )

    return guarded


_traced_svd = _one_by_one(
    lambda matrix: tuple(jnp.linalg.svd(matrix, full_matrices=False)),
    "the singular value decomposition",
)
_traced_pseudo_inverse = _one_by_one(
    lambda matrix: jnp.linalg.pinv(matrix, hermitian=True), "the pseudo-inverse"
)


@jax.custom_jvp
def _traced_svdvals(matrix: Float[Array, "m n"]) -> Float[Array, " s"]:
    return _traced_svd(matrix)[1]


@_traced_svdvals.defjvp
def _traced_svdvals_jvp(primals: Any, tangents: Any) -> Any:
    """The derivative of s_i is u_i^T dA v_i."""
    left, values, right = _traced_svd(*primals)
    return values, jnp.einsum("ms,mn,sn->s", left, *tangents, right, precision="highest")


_LOCK = threading.Lock()  # two concurrent limits would restore each other's value


def _each(
    decompose: Callable[[Any], Any], matrices: Float[Array | np.ndarray, "t m n"]
) -> Iterator[Any]:
    """Applies a function to several matrices at a time, one thread each.

    On matrices of these sizes LAPACK's own threads mostly wait for one another.
    """
    with _LOCK, _controller().limit(limits=1, user_api="blas"):
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            yield from pool.map(decompose, np.asarray(matrices))


@functools.cache
def _controller() -> Any:
    import threadpoolctl

    return threadpoolctl.ThreadpoolController()
