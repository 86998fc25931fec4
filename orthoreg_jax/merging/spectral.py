"""Mergers that recombine the singular value decompositions of weight matrices.

All of them average the leaves that are not matrices, as published. Directions that are rounding
error are left out, see `directions`.
"""

from __future__ import annotations

from typing import Any

from .directions import leading, mean, norms, orthogonal, product
from .merger import Merger, shown_as_called
from .parameters import check_count, check_within
from .types import Cutoffs, Key, Matrices


@shown_as_called
def tsv_m(rank: int = 0) -> Merger:
    """TSV-M: keeps each task's leading singular vectors and decorrelates them between tasks.

    With tau_t = U_t S_t V_t^T of each matrix cut to `rank` singular values, U = [U_1 ... U_T],
    S and V likewise: tau = polar(U) S polar(V)^T, where polar(U) is the orthonormal matrix nearest
    to U. The papers take alpha = 1. If the tasks' leading spaces are orthogonal, this is the sum.
    Leaves that are not matrices are averaged.

    The authors' code cuts to floor(min(m, n) / T), which is 0 if there are more tasks than
    min(m, n); here it is at least 1. Where published code has an option, it is the fraction of
    min(m, n) kept, `sv_reduction`, for which 1 means all; rank 1 here is one singular value.

    Args:
      rank: number of singular values kept for each task, an int; 0 means min(m, n) / T, rounded
        down. A matrix with fewer keeps all.

    Raises:
      ValueError: the rank is not an int, or is negative.

    Reference: "Task Singular Vectors: Reducing Task Interference in Model Merging", CVPR 2025
      (arXiv 2412.00081), section 4 and algorithm 1.

    Examples:
      >>> vectors = [{"w": jnp.diag(jnp.array([2.0, 0.1]))}, {"w": jnp.diag(jnp.array([0.1, 3.0]))}]
      >>> merged = oj.merge_task_vectors(vectors, oj.tsv_m())["w"]
      >>> np.asarray(merged, float).round(3).tolist()  # of each its largest singular value
      [[2.0, 0.0], [0.0, 3.0]]
    """
    allowed = (
        "the number of singular values kept for each task, an int from 1 (for a fraction s of "
        "them, int(s * min(m, n))), or 0 for min(m, n)/T"
    )
    return Merger(_tsv_m, (check_count("tsv_m", "rank", rank, allowed),), reads="matrices")


def _tsv_m(values: Matrices, cutoffs: Cutoffs, key: Key, rank: int) -> Any:
    tasks, side = len(values), min(values.shape[1:])
    rank = min(rank, side) if rank else max(1, side // tasks)
    left, scale, right = leading(values, rank)
    return product(orthogonal(left) * scale, orthogonal(right))


@shown_as_called
def iso_c() -> Merger:
    """Isotropic merging in the common subspace: the sum with all singular values made equal.

    With sum_t tau_t = U S V^T of each matrix: tau = mean(S) U V^T. The papers choose alpha on
    validation data (1.3 for ViT-B/32 and 8 tasks). The mean is over singular values above rounding
    error, so adapters of low rank keep their scale. Leaves that are not matrices are averaged.

    Reference: "No Task Left Behind: Isotropic Model Merging with Common and Task-Specific
      Subspaces", ICML 2025 (arXiv 2502.04959), algorithm 1.

    Examples:
      >>> vectors = [{"w": jnp.diag(jnp.array([2.0, 0.0]))}, {"w": jnp.diag(jnp.array([0.0, 4.0]))}]
      >>> np.asarray(oj.merge_task_vectors(vectors, oj.iso_c())["w"], float).round(3).tolist()
      [[3.0, 0.0], [0.0, 3.0]]
    """
    return Merger(_iso_c, reads="matrices")


def _iso_c(values: Matrices, cutoffs: Cutoffs, key: Key) -> Any:
    # Directions below rounding error have value 0, and vectors of zeros.
    left, scale, right = leading(values.sum(axis=0)[None], min(values.shape[1:]))
    return mean(scale) * product(left, right)


@shown_as_called
def iso_cts(common_space_fraction: float = 0.8) -> Merger:
    """Isotropic merging in common and task-specific subspaces.

    The leading singular directions of sum_t tau_t (a fraction `common_space_fraction` of them) are
    the common space. Each task adds the same number of leading directions of the part of tau_t
    outside it. All are decorrelated as in `tsv_m`, and get the mean of their singular values.

    A task's part outside the common space is taken on the outputs' side (tau_t - tau_t V V^T for
    kernels of shape (inputs, outputs)), which is the authors' U U^T for PyTorch layers; for the
    projection and the positional embedding, which they keep transposed, they take the other side.

    Args:
      common_space_fraction: a fraction from 0 to 1, as in the authors' code and FusionBench; 1
        gives `iso_c`. As in theirs, the common space also takes the directions that cannot be
        divided equally among the tasks.

    Raises:
      ValueError: the fraction is out of its range.

    Reference: as `iso_c`, algorithm 2.

    Examples:
      >>> vectors = [{"w": jnp.diag(jnp.array([2.0, 0.0]))}, {"w": jnp.diag(jnp.array([0.0, 4.0]))}]
      >>> merged = oj.merge_task_vectors(vectors, oj.iso_cts(1.0))["w"]
      >>> np.asarray(merged, float).round(3).tolist()  # as iso_c
      [[3.0, 0.0], [0.0, 3.0]]
    """
    name, allowed = "common_space_fraction", "a fraction from 0 to 1: 0.8 for 80 %"
    share = check_within("iso_cts", name, common_space_fraction, (0, 1), allowed)
    return Merger(_iso_cts, (share,), reads="matrices")


def _iso_cts(values: Matrices, cutoffs: Cutoffs, key: Key, common_space_fraction: float) -> Any:
    tasks, side = len(values), min(values.shape[1:])
    specific = round((side - int(side * common_space_fraction)) / tasks)
    specific = min(specific, side // tasks)
    common = side - tasks * specific
    left, scale, right = leading(values.sum(axis=0)[None], common)
    if specific:
        xp = values.__array_namespace__()
        rest = values - product(product(values, right.T), right)
        # Rounding error in a task's part outside the common space is relative to the whole task.
        own = leading(rest, specific, norms(values))
        left = xp.concatenate([own[0], left], axis=1)
        scale = xp.concatenate([own[1], scale])
        right = xp.concatenate([own[2], right])
    return mean(scale) * product(orthogonal(left), orthogonal(right))
