"""WUDI: the update that interferes least with each task's own, on the inputs it changed."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from orthoreg_jax.arithmetic.decompositions import svd

from .directions import norms, present, product
from .merger import Merger, shown_as_called
from .parameters import check_count, check_within
from .types import Cutoffs, Floats, Key, Matrices

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8  # of Adam


@shown_as_called
def wudi(steps: int = 0, learning_rate: float = 1e-5) -> Merger:
    """WUDI: minimises sum_t ||tau_t^T (tau - tau_t)||_F^2 / ||tau_t||_F^2 for each matrix.

    A task's update has the span of the inputs that it was trained on (the rows of a kernel of
    shape (inputs, outputs); with layers of torch, (tau - tau_t) tau_t^T), so that on these inputs
    tau should do what tau_t does. The minimum solves
    sum_t c_t tau_t tau_t^T tau = sum_t c_t tau_t tau_t^T tau_t with c_t = 1 / ||tau_t||_F^2, which
    is RegMean with tau_t tau_t^T in place of the inputs' Gram matrix. Inputs that no task changed
    are left alone. Alpha is 1 in the paper. Leaves that are not matrices are averaged.

    The paper and its code take 300 steps of Adam at 1e-5 from the sum of the task vectors
    (`wudi(300)`). No entry moves by more than about steps * learning_rate, so they end between sum
    and minimum, and where depends on the length of the vectors; FusionBench and DC-Merge's code do
    the same. The minimum, the default here, depends on no rate; merge-and-rebase solves for it,
    too, with 1e-8 added to the diagonal. Some code treats attention's and the MLP's weights alone.

    Args:
      steps: of Adam, an int; 0: the minimum itself.
      learning_rate: of Adam, in units of the weights.

    Raises:
      ValueError: a parameter out of its range.

    Reference: "Whoever Started the Interference Should End It: Guiding Data-Free Model Merging via
      Task Vectors", ICML 2025 (arXiv 2503.08099).

    Examples:
      >>> oj.wudi(300)
      wudi(steps=300, learning_rate=1e-05)
    """
    steps = check_count("wudi", "steps", steps, "a whole number from 0, as an int")
    allowed = "a rate from 0, in units of the weights"
    rate = check_within("wudi", "learning_rate", learning_rate, (0, math.inf), allowed, (math.inf,))
    return Merger(_wudi, (steps, rate), reads="matrices")


def _wudi(values: Matrices, cutoffs: Cutoffs, key: Key, steps: int, learning_rate: float) -> Any:
    del cutoffs, key
    xp = values.__array_namespace__()
    sizes = norms(values)
    units = values / xp.where(sizes > 0, sizes, 1)[:, None, None]
    if not steps:
        return _minimum(units, sizes)
    gram = xp.einsum("tij,tkj->ik", units, units, **_precisely(xp))
    target = xp.einsum("tij,tkj,tkl->il", units, units, values, optimize=True, **_precisely(xp))
    start = values.sum(axis=0)
    return _descend(lambda tau: 2 * (product(gram, tau) - target), start, steps, learning_rate)


def _minimum(units: Matrices, sizes: Floats) -> Floats:
    """The solution, from the directions of all tasks side by side.

    With [N_1 ... N_T] = U S [V_1 ... V_T], N_t = tau_t / ||tau_t||, the normal equations become
    tau = U S^-1 sum_t ||tau_t|| V_t V_t^T S^2 V_t: products of small matrices, and one S^-1 where
    solving them would have two.
    """
    xp = units.__array_namespace__()
    tasks, rows, columns = units.shape
    beside = xp.moveaxis(units, 0, 1).reshape(rows, -1)
    left, scale, right = (part[0] for part in svd(beside[None]))
    there = present(scale[None], beside.shape)[0]
    own = xp.moveaxis((right * there[:, None]).reshape(-1, tasks, columns), 1, 0)
    total = xp.zeros_like(own[0])
    for number in range(tasks):
        span = product(own[number], own[number].T)
        total = total + sizes[number] * product(span, (scale**2)[:, None] * own[number])
    inverse = there / xp.where(there > 0, scale, 1)
    return product(left * inverse, total)


def _descend(
    gradient: Callable[[Floats], Floats], start: Floats, steps: int, rate: float
) -> Floats:
    """`steps` steps of Adam; NumPy's, or traced."""
    xp = start.__array_namespace__()

    def step(number: Any, state: Any) -> Any:
        tau, first, second = state
        slope = gradient(tau)
        first = BETA1 * first + (1 - BETA1) * slope
        second = BETA2 * second + (1 - BETA2) * slope**2
        count = xp.asarray(number + 1, start.dtype)
        mean = first / (1 - BETA1**count)
        size = xp.sqrt(second / (1 - BETA2**count)) + EPSILON
        return tau - rate * mean / size, first, second

    state = (start, xp.zeros_like(start), xp.zeros_like(start))
    if xp is not np:
        return jax.lax.fori_loop(0, steps, step, state)[0]
    for number in range(steps):
        state = step(number, state)
    return state[0].astype(start.dtype)


def _precisely(xp: Any) -> dict[str, Any]:
    return {} if xp is np else {"precision": "highest"}
