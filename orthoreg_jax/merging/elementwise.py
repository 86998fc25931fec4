"""Mergers that act entry by entry: sparsify each task vector, elect a sign, combine the rest.

| merger | sparsify | elect | combine |
|---|---|---|---|
| `average` | - | - | mean |
| `task_arithmetic` | - | - | sum |
| `ties` | keep the largest k % | sum or count | mean over agreeing, or sum |
| `dare` | drop at random, rescale | - | sum |
| `dare_ties` | drop at random, rescale | sum | mean over agreeing |
| `breadcrumbs` | keep a band of magnitudes | - | sum |
| `consensus` | keep what several tasks need | - | sum |
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, Inexact

from .merger import Merger, shown_as_called
from .parameters import check_among, check_count, check_within
from .sparsify import Sparsifier, agreed, band, drop, everything, largest
from .types import Key

OVER = ("vector", "tensor")
ELECTIONS = ("sum", "count")
COMBINATIONS = ("mean", "sum")
DROPPED = (
    "the probability that an entry is dropped, from 0 to below 1: 0.9 for 90 %; 1 minus what "
    "other programs call density"
)
ALLOWED_BAND = (
    "fractions 0 <= beta < gamma <= 1, gamma from 0.5: beta of the entries are too small, "
    "1 - gamma too large. "
    "From mergekit's density and gamma, beta = 1 - gamma - density and gamma = 1 - gamma; the "
    "authors' code calls this density beta"
)


def elementwise(sparsifier: Sparsifier, elect: str, combine: str) -> Merger:
    """One row of the table.

    Args:
      sparsifier: chooses the entries that each task vector keeps.
      elect: "" (no election), "sum" or "count": the sign of the sum of an entry's kept values, or
        of their signs; values of the other sign are left out.
      combine: "sum", or "mean" over all tasks (after an election, over those that agree).
    """
    cutoff = None if sparsifier.cutoff is None else _cutoff
    options = (sparsifier, elect, combine)
    return Merger(_merge, options, sparsifier.reads, sparsifier.random, cutoff)


def _cutoff(
    leaves: Sequence[Inexact[Array, ...]], sparsifier: Sparsifier, elect: str, combine: str
) -> Float[Array, ""]:
    assert sparsifier.cutoff is not None
    return sparsifier.cutoff(leaves, *sparsifier.options)


def _merge(
    values: Float[Array, "t ..."],
    cutoffs: Float[Array, " t"] | None,
    key: Key,
    sparsifier: Sparsifier,
    elect: str,
    combine: str,
) -> Float[Array, ...]:
    kept = sparsifier.keep(values, cutoffs, key, *sparsifier.options)
    count: Any = len(values)
    if elect:
        votes = kept if elect == "sum" else jnp.sign(kept)
        elected = jnp.sign(jnp.sum(votes, axis=0))
        agrees = (jnp.sign(kept) == elected) & (kept != 0)
        kept = jnp.where(agrees, kept, 0)
        count = jnp.maximum(jnp.sum(agrees, axis=0), 1).astype(kept.dtype)
    total = jnp.sum(kept, axis=0)
    return total / count if combine == "mean" else total


@shown_as_called
def average() -> Merger:
    """The mean, tau = (1/T) sum_t tau_t: with alpha = 1, the mean of the fine-tuned weights.

    Reference: "Model soups", ICML 2022 (arXiv 2203.05482), its uniform soup.

    Examples:
      >>> vectors = [{"w": jnp.array([1.0, 4.0])}, {"w": jnp.array([3.0, 0.0])}]
      >>> oj.merge_task_vectors(vectors, oj.average())["w"].tolist()
      [2.0, 2.0]
    """
    return elementwise(everything(), "", "mean")


@shown_as_called
def task_arithmetic() -> Merger:
    """The sum, tau = sum_t tau_t; alpha is chosen on validation data, often near 0.3.

    Reference: "Editing models with task arithmetic", ICLR 2023 (arXiv 2212.04089), section 4.

    Examples:
      >>> vectors = [{"w": jnp.array([1.0, 4.0])}, {"w": jnp.array([3.0, 0.0])}]
      >>> oj.merge_task_vectors(vectors, oj.task_arithmetic())["w"].tolist()
      [4.0, 4.0]
    """
    return elementwise(everything(), "", "sum")


@shown_as_called
def ties(
    k: float = 20.0, over: str = "vector", elect: str = "sum", combine: str = "mean"
) -> Merger:
    """TIES: trim, elect a sign, merge the entries that agree with it.

    Each tau_t keeps its largest k % of magnitudes; gamma = sgn(sum_t tau_t) is each entry's sign;
    tau is the mean, or the sum, of the entries with that sign. Published implementations differ in
    all three steps, so three methods share this name:

    * the authors trim over the whole vector and take the mean; k = 20 and alpha = 1 are theirs
      where there is no validation data (`ties()`);
    * much work on CLIP (AdaMerging, TALL masks and what builds on them) takes the same trim and
      the sum, with alpha about 0.3 (`ties(combine="sum")`);
    * mergekit and peft trim each tensor, and may elect by count
      (`ties(over="tensor", elect="count")`; peft's "total" and "frequency" are sum and count).

    They also differ in the unit of k. The authors' code, and code built on it, reads numbers above
    1 as per cent and numbers up to 1 as a fraction. mergekit and peft take the fraction kept,
    `density`; MergeLM takes the fraction left out, `param_value_mask_rate`. A k up to 1 is
    therefore refused here.

    An entry whose values cancel exactly has no sign and gives 0; the authors' code takes the
    majority sign of all entries, mergekit the positive sign. Ties with the smallest kept magnitude
    are kept, too.

    Over files, `over="vector"` takes two passes: one for the cutoff of each vector.

    Args:
      k: per cent of entries kept, above 1 and up to 100; 100 times the fraction kept. Of n entries
        it keeps k n / 100, rounded down, and at least one.
      over: what is trimmed as a whole: "vector" or "tensor" (a matrix of a stacked leaf, or a
        leaf; vectors that are stacked need a rule that says so, `Skip(why, stacked=True)`).
      elect: "sum" of values or "count" of signs.
      combine: "mean" over the entries that agree, or their "sum".

    Raises:
      ValueError: a parameter out of its range.

    Reference: "TIES-Merging: Resolving Interference When Merging Models", NeurIPS 2023
      (arXiv 2306.01708), section 4 and algorithm 1.

    Examples:
      >>> one, other = jnp.array([3.0, -1.0, 2.0, 0.1]), jnp.array([1.0, 4.0, 0.1, 0.2])
      >>> oj.merge_task_vectors([{"w": one}, {"w": other}], oj.ties(k=50))["w"].tolist()
      [2.0, 4.0, 2.0, 0.0]
    """
    allowed = "per cent of entries kept, above 1 and up to 100"
    if isinstance(k, (int, float)) and 0 < k <= 1:
        allowed += f": for the fraction {k:g}, k={100 * k:g}"
    k = check_within("ties", "k", k, (1, 100), allowed, excluded=(1,))
    check_among("ties", "over", over, OVER)
    check_among("ties", "elect", elect, ELECTIONS)
    check_among("ties", "combine", combine, COMBINATIONS)
    return elementwise(largest(k, over), elect, combine)


@shown_as_called
def dare(p: float = 0.9) -> Merger:
    """Drop and rescale: tau = sum_t m_t * tau_t / (1 - p), m_t being 0 with probability p.

    Its expectation is the sum of the task vectors. The paper drops 90 % or more of the entries of
    supervised fine-tuned language models. Vision models that moved further tolerate less: choose p
    on validation data. Needs a key: each task, leaf and layer has its own draw.

    The authors' code (MergeLM) and FusionBench take the same p, as `weight_mask_rate` (default
    0.1) and `sparsity_ratio`. mergekit and peft take the fraction kept, `density` = 1 - p, and no
    check can distinguish the two. peft rescales as here; mergekit restores each tensor's sum of
    magnitudes.

    Args:
      p: probability that an entry is dropped, from 0 to below 1.

    Raises:
      ValueError: p is out of its range.

    Reference: "Language Models are Super Mario: Absorbing Abilities from Homologous Models as a
      Free Lunch", ICML 2024 (arXiv 2311.03099), section 3.

    Examples:
      >>> vectors = [{"w": jnp.ones(1000)}, {"w": jnp.ones(1000)}]
      >>> merged = oj.merge_task_vectors(vectors, oj.dare(p=0.5), key=jax.random.key(0))
      >>> np.unique(merged["w"]).tolist()  # of each vector 0 or twice the entry
      [0.0, 2.0, 4.0]
    """
    p = check_within("dare", "p", p, (0, 1), DROPPED, excluded=(1,))
    return elementwise(drop(p), "", "sum")


@shown_as_called
def dare_ties(p: float = 0.9, elect: str = "sum", combine: str = "mean") -> Merger:
    """DARE instead of TIES' trim, followed by TIES' election and mean of agreeing entries.

    This is peft's method; mergekit sums by default (`combine="sum"`) and rescales as described at
    `dare`. The paper's "TIES-Merging with DARE" trims as well, after it drops.

    Args:
      p: as for `dare`.
      elect: as for `ties`.
      combine: as for `ties`.

    Raises:
      ValueError: a parameter out of its range.

    Reference: see `dare` and `ties`.

    Examples:
      >>> vectors = [{"w": jnp.array([1.0, -2.0])}, {"w": jnp.array([3.0, 1.0])}]
      >>> merged = oj.merge_task_vectors(vectors, oj.dare_ties(p=0.0), key=jax.random.key(0))
      >>> merged["w"].tolist()  # nothing is dropped: the mean of those that agree
      [2.0, -2.0]
    """
    p = check_within("dare_ties", "p", p, (0, 1), DROPPED, excluded=(1,))
    check_among("dare_ties", "elect", elect, ELECTIONS)
    check_among("dare_ties", "combine", combine, COMBINATIONS)
    return elementwise(drop(p), elect, combine)


@shown_as_called
def breadcrumbs(beta: float = 0.85, gamma: float = 0.993) -> Merger:
    """Drops each tensor's smallest magnitudes and its outliers: tau = sum_t m_t * tau_t.

    The mask m_t keeps, in each tensor separately, the entries with a magnitude between the
    quantiles beta and gamma. mergekit's `density` and `gamma` are gamma - beta and 1 - gamma here,
    and mergekit does not rescale, either. The authors' code calls the same two fractions, of kept
    entries and of outliers, `beta` and `gamma` (for example 0.15 and 0.006), and counts them in
    each row of a tensor. Values in that convention are refused here.

    Args:
      beta: fraction of small entries left out.
      gamma: 1 minus the fraction of outliers left out; beta < gamma <= 1, and at least 0.5.

    Raises:
      ValueError: 0 <= beta < gamma <= 1 does not hold, or gamma is below 0.5.

    Reference: "Model Breadcrumbs: Scaling Multi-Task Model Merging with Sparse Masks", ECCV 2024
      (arXiv 2312.06795), section 3.

    Examples:
      >>> vectors = [{"w": jnp.arange(1.0, 11.0)}, {"w": jnp.zeros(10)}]
      >>> oj.merge_task_vectors(vectors, oj.breadcrumbs(beta=0.5, gamma=1.0))["w"].tolist()
      [0.0, 0.0, 0.0, 0.0, 0.0, 6.0, 7.0, 8.0, 9.0, 10.0]
    """
    gamma = check_within("breadcrumbs", "gamma", gamma, (0.5, 1), ALLOWED_BAND)
    beta = check_within("breadcrumbs", "beta", beta, (0, gamma), ALLOWED_BAND, excluded=(gamma,))
    return elementwise(band(beta, gamma), "", "sum")


@shown_as_called
def consensus(k: int = 2, lambda_: float = 0.4) -> Merger:
    """Consensus task arithmetic: keeps the entries of the sum that at least k tasks need.

    m_t = 1[ |tau_t| >= lambda |sum_u tau_u - tau_t| ] is the task's TALL mask, and
    tau = 1[ sum_t m_t >= k ] * sum_t tau_t: entries that no task needs ("catastrophic") or fewer
    than k tasks need ("selfish") are left out. The paper chooses lambda for each task from 0.2,
    0.3, ..., 0.6 on validation data; here all tasks share one lambda. The masks come from the sum
    itself, whatever alpha is.

    k is the number of tasks, `prun_thre_k` in the authors' code; their configs use k for the per
    cent of TIES' trim. If k exceeds the number of tasks, their merged vector is 0; here such a k is
    refused when vectors are merged.

    Args:
      k: number of tasks that must need an entry, from 0 to the number of vectors; 0 gives the sum.
      lambda_: how large a task's entry must be relative to the other tasks', from 0.

    Raises:
      ValueError: a parameter out of its range.

    Reference: "Localizing Task Information for Improved Model Merging and Compression", ICML 2024
      (arXiv 2405.07813), equation 5 and section 5.

    Examples:
      >>> vectors = [{"w": jnp.array([1.0, 1.0])}, {"w": jnp.array([1.0, 0.0])}]
      >>> oj.merge_task_vectors(vectors, oj.consensus(k=2))["w"].tolist()  # what both need
      [2.0, 0.0]
    """
    k = check_count("consensus", "k", k, "a whole number of tasks from 0, as an int")
    limits, excluded = (0, math.inf), (math.inf,)
    lambda_ = check_within("consensus", "lambda_", lambda_, limits, "a number from 0", excluded)
    return dataclasses.replace(elementwise(agreed(k, lambda_), "", "sum"), tasks=k)
