"""Non-linear fine-tuning of all weights."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from orthoreg_jax.arithmetic.task_vectors import task_vector

from .mode import Mode


def full() -> Mode:
    """Trains the weights themselves."""
    return Mode(
        label="Non-linear FT",
        init=lambda params0, key: jax.tree.map(jnp.array, params0),
        delta=task_vector,
        forward=lambda apply, params0, trainable, inputs: apply(trainable, inputs),
        whole=True,
    )
