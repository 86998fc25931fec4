"""PCB: entries compete within their task and between tasks, and the winners are averaged."""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array, Float, Inexact

from .merger import Joint, Merger, shown_as_called
from .order_statistics import kth_magnitude
from .parameters import check_within
from .types import Cutoffs, Key, Values

CLAMPED = 1e-4  # fraction of magnitudes at either end that are clamped


@shown_as_called
def pcb(fraction: float = 0.1) -> Merger:
    """PCB-Merging: a mean of the entries, weighted by how they compete within and between tasks.

    Magnitudes a_t = |tau_t| are clamped to the quantiles 0.0001 and 0.9999 of the whole vector, and
    q_t in [0, 1] is where they lie between them. An entry's balance is
    b_t = exp(T q_t^2) tanh(tau_t * sum_u tau_u). w_t rises from 0 at b_t's quantile 1 - fraction to
    1 at its maximum, and tau = sum_t w_t sgn(tau_t) a_t / sum_t w_t. An entry whose weights are
    all 0 is 0. The result jumps there: an entry that one task alone wins, by however little, is
    that task's; so a few entries in a million depend on rounding.

    The products of task vectors are not normalised, so the result depends on the vectors' length:
    longer ones saturate the tanh. This is the authors' code; alpha is near 1 there (their
    search looks from 0.8 to 1.3, one for each task), and `fraction` is their `pcb_ratio`.
    merge-and-rebase has 0.05, clamps 0.01 at either end, multiplies tau_t by the sum of
    sgn(tau_u) q_u instead, and the result by 1.2.

    Over files it takes two further passes, as quantiles of b_t depend on all vectors together.

    Args:
      fraction: of each task's entries that take part, largest balance first; above 0, up to 1.

    Raises:
      ValueError: fraction out of its range.

    Reference: "Parameter Competition Balancing for Model Merging", NeurIPS 2024
      (arXiv 2410.02396).

    Examples:
      >>> oj.pcb(0.05)
      pcb(fraction=0.05)
    """
    allowed = "the fraction of entries that take part, above 0 and up to 1: 0.1 for 10 %"
    fraction = check_within("pcb", "fraction", fraction, (0, 1), allowed, excluded=(0,))
    return Merger(_pcb, (fraction,), cutoff=_ends, joint=Joint(_balance, _ranks))


def _ends(leaves: Sequence[Inexact[Array, ...]], fraction: float) -> Float[Array, 2]:
    """The clamped range of magnitudes of a whole task vector."""
    size = sum(leaf.size for leaf in leaves)
    low, high = int(size * CLAMPED), max(0, int(size * (1 - CLAMPED) - 1))
    # Counted from the largest, as ranks are there.
    return jnp.stack(
        [kth_magnitude(leaves, size - max(low, 0)), kth_magnitude(leaves, size - high)]
    )


def _ranks(size: int, fraction: float) -> tuple[int, int]:
    """Which order statistics of the balance are needed, counted from the smallest, 0."""
    return min(int(size * (1 - fraction)), size - 1), size - 1


def _clamped(values: Values, cutoffs: Float[Array, "t c"]) -> tuple[Values, Values]:
    """Clamped magnitudes, and where they lie in their range."""
    axes = (-1, *[1] * (values.ndim - 1))
    low, high = (cutoffs[:, end].astype(values.dtype).reshape(axes) for end in (0, 1))
    high = jnp.maximum(low, high)
    magnitude = jnp.clip(jnp.abs(values), low, high)
    return magnitude, (magnitude - low) / jnp.where(high > low, high - low, 1)


def _balance(values: Values, cutoffs: Float[Array, "t c"], fraction: float) -> Values:
    _, place = _clamped(values, cutoffs)
    between = jnp.tanh(values * jnp.sum(values, axis=0))
    return jnp.exp(len(values) * jnp.square(place)) * between


def _pcb(values: Values, cutoffs: Cutoffs, key: Key, fraction: float) -> Float[Array, ...]:
    del key
    magnitude, _ = _clamped(values, cutoffs)
    axes = (-1, *[1] * (values.ndim - 1))
    low, high = (cutoffs[:, end].astype(values.dtype).reshape(axes) for end in (2, 3))
    spread = jnp.where(high > low, high - low, 1)
    above = jnp.clip(_balance(values, cutoffs, fraction), low, high) - low
    # A mean of one entry does not depend on its weight: rounding of the balance must not make it
    # one. Rounding is relative to the balance; its spread may be a thousand times as large.
    rounding = 16 * jnp.finfo(values.dtype).eps * jnp.abs(low)
    weights = jnp.where(above > rounding, above, 0) / spread
    total = jnp.sum(weights, axis=0)
    mean = jnp.sum(weights * jnp.sign(values) * magnitude, axis=0)
    return mean / jnp.where(total > 0, total, 1)
