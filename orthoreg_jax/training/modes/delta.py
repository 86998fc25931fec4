"""DELTA: a non-linear model fine-tuned beside a linear one that it is kept close to."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int
from ml_collections import ConfigDict

from orthoreg_jax.arithmetic.task_vectors import task_vector
from orthoreg_jax.arithmetic.types import Apply, Inputs, Params, Trainable, Update
from orthoreg_jax.clip.zeroshot import Head
from orthoreg_jax.penalties.delta import scaled_features, squared_distance

from .mode import Mode, Moment


def delta(options: ConfigDict) -> Mode:
    """Trains a student and a linearised teacher, both on all weights; the student is what counts.

    At each step alpha is drawn uniformly from a range that opens from [1, 1] at the first step to
    [low, high] at the last, by the share of steps taken to the power `power`. The loss is the
    cross-entropy of the student at theta_0 + alpha tau_S, that of the teacher at
    theta_0 + alpha tau_T, and `weight` times their distance (see `delta_distance`). Penalties act
    on both updates. Weight decay acts on both sets of weights.

    Published with a Kronecker-factored penalty on both, measured on a general image set:
    `delta+drift`. The teacher costs memory for another set of weights and optimiser state, and
    another forward and backward pass with its tangents.

    Args:
      options: `low`, `high`, `power`, `weight`.

    Reference: DELTA, ICML 2026 (arXiv 2605.18993).
    """

    def init(params0: Params, key: Any) -> Trainable:
        return {name: jax.tree.map(jnp.array, params0) for name in ("student", "teacher")}

    def update(trainable: Trainable, params0: Params) -> Update:
        return task_vector(trainable["student"], params0)

    def forward(apply: Apply, params0: Params, trainable: Trainable, inputs: Inputs) -> Any:
        del params0
        return apply(trainable["student"], inputs)

    def loss(
        apply: Apply,
        params0: Params,
        trainable: Trainable,
        inputs: Inputs,
        head: Head,
        labels: Int[Array, " b"],
        moment: Moment,
    ) -> Float[Array, ""]:
        alpha = draw_alpha(moment, options.low, options.high, options.power)
        student, teacher = updates(trainable, params0)
        own, linear = scaled_features(apply, params0, student, teacher, inputs, alpha)
        cross_entropy = optax.softmax_cross_entropy_with_integer_labels
        terms = [cross_entropy(head.logits(each), labels).mean() for each in (own, linear)]
        return terms[0] + terms[1] + options.weight * squared_distance(own, linear)

    def updates(trainable: Trainable, params0: Params) -> tuple[Update, ...]:
        return tuple(task_vector(trainable[name], params0) for name in ("student", "teacher"))

    return Mode("DELTA", init, update, forward, loss=loss, penalised=updates)


def draw_alpha(moment: Moment, low: float, high: float, power: float) -> Float[Array, ""]:
    """Alpha of a step, the same for all tasks and seeds."""
    opened = jnp.clip(moment.share, 0.0, 1.0) ** power
    least, most = (1.0 + (end - 1.0) * opened for end in (low, high))
    key = jax.random.fold_in(jax.random.key(0), moment.step)
    return jax.random.uniform(key, minval=least, maxval=most)
