"""Fine-tuning of the model's linearisation around the pre-trained weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
from jaxtyping import Array, Float
from ml_collections import ConfigDict

from orthoreg_jax.arithmetic.task_vectors import task_vector
from orthoreg_jax.arithmetic.types import Apply, Inputs, Params, Trainable
from orthoreg_jax.clip.modules import normalize

from .full import full
from .mode import Mode, linearized_outputs


def linearized(options: ConfigDict) -> Mode:
    """Trains theta of f_lin(x; theta) = f(x; theta_0) + J(x) (theta - theta_0).

    The tower's projected, not yet normalised features are linearised; normalisation and head act
    on those. With `normalized`, f is the feature divided by its norm, and f_lin is normalised once
    more before the head, as in TAK's code. Weight decay acts on theta, as in `full`.

    Args:
      options: `normalized`.

    Reference: "Task Arithmetic in the Tangent Space", NeurIPS 2023 (arXiv 2305.12827).
    """
    mode = full()._replace(
        label="Linearized FT (TTA)", forward=_forward, outputs=linearized_outputs
    )
    if not options.normalized:
        return mode
    return mode._replace(forward=_normalized_forward, outputs=_normalized_outputs)


def _forward(apply: Apply, params0: Params, trainable: Trainable, inputs: Inputs) -> Any:
    # One forward-mode product gives f and J tau together.
    outputs, tangents = jax.jvp(
        lambda params: apply(params, inputs), (params0,), (task_vector(trainable, params0),)
    )
    return outputs + tangents


def _normalized(apply: Apply) -> Apply:
    return lambda params, inputs: normalize(apply(params, inputs))


def _normalized_forward(apply: Apply, params0: Params, trainable: Trainable, inputs: Inputs) -> Any:
    return _forward(_normalized(apply), params0, trainable, inputs)


def _normalized_outputs(
    apply: Apply,
    params0: Params,
    vectors: Sequence[Any],
    coefficients: Float[Array, "g v"],
    inputs: Inputs,
) -> Float[Array, "g b p"]:
    """As `linearized_outputs`, of the normalised features."""
    return linearized_outputs(_normalized(apply), params0, vectors, coefficients, inputs)
