"""Singular directions of task vectors that are there, for mergers of matrices.

A direction whose singular value is rounding (below eps * max(m, n) times the largest) is no
direction: what the decomposition returns there is arbitrary, and is left out. Published
implementations of mergers keep it; for updates of full rank nothing differs.

All functions take NumPy arrays or traced ones, and return the same.
"""

from __future__ import annotations

import jax
import numpy as np

from orthoreg_jax.arithmetic.decompositions import svd

from .types import Floats, Matrices


def product(left: Floats, right: Floats) -> Floats:
    """A matrix product in full precision."""
    with jax.default_matmul_precision("highest"):  # of traced ones
        return left @ right


def norms(values: Matrices) -> Floats:
    """Norm of each matrix, computed so that squares cannot overflow."""
    xp = values.__array_namespace__()
    largest = xp.abs(values).max(axis=(1, 2))
    scaled = values / xp.where(largest > 0, largest, 1)[:, None, None]
    return largest * xp.linalg.norm(scaled, axis=(1, 2))


def leading(
    values: Matrices, rank: int, sizes: Floats | float = 0.0
) -> tuple[Floats, Floats, Floats]:
    """The first `rank` singular triples of each matrix, concatenated; 0 where missing.

    `sizes`: what the largest singular value of each counts as where it is smaller.
    """
    xp = values.__array_namespace__()
    left, scale, right = svd(values, rank)
    there = present(scale, values.shape[1:], sizes)
    left, scale, right = left * there[:, None], scale * there, right * there[:, :, None]
    left = xp.moveaxis(left, 0, 1).reshape(values.shape[1], -1)
    return left, scale.reshape(-1), right.reshape(-1, values.shape[2])


def orthogonal(factor: Floats) -> Floats:
    """The polar factor U V^T of U S V^T, over directions above rounding."""
    left, scale, right = svd(factor[None])
    return product(left[0] * present(scale, factor.shape), right[0])


def present(scale: Floats, shape: tuple[int, ...], sizes: Floats | float = 0.0) -> Floats:
    """1 for singular values (t, s), descending, above rounding; 0 for the others."""
    xp = scale.__array_namespace__()
    rounding = np.finfo(scale.dtype).eps * max(shape)
    largest = xp.max(scale, axis=1, initial=0)
    limit = rounding * xp.maximum(largest, xp.asarray(sizes, scale.dtype))
    return (scale > limit[:, None]).astype(scale.dtype)


def mean(scale: Floats) -> Floats | np.floating:
    """Mean over singular values above rounding."""
    return scale.sum() / (scale > 0).sum().astype(scale.dtype).clip(1)
