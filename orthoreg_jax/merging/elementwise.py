"""Mergers that treat entries alone: sparsify each task vector, elect a sign, combine what is left.

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

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, Inexact

from .merger import Merger, shown_as_called
from .sparsify import Sparsifier, agreed, band, drop, everything, largest

OVER = ("vector", "tensor")
ELECTIONS = ("sum", "count")
COMBINATIONS = ("mean", "sum")
DROPPED = (
    "the probability that an entry is dropped, from 0 to below 1: 0.9 for 90 %, and 1 less what "
    "others call density"
)


def elementwise(sparsifier: Sparsifier, elect: str, combine: str) -> Merger:
    """One row of the table.

    Args:
      sparsifier: what each task vector keeps.
      elect: "" (no election), "sum" or "count": the sign that an entry's kept values, or their
        signs, add up to; those of the other sign are left out.
      combine: "sum", or "mean": over all tasks, or after an election over those that agree.
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
    key: Any,
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
    """
    return elementwise(everything(), "", "mean")


@shown_as_called
def task_arithmetic() -> Merger:
    """The sum, tau = sum_t tau_t; alpha is chosen on validation, often near 0.3.

    Reference: "Editing models with task arithmetic", ICLR 2023 (arXiv 2212.04089), section 4.
    """
    return elementwise(everything(), "", "sum")


@shown_as_called
def ties(
    k: float = 20.0, over: str = "vector", elect: str = "sum", combine: str = "mean"
) -> Merger:
    """Trim, elect a sign, merge what agrees with it.

    Of each tau_t only the largest k % of magnitudes stay; gamma = sgn(sum_t tau_t) is each entry's
    sign; tau is the mean of the entries of that sign, or their sum. Published implementations
    differ in all three steps, so that three methods go by this name:

    * the authors trim over the whole vector and take the mean; k = 20 and alpha = 1 are theirs
      where there is no validation data (`ties()`); their code takes the share 0.2 for it;
    * much work on CLIP (AdaMerging, TALL masks and what builds on them) takes the same trim and
      the sum, with alpha about 0.3 (`ties(combine="sum")`);
    * mergekit trims each tensor, and may elect by count (`ties(over="tensor", elect="count")`).

    An entry whose values cancel exactly has no sign and gives 0; the authors' code takes the sign
    that most entries have, mergekit the positive one. Entries as large as the smallest kept one
    are kept, too.

    Over files, `over="vector"` takes two passes: one for the cutoff of each vector.

    Args:
      k: per cent of entries kept, from 1 to 100: of what others give as a share or a density
        (mergekit's), 100 times it.
      over: what is trimmed at once: "vector" or "tensor" (a matrix of a stacked leaf, or a leaf).
      elect: "sum" of values or "count" of signs.
      combine: "mean" over the entries that agree, or their "sum".

    Raises:
      ValueError: a parameter out of its range.

    Reference: "TIES-Merging: Resolving Interference When Merging Models", NeurIPS 2023
      (arXiv 2306.01708), section 4 and algorithm 1.
    """
    allowed = "per cent of entries kept, from 1 to 100"
    if 0 < k < 1:
        allowed += f": for the share {k:g}, k={100 * k:g}"
    _within("ties", "k", k, 1 <= k <= 100, allowed)
    _among("ties", "over", over, OVER)
    _among("ties", "elect", elect, ELECTIONS)
    _among("ties", "combine", combine, COMBINATIONS)
    return elementwise(largest(float(k), over), elect, combine)


@shown_as_called
def dare(p: float = 0.9) -> Merger:
    """Drop and rescale: tau = sum_t m_t * tau_t / (1 - p), m_t being 0 with probability p.

    In expectation the sum of the task vectors. The paper drops 90 % and more of what supervised
    fine-tuning of language models changes; vision models that moved further bear less: choose p on
    validation. Needs a key: each task, leaf and layer has its own draw.

    Args:
      p: probability that an entry is dropped, from 0 to below 1: 1 less what mergekit calls
        density.

    Raises:
      ValueError: p out of its range.

    Reference: "Language Models are Super Mario: Absorbing Abilities from Homologous Models as a
      Free Lunch", ICML 2024 (arXiv 2311.03099), section 3.
    """
    _within("dare", "p", p, 0 <= p < 1, DROPPED)
    return elementwise(drop(float(p)), "", "sum")


@shown_as_called
def dare_ties(p: float = 0.9, elect: str = "sum", combine: str = "mean") -> Merger:
    """DARE in place of TIES' trim, then its election and mean over agreeing entries.

    As mergekit has it (which sums by default: `combine="sum"`). The paper's "TIES-Merging with
    DARE" drops first and trims afterwards, too.

    Args:
      p: as for `dare`.
      elect: as for `ties`.
      combine: as for `ties`.

    Raises:
      ValueError: a parameter out of its range.

    Reference: see `dare` and `ties`.
    """
    _within("dare_ties", "p", p, 0 <= p < 1, DROPPED)
    _among("dare_ties", "elect", elect, ELECTIONS)
    _among("dare_ties", "combine", combine, COMBINATIONS)
    return elementwise(drop(float(p)), elect, combine)


@shown_as_called
def breadcrumbs(beta: float = 0.85, gamma: float = 0.993) -> Merger:
    """Each tensor loses its smallest magnitudes and its outliers: tau = sum_t m_t * tau_t.

    The mask m_t keeps, of each tensor by itself, the entries whose magnitude lies from the quantile
    beta to the quantile gamma. mergekit's `density` and `gamma` are gamma - beta and 1 - gamma
    here, and it rescales nothing either.

    Args:
      beta: share of small entries left out.
      gamma: 1 less the share of outliers left out; beta < gamma <= 1.

    Raises:
      ValueError: not 0 <= beta < gamma <= 1.

    Reference: "Model Breadcrumbs: Scaling Multi-Task Model Merging with Sparse Masks", ECCV 2024
      (arXiv 2312.06795), section 3.
    """
    allowed = (
        f"shares 0 <= beta < gamma <= 1 (gamma is {gamma}): of mergekit's density and gamma, "
        "beta = 1 - gamma - density and gamma = 1 - gamma"
    )
    _within("breadcrumbs", "beta", beta, 0 <= beta < gamma <= 1, allowed)
    return elementwise(band(float(beta), float(gamma)), "", "sum")


@shown_as_called
def consensus(k: int = 2, lambda_: float = 0.4) -> Merger:
    """Consensus task arithmetic: only what at least k tasks need of the sum.

    m_t = 1[ |tau_t| >= lambda |sum_u tau_u - tau_t| ] is the task's TALL mask, and
    tau = 1[ sum_t m_t >= k ] * sum_t tau_t: entries of no task ("catastrophic") and of fewer than
    k ("selfish") are left out. The paper chooses lambda for each task from 0.2, 0.3, ..., 0.6 on
    validation; here one serves all tasks. Its masks come from the sum itself, whatever alpha is.

    Args:
      k: tasks that must need an entry; 0 gives the sum. More than there are tasks gives 0.
      lambda_: how large a task's entry must be beside those of the others, from 0.

    Raises:
      ValueError: a parameter out of its range.

    Reference: "Localizing Task Information for Improved Model Merging and Compression", ICML 2024
      (arXiv 2405.07813), equation 5 and section 5.
    """
    _within("consensus", "k", k, k == int(k) and k >= 0, "a whole number of tasks from 0")
    _within("consensus", "lambda_", lambda_, lambda_ >= 0, "a number from 0")
    return elementwise(agreed(int(k), float(lambda_)), "", "sum")


def _within(merger: str, name: str, value: Any, good: bool, allowed: str) -> None:
    if not good:
        raise ValueError(f"{merger}: {name} is {value}; give {allowed}")


def _among(merger: str, name: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise ValueError(f"{merger}: {name} is {value!r}; allowed: {', '.join(map(repr, allowed))}")
