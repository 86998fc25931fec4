"""Merging in the coordinates of a basis that all task vectors share, matrix by matrix.

| space | coordinates of tau_t | basis |
|---|---|---|
| KnOTS | tau_t V^T | V: the outputs that any task changes |
| core space | U^T tau_t V^T | U and V: the inputs and outputs that any task changes |
| DC-Merge's cover | U^T tau_t V^T | U and V: leading directions of each task, decorrelated |

The first two lose nothing, so sums and means stay the same. They change mergers that look at single
entries (TIES, DARE), and how many singular values a fraction of all keeps. Both were published for
LoRA, whose updates have few directions.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from orthoreg_jax.arithmetic.decompositions import svd

from .directions import leading, orthogonal, present, product
from .elementwise import elementwise
from .merger import Merger, shown_as_called
from .parameters import check_count, check_within
from .sparsify import largest
from .types import Cutoffs, Floats, Key, Matrices


def knots(merger: Merger) -> Merger:
    """KnOTS: merges what each task does in the outputs that any of them changes.

    With [tau_1; ...; tau_T] = U S V for kernels of shape (inputs, outputs), tau_t = C_t V: the C_t
    are merged, and tau = merge(C_1, ..., C_T) V. Stacked and decomposed are the outputs, as in the
    authors' code, which joins layers of torch along their inputs; C_t is their S V_t. Leaves that
    are not matrices are averaged.

    With `ties(k, over="tensor")` it is KnOTS-TIES but for the trim: the authors trim C_t of all
    layers at once. They keep directions above 1e-5, here above rounding. The core space authors'
    own KnOTS merges V_t and multiplies by S afterwards.

    Args:
      merger: of the coordinates: `ties(over="tensor")`, `dare()`, `tsv_m()`, ...

    Raises:
      ValueError: a merger that looks at whole task vectors; when vectors are merged, in `jax.jit`.

    Reference: "Model merging with SVD to tie the Knots", ICLR 2025 (arXiv 2410.19735).

    Examples:
      >>> oj.knots(oj.ties(over="tensor"))
      knots(ties(k=20.0, over='tensor', elect='sum', combine='mean'))
    """
    return _inside("knots", _knots, merger)


def core_space(merger: Merger) -> Merger:
    """Core space: merges in the inputs and outputs that any task changes, and only there.

    With U the left singular vectors of [tau_1 ... tau_T] and V the right ones of
    [tau_1; ...; tau_T]: tau = U merge(U^T tau_1 V^T, ..., U^T tau_T V^T) V. Of T adapters of rank r
    the merged matrices have T r rows and columns. Leaves that are not matrices are averaged.

    The authors take U and V from LoRA's factors, side by side, by an SVD; merge-and-rebase by QR.
    The spaces are the same, the axes within them are not. That makes no difference to `tsv_m` and
    `iso_c`, and one to mergers of single entries.

    Args:
      merger: of the coordinates: `tsv_m()`, `iso_c()`, `ties(over="tensor")`, ...

    Raises:
      ValueError: see `knots`.

    Reference: "Accurate and Efficient Low-Rank Model Merging in Core Space", NeurIPS 2025
      (arXiv 2509.17786).

    Examples:
      >>> oj.core_space(oj.tsv_m())
      core_space(tsv_m(rank=0))
    """
    return _inside("core_space", _core, merger)


@shown_as_called
def dc_merge(rank: int = 0, rho: float = 0.0, fraction: float = 0.001) -> Merger:
    """DC-Merge: evens out singular values, and merges within the decorrelated leading directions.

    Each tau_t is cut to `rank` singular triples U_t S_t V_t, and S_t is smoothed (see `rho`). With
    U = polar([U_1 ... U_T]) and V likewise, M_t = U^T U_t S_t V_t V^T. Each M_t keeps its
    entries of largest magnitude, the sign of their sum is elected, and the entries of that sign are
    averaged, as `ties` does. Of the result only the blocks of each task's own directions stay:
    tau = U (mask * M) V. Leaves that are not matrices are averaged.

    Defaults are those of the authors' code for full fine-tuning. For LoRA it takes the adapter's
    rank, and rho 5 or 1. merge-and-rebase adds the M_t up where nothing else is said.

    Args:
      rank: singular values kept of each task, an int; at most min(m, n) / T rounded down, which 0
        stands for.
      rho: 0: singular values as they are; 1: all equal; above 1: evenly spaced, the largest at most
        rho times the smallest. Their sum stays.
      fraction: of each M_t's entries to keep, at least one; above 0 and up to 1.

    Raises:
      ValueError: a parameter out of its range.

    Reference: "DC-Merge: Improving Model Merging with Directional Consistency", CVPR 2026
      (arXiv 2603.06242).

    Examples:
      >>> oj.dc_merge(rank=16, rho=5.0)
      dc_merge(rank=16, rho=5.0, fraction=0.001)
    """
    allowed = "the number of singular values kept of each task, an int, or 0 for min(m, n)/T"
    rank = check_count("dc_merge", "rank", rank, allowed)
    allowed = "0 (as they are), 1 (all equal), or a ratio of the largest to the smallest above 1"
    rho = check_within("dc_merge", "rho", rho, (0, math.inf), allowed, excluded=(math.inf,))
    if 0 < rho < 1:
        raise ValueError(f"dc_merge: rho is {rho}; give {allowed}")
    allowed = "the fraction of entries to keep, above 0 and up to 1: 0.001 for 0.1 %"
    fraction = check_within("dc_merge", "fraction", fraction, (0, 1), allowed, excluded=(0,))
    return Merger(_dc_merge, (rank, rho, fraction), reads="matrices")


def _dc_merge(
    values: Matrices, cutoffs: Cutoffs, key: Key, rank: int, rho: float, fraction: float
) -> Floats:
    xp = values.__array_namespace__()
    tasks, most = len(values), max(1, min(values.shape[1:]) // len(values))
    rank = min(rank, most) if rank else most
    left, scale, right = leading(values, rank)
    scale = _smooth(scale.reshape(tasks, rank), rho)
    inputs, outputs = orthogonal(left), orthogonal(right)
    before = product(inputs.T, left).reshape(-1, tasks, rank) * scale
    after = product(right, outputs.T).reshape(tasks, rank, -1)
    cores = product(xp.moveaxis(before, 1, 0), after)
    merged = _merge_core(elementwise(largest(100 * fraction, "tensor"), "sum", "mean"), cores, None)
    own = xp.arange(tasks * rank) // rank
    merged = xp.where(own[:, None] == own, merged, xp.zeros_like(merged))
    return product(product(inputs, merged), outputs)


def _smooth(scale: Floats, rho: float) -> Floats:
    """Singular values of each task, descending along a line; those that are missing stay 0."""
    if not rho:
        return scale
    xp = scale.__array_namespace__()
    there = (scale > 0).astype(scale.dtype)
    count = there.sum(axis=1, keepdims=True)
    smallest = xp.where(there > 0, scale, xp.inf).min(axis=1, keepdims=True)
    ratio = scale[:, :1] / xp.where(count > 0, smallest, 1)
    ratio = xp.minimum(xp.asarray(rho, scale.dtype), ratio)
    place = xp.arange(scale.shape[1]).astype(scale.dtype) / (count - 1).clip(1)
    line = there * (ratio + (1 - ratio) * place)
    total = line.sum(axis=1, keepdims=True)
    return scale.sum(axis=1, keepdims=True) * line / xp.where(total > 0, total, 1)


def _inside(name: str, merge: Any, merger: Any) -> Merger:
    if not isinstance(merger, Merger):
        raise ValueError(
            f"{name}: merger is {getattr(merger, '__name__', repr(merger))}; give what a merger's "
            f"function returns, as oj.{name}(oj.tsv_m())"
        )
    if merger.cutoff is not None:
        raise ValueError(
            f"{name}: {merger} takes a cutoff of whole task vectors, and here each matrix is "
            'merged by itself; ties has over="tensor" for that'
        )
    return Merger(
        merge,
        (merger,),
        reads="matrices",
        random=merger.random,
        tasks=merger.tasks,
        at_most=merger.at_most,
        call=f"{name}({merger})",
    )


def _knots(values: Matrices, cutoffs: Cutoffs, key: Key, merger: Merger) -> Floats:
    outputs = _row_space(values)
    merged = _merge_core(merger, product(values, outputs.T), key)
    return product(merged, outputs)


def _core(values: Matrices, cutoffs: Cutoffs, key: Key, merger: Merger) -> Floats:
    outputs = _row_space(values)
    inputs = _row_space(values.swapaxes(1, 2)).T
    merged = _merge_core(merger, product(product(inputs.T, values), outputs.T), key)
    return product(product(inputs, merged), outputs)


def _row_space(values: Matrices) -> Floats:
    """Orthonormal rows that span those of all matrices; one row at least."""
    if isinstance(values, jax.core.Tracer):
        raise ValueError(
            "the size of a common basis depends on the numbers in the task vectors, so that knots "
            "and core_space cannot be traced: merge outside of jax.jit"
        )
    below = values.reshape(-1, values.shape[2])
    _, scale, right = svd(below[None])
    rank = max(1, int(present(scale, below.shape).sum()))
    return right[0, :rank]


def _merge_core(merger: Merger, values: Matrices, key: Key) -> Floats:
    """Merges coordinates by a merger of any kind; NumPy's if they are."""
    if merger.reads == "matrices" or not isinstance(values, np.ndarray):
        return merger.merge(values, None, key, *merger.options)
    return np.asarray(_merge_compiled(jnp.asarray(values), key, merger))


@functools.partial(jax.jit, static_argnames="merger")
def _merge_compiled(values: Matrices, key: Key, merger: Merger) -> Floats:
    return merger.merge(values, None, key, *merger.options)
