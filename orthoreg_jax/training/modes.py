"""Ways to fine-tune, each as three functions; nothing else knows which one is running."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from orthoreg_jax.arithmetic.task_vectors import task_vector

Apply = Callable[[Any, Any], Any]  # (params, inputs) -> outputs


class Mode(NamedTuple):
    """One way to fine-tune.

    Attributes:
      label: its name in tables, as in the paper.
      init: (params0, key) -> trainable, what the optimiser holds.
      delta: (trainable, params0) -> the update of the weights, which the penalty and task vectors
        see.
      forward: (apply, params0, trainable, inputs) -> outputs.
    """

    label: str
    init: Callable[[Any, Any], Any]
    delta: Callable[[Any, Any], Any]
    forward: Callable[[Apply, Any, Any, Any], Any]


MODES = {
    "full": Mode(
        label="Non-linear FT",
        # A copy, so that the state can be donated to the train step and params0 kept.
        init=lambda params0, key: jax.tree.map(jnp.array, params0),
        delta=task_vector,
        forward=lambda apply, params0, trainable, inputs: apply(trainable, inputs),
    ),
}
