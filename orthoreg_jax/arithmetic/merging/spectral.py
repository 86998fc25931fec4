"""Mergers that take the weight matrices' singular value decompositions apart and put them together.

All of them average the leaves that are no matrices, as published. A direction whose singular value
is rounding (below eps * max(m, n) times the largest) is no direction: what the decomposition
returns there is arbitrary, and is left out. Published implementations keep it; for updates of full
rank nothing differs.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .merger import Merger


@dataclasses.dataclass(frozen=True)
class TsvM(Merger):
    """See `tsv_m`."""

    rank: int
    reads = "matrices"

    def merge(
        self, values: Float[Array, "t m n"], cutoffs: Float[Array, " t"] | None, key: Any
    ) -> Float[Array, "m n"]:
        tasks, side = len(values), min(values.shape[1:])
        rank = min(self.rank, side) if self.rank else max(1, side // tasks)
        left, scale, right = _leading(values, rank)
        return _product(_orthogonal(left) * scale, _orthogonal(right))


@dataclasses.dataclass(frozen=True)
class IsoC(Merger):
    """See `iso_c`."""

    reads = "matrices"

    def merge(
        self, values: Float[Array, "t m n"], cutoffs: Float[Array, " t"] | None, key: Any
    ) -> Float[Array, "m n"]:
        left, scale, right = jnp.linalg.svd(jnp.sum(values, axis=0), full_matrices=False)
        there = _there(scale, values.shape[1:])
        return _mean(scale, there) * _product(left * there, right)


@dataclasses.dataclass(frozen=True)
class IsoCts(Merger):
    """See `iso_cts`."""

    common_space_fraction: float
    reads = "matrices"

    def merge(
        self, values: Float[Array, "t m n"], cutoffs: Float[Array, " t"] | None, key: Any
    ) -> Float[Array, "m n"]:
        tasks, side = len(values), min(values.shape[1:])
        specific = round((side - int(side * self.common_space_fraction)) / tasks)
        specific = min(specific, side // tasks)
        common = side - tasks * specific
        left, scale, right = (part for part in _leading(jnp.sum(values, axis=0)[None], common))
        if specific:
            rest = values - _product(_product(values, right.T), right)
            # What the common space leaves behind of a task is judged by the task's own size.
            own = _leading(rest, specific, jnp.linalg.norm(values, axis=(1, 2)))
            left = jnp.concatenate([own[0], left], axis=1)
            scale = jnp.concatenate([own[1], scale])
            right = jnp.concatenate([own[2], right])
        there = (scale > 0).astype(scale.dtype)
        return _mean(scale, there) * _product(_orthogonal(left), _orthogonal(right))


def tsv_m(rank: int = 0) -> Merger:
    """Task singular vectors, cut to their leading ones and decorrelated between tasks.

    With tau_t = U_t S_t V_t^T of each matrix cut to `rank` singular values, U = [U_1 ... U_T],
    S and V likewise: tau = polar(U) S polar(V)^T, polar(U) being the orthonormal matrix nearest to
    U. The papers take alpha = 1. Tasks whose leading spaces are orthogonal are merely added.

    The authors' code cuts to floor(min(m, n) / T), which is 0 for more tasks than a side has; here
    it is 1 at least. mergekit and others take a share of the rank: give `rank` for that.

    Args:
      rank: singular values kept of each task; 0: min(m, n) / T, rounded down.

    Raises:
      ValueError: a negative rank.

    Reference: "Task Singular Vectors: Reducing Task Interference in Model Merging", CVPR 2025
      (arXiv 2412.00081), section 4 and algorithm 1.
    """
    if rank < 0 or rank != int(rank):
        raise ValueError(f"tsv_m: rank is {rank}; give a whole number from 1, or 0 for min(m, n)/T")
    return TsvM(int(rank))


def iso_c() -> Merger:
    """Isotropic merging in the common subspace: the sum, all of its singular values made equal.

    With sum_t tau_t = U S V^T of each matrix: tau = mean(S) U V^T. The papers choose alpha on
    validation (1.3 for ViT-B/32 and 8 tasks). The mean is over the directions that are there, so
    that adapters of low rank keep their scale.

    Reference: "No Task Left Behind: Isotropic Model Merging with Common and Task-Specific
      Subspaces", ICML 2025 (arXiv 2502.04959), algorithm 1.
    """
    return IsoC()


def iso_cts(common_space_fraction: float = 0.8) -> Merger:
    """Isotropic merging in common and task-specific subspaces.

    The leading singular directions of sum_t tau_t (a share `common_space_fraction` of them) are the
    common space. Each task adds equally many leading directions of what is left of tau_t outside of
    it. All are decorrelated as in `tsv_m`, and get the mean of their singular values.

    The rest of a task is taken on the outputs' side, (tau_t - tau_t V V^T for kernels of shape
    (inputs, outputs)), which is the authors' U U^T for layers of torch; of the projection and the
    positional embedding, which they keep transposed, they take the other side.

    Args:
      common_space_fraction: from 0 to 1; 1 gives `iso_c`. As in the authors' code the common space
        takes what rounding the others to equal parts leaves.

    Raises:
      ValueError: a fraction out of its range.

    Reference: as `iso_c`, algorithm 2.
    """
    if not 0 <= common_space_fraction <= 1:
        raise ValueError(
            f"iso_cts: common_space_fraction is {common_space_fraction}; give a number from 0 to 1"
        )
    return IsoCts(float(common_space_fraction))


def _product(left: Float[Array, "*k m r"], right: Float[Array, "r n"]) -> Float[Array, "*k m n"]:
    return jnp.matmul(left, right, precision="highest")


def _leading(
    values: Float[Array, "t m n"], rank: int, sizes: Float[Array, " t"] | None = None
) -> tuple[Float[Array, "m tr"], Float[Array, " tr"], Float[Array, "tr n"]]:
    """The first singular triples of each matrix side by side; those that are not there are 0.

    `sizes` are what rounding is measured by; None: the largest singular value of each.
    """
    shape = values.shape[1:]

    def cut(pair: tuple[Any, Any]) -> tuple[Any, Any, Any]:
        value, size = pair
        left, scale, right = jnp.linalg.svd(value, full_matrices=False)
        there = _there(scale, shape, size)[:rank]
        return left[:, :rank] * there, scale[:rank] * there, right[:rank] * there[:, None]

    largest = jnp.zeros(len(values), values.dtype) if sizes is None else sizes
    # One after another: of whole decompositions, memory holds one.
    left, scale, right = jax.lax.map(cut, (values, largest))
    return (
        jnp.moveaxis(left, 0, 1).reshape(shape[0], -1),
        scale.reshape(-1),
        right.reshape(-1, shape[1]),
    )


def _orthogonal(factor: Float[Array, "m n"]) -> Float[Array, "m n"]:
    """The polar factor: U V^T of U S V^T, over the directions that are there."""
    left, scale, right = jnp.linalg.svd(factor, full_matrices=False)
    return _product(left * _there(scale, factor.shape), right)


def _there(
    scale: Float[Array, " s"], shape: tuple[int, ...], size: Any = 0.0
) -> Float[Array, " s"]:
    """1 for singular values that are more than rounding, 0 for the others."""
    rounding = jnp.finfo(scale.dtype).eps * max(shape)
    limit = rounding * jnp.maximum(scale[0], jnp.asarray(size, scale.dtype))
    return (scale > limit).astype(scale.dtype)


def _mean(scale: Float[Array, " s"], there: Float[Array, " s"]) -> Float[Array, ""]:
    return jnp.sum(scale * there) / jnp.maximum(jnp.sum(there), 1)
