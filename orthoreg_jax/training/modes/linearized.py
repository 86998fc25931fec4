"""Fine-tuning of the model's linearisation around the pre-trained weights."""

from __future__ import annotations

from typing import Any

import jax

from orthoreg_jax.arithmetic.task_vectors import task_vector
from orthoreg_jax.arithmetic.types import Apply, Inputs, Params, Trainable

from .full import full
from .mode import Mode, linearized_outputs


def linearized() -> Mode:
    """Trains theta of f_lin(x; theta) = f(x; theta_0) + J(x) (theta - theta_0).

    The tower's projected, not yet normalised features are linearised; normalisation and head act
    on those. Weight decay acts on theta, as in `full`.

    Reference: "Task Arithmetic in the Tangent Space", NeurIPS 2023 (arXiv 2305.12827).
    """
    return full()._replace(
        label="Linearized FT (TTA)", forward=_forward, outputs=linearized_outputs
    )


def _forward(apply: Apply, params0: Params, trainable: Trainable, inputs: Inputs) -> Any:
    # One forward-mode product gives f and J tau together.
    outputs, tangents = jax.jvp(
        lambda params: apply(params, inputs), (params0,), (task_vector(trainable, params0),)
    )
    return outputs + tangents
