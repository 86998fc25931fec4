"""The learning rate: linear warm-up, then a cosine to 0."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from orthoreg_jax.arithmetic.types import Params, Update


def count_warmup(warmup: float, steps: int) -> int:
    """The number of warm-up steps of a task.

    Args:
      warmup: below 1 a fraction of the steps, rounded, that leaves at least one step; from 1 up a
        number of steps.
      steps: number of steps of the task.
    """
    return int(warmup) if warmup >= 1 else min(round(warmup * steps), steps - 1)


class WarmupCosineState(NamedTuple):
    """The whole schedule is state, so that tasks of any length share one compiled step."""

    taken: Int[Array, ""]
    peak: Float[Array, ""]
    warmup: Int[Array, ""]
    steps: Int[Array, ""]


def learning_rate(state: WarmupCosineState) -> Float[Array, ""]:
    """The learning rate of the next update.

    The kth of n warm-up updates, counted from 1, has k / n of the peak, so no update has rate 0.
    """
    taken, warmup = state.taken.astype(jnp.float32), state.warmup.astype(jnp.float32)
    rising = (taken + 1) / jnp.maximum(warmup, 1)
    done = (taken - warmup) / jnp.maximum(state.steps - warmup, 1)
    falling = 0.5 * (1 + jnp.cos(jnp.pi * jnp.clip(done, 0, 1)))
    return state.peak * jnp.where(taken < warmup, rising, falling)


def share_done(opt_state: Any) -> Float[Array, ""]:
    """The share of all steps that an optimiser has taken; 1 if it has no such schedule."""
    leaves = jax.tree.leaves(opt_state, is_leaf=lambda node: isinstance(node, WarmupCosineState))
    for state in leaves:
        if isinstance(state, WarmupCosineState):
            return state.taken.astype(jnp.float32) / jnp.maximum(state.steps, 1)
    return jnp.ones(())


def scale_by_warmup_cosine(
    peak: float | Float[Array, ""], warmup: int, steps: int
) -> optax.GradientTransformation:
    """Multiplies updates by minus the learning rate.

    Args:
      peak: rate at the last step of the warm-up and the first of the cosine.
      warmup: number of warm-up steps.
      steps: number of steps after which the rate is 0.
    """

    def init(params: Params) -> WarmupCosineState:
        del params
        return WarmupCosineState(
            jnp.zeros((), jnp.int32),
            jnp.asarray(peak, jnp.float32),
            jnp.asarray(warmup, jnp.int32),
            jnp.asarray(steps, jnp.int32),
        )

    def update(updates: Update, state: WarmupCosineState, params: Params = None) -> Any:
        del params
        rate = learning_rate(state)
        scaled = jax.tree.map(lambda leaf: (-rate).astype(leaf.dtype) * leaf, updates)
        return scaled, state._replace(taken=state.taken + 1)

    # optax types a state as any tree; ours has a type of its own.
    return optax.GradientTransformation(init, update)  # type: ignore[arg-type]
