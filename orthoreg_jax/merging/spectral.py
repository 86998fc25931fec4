"""Mergers that recombine the singular value decompositions of weight matrices.

All of them average the leaves that are not matrices, as published. A direction whose singular value
is rounding (below eps * max(m, n) times the largest) is no direction: what the decomposition
returns there is arbitrary, and is left out. Published implementations keep it; for updates of full
rank nothing differs.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float

from orthoreg_jax.arithmetic.decompositions import svd

from .merger import Merger, shown_as_called
from .parameters import check_count, check_within

Values = Float[Array | np.ndarray, "t m n"]
Cutoffs = Float[Array, " t"] | None


@shown_as_called
def tsv_m(rank: int = 0) -> Merger:
    """TSV-M: keeps each task's leading singular vectors and decorrelates them between tasks.

    With tau_t = U_t S_t V_t^T of each matrix cut to `rank` singular values, U = [U_1 ... U_T],
    S and V likewise: tau = polar(U) S polar(V)^T, polar(U) being the orthonormal matrix nearest to
    U. The papers take alpha = 1. Tasks whose leading spaces are orthogonal are merely added.

    The authors' code cuts to floor(min(m, n) / T), which is 0 for more tasks than a side has; here
    it is 1 at least. Where their code, or another's, lets one choose, it takes the share of
    min(m, n) that is kept, `sv_reduction`, of which 1 is all; rank 1 is one singular value.

    Args:
      rank: singular values kept of each task, an int; 0: min(m, n) / T, rounded down. A matrix
        that has fewer keeps them all.

    Raises:
      ValueError: no int, or a negative one.

    Reference: "Task Singular Vectors: Reducing Task Interference in Model Merging", CVPR 2025
      (arXiv 2412.00081), section 4 and algorithm 1.

    Examples:
      >>> vectors = [{"w": jnp.diag(jnp.array([2.0, 0.1]))}, {"w": jnp.diag(jnp.array([0.1, 3.0]))}]
      >>> merged = oj.merge_task_vectors(vectors, oj.tsv_m())["w"]
      >>> np.asarray(merged, float).round(3).tolist()  # of each its largest singular value
      [[2.0, 0.0], [0.0, 3.0]]
    """
    allowed = (
        "the number of singular values kept of each task, an int from 1 (for the share s of a "
        "matrix's, int(s * min(m, n))), or 0 for min(m, n)/T"
    )
    return Merger(_tsv_m, (check_count("tsv_m", "rank", rank, allowed),), reads="matrices")


def _tsv_m(values: Values, cutoffs: Cutoffs, key: Any, rank: int) -> Any:
    tasks, side = len(values), min(values.shape[1:])
    rank = min(rank, side) if rank else max(1, side // tasks)
    left, scale, right = _leading(values, rank)
    return _product(_orthogonal(left) * scale, _orthogonal(right))


@shown_as_called
def iso_c() -> Merger:
    """Isotropic merging in the common subspace: the sum with all singular values made equal.

    With sum_t tau_t = U S V^T of each matrix: tau = mean(S) U V^T. The papers choose alpha on
    validation (1.3 for ViT-B/32 and 8 tasks). The mean is over the directions that are there, so
    that adapters of low rank keep their scale.

    Reference: "No Task Left Behind: Isotropic Model Merging with Common and Task-Specific
      Subspaces", ICML 2025 (arXiv 2502.04959), algorithm 1.

    Examples:
      >>> vectors = [{"w": jnp.diag(jnp.array([2.0, 0.0]))}, {"w": jnp.diag(jnp.array([0.0, 4.0]))}]
      >>> np.asarray(oj.merge_task_vectors(vectors, oj.iso_c())["w"], float).round(3).tolist()
      [[3.0, 0.0], [0.0, 3.0]]
    """
    return Merger(_iso_c, reads="matrices")


def _iso_c(values: Values, cutoffs: Cutoffs, key: Any) -> Any:
    # Directions that are not there have value 0, and vectors of zeros.
    left, scale, right = _leading(values.sum(axis=0)[None], min(values.shape[1:]))
    return _mean(scale) * _product(left, right)


@shown_as_called
def iso_cts(common_space_fraction: float = 0.8) -> Merger:
    """Isotropic merging in common and task-specific subspaces.

    The leading singular directions of sum_t tau_t (a share `common_space_fraction` of them) are the
    common space. Each task adds equally many leading directions of what is left of tau_t outside of
    it. All are decorrelated as in `tsv_m`, and get the mean of their singular values.

    The rest of a task is taken on the outputs' side, (tau_t - tau_t V V^T for kernels of shape
    (inputs, outputs)), which is the authors' U U^T for layers of torch; of the projection and the
    positional embedding, which they keep transposed, they take the other side.

    Args:
      common_space_fraction: a share from 0 to 1, as in the authors' code and FusionBench; 1 gives
        `iso_c`. The common space takes what rounding the others to equal parts leaves, as there.

    Raises:
      ValueError: a fraction out of its range.

    Reference: as `iso_c`, algorithm 2.

    Examples:
      >>> vectors = [{"w": jnp.diag(jnp.array([2.0, 0.0]))}, {"w": jnp.diag(jnp.array([0.0, 4.0]))}]
      >>> merged = oj.merge_task_vectors(vectors, oj.iso_cts(1.0))["w"]
      >>> np.asarray(merged, float).round(3).tolist()  # as iso_c
      [[3.0, 0.0], [0.0, 3.0]]
    """
    name, allowed = "common_space_fraction", "a share from 0 to 1: 0.8 for 80 %"
    share = check_within("iso_cts", name, common_space_fraction, (0, 1), allowed)
    return Merger(_iso_cts, (share,), reads="matrices")


def _iso_cts(values: Values, cutoffs: Cutoffs, key: Any, common_space_fraction: float) -> Any:
    tasks, side = len(values), min(values.shape[1:])
    specific = round((side - int(side * common_space_fraction)) / tasks)
    specific = min(specific, side // tasks)
    common = side - tasks * specific
    left, scale, right = _leading(values.sum(axis=0)[None], common)
    if specific:
        xp = values.__array_namespace__()
        rest = values - _product(_product(values, right.T), right)
        # What the common space leaves behind of a task is judged by the task's own size.
        own = _leading(rest, specific, _norms(values))
        left = xp.concatenate([own[0], left], axis=1)
        scale = xp.concatenate([own[1], scale])
        right = xp.concatenate([own[2], right])
    return _mean(scale) * _product(_orthogonal(left), _orthogonal(right))


def _product(left: Any, right: Any) -> Any:
    with jax.default_matmul_precision("highest"):  # of traced ones
        return left @ right


def _norms(values: Any) -> Any:
    """Norm of each matrix, computed so that squares cannot overflow."""
    xp = values.__array_namespace__()
    largest = abs(values).max(axis=(1, 2))
    scaled = values / xp.where(largest > 0, largest, 1)[:, None, None]
    return largest * xp.linalg.norm(scaled, axis=(1, 2))


def _leading(values: Any, rank: int, sizes: Any = 0.0) -> tuple[Any, Any, Any]:
    """The first `rank` singular triples of each matrix, concatenated; 0 where missing.

    `sizes`: what the largest singular value of each counts as where it is smaller.
    """
    xp = values.__array_namespace__()
    left, scale, right = svd(values, rank)
    present = _present(scale, values.shape[1:], sizes)
    left, scale, right = left * present[:, None], scale * present, right * present[:, :, None]
    left = xp.moveaxis(left, 0, 1).reshape(values.shape[1], -1)
    return left, scale.reshape(-1), right.reshape(-1, values.shape[2])


def _orthogonal(factor: Any) -> Any:
    """The polar factor U V^T of U S V^T, over directions above rounding."""
    left, scale, right = svd(factor[None])
    return _product(left[0] * _present(scale, factor.shape), right[0])


def _present(scale: Any, shape: tuple[int, ...], sizes: Any = 0.0) -> Any:
    """1 for singular values (t, s), descending, above rounding; 0 for the others."""
    xp = scale.__array_namespace__()
    rounding = np.finfo(scale.dtype).eps * max(shape)
    largest = xp.max(scale, axis=1, initial=0)
    limit = rounding * xp.maximum(largest, xp.asarray(sizes, scale.dtype))
    return (scale > limit[:, None]).astype(scale.dtype)


def _mean(scale: Any) -> Any:
    """Mean over singular values above rounding."""
    return scale.sum() / (scale > 0).sum().astype(scale.dtype).clip(1)
