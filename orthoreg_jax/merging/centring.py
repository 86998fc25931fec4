"""CART: the mean, and what is leading in each task vector beyond it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from jaxtyping import Array, Float

from .directions import leading, norms, product
from .merger import Merger, shown_as_called
from .parameters import check_within
from .types import Cutoffs, Key


@shown_as_called
def cart(fraction: float = 0.12, lambda_: float = 2.0) -> Merger:
    """CART: the mean of the task vectors, and the leading part of each one's distance from it.

    For each matrix, tau = m + lambda * sum_t [tau_t - m]_r, with m = (1/T) sum_t tau_t and [.]_r
    the first r singular triples, r = max(1, int(fraction * min(m, n))). With all of them the
    distances cancel, and the mean is left. Leaves that are not matrices are averaged, as there.
    Alpha is 1 in the paper; it is not lambda, which leaves m alone.

    Defaults are those of the authors' code for 8 tasks and ViT-B/32; for 14 tasks it has fraction
    0.16 and lambda 1.5, for 20 tasks 0.32 and 1.9, by the names `initial_rank_ratio` and `prior`.
    It treats attention's and the MLP's weights alone. The core space authors' code takes 0.04 and
    0.1 and rounds the rank up, merge-and-rebase 0.5 and 0.5, and leaves other weights as they were.

    Args:
      fraction: of each distance's singular values to keep; above 0 and up to 1.
      lambda_: factor of the sum of the distances, 0 or more.

    Raises:
      ValueError: a parameter out of its range.

    Reference: "Revisiting Weight Averaging for Model Merging", 2024 (arXiv 2412.12153).

    Examples:
      >>> oj.cart(0.16, 1.5)
      cart(fraction=0.16, lambda_=1.5)
    """
    allowed = "the fraction of singular values to keep, above 0 and up to 1: 0.12 for 12 %"
    fraction = check_within("cart", "fraction", fraction, (0, 1), allowed, excluded=(0,))
    limits, excluded = (0, math.inf), (math.inf,)
    lambda_ = check_within("cart", "lambda_", lambda_, limits, "a number from 0", excluded)
    return Merger(_cart, (fraction, lambda_), reads="matrices")


def _cart(
    values: Float[Array | np.ndarray, "t m n"],
    cutoffs: Cutoffs,
    key: Key,
    fraction: float,
    scale: float,
) -> Any:
    del cutoffs, key
    rank = max(1, int(fraction * min(values.shape[1:])))
    middle = values.mean(axis=0)
    # What is left of equal vectors is rounding, which is judged by their own size.
    left, singular, right = leading(values - middle, rank, norms(values))
    return middle + scale * product(left * singular, right)
