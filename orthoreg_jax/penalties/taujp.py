"""tauJp: how far a task vector moves the outputs of the linearised model, J tau."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from orthoreg_jax.arithmetic.low_rank import dense
from orthoreg_jax.arithmetic.paths import flatten, replace, select
from orthoreg_jax.arithmetic.precision import wide_type
from orthoreg_jax.arithmetic.types import Apply, Inputs, Params, Update


def tau_jacobian(
    apply: Apply, params0: Params, delta: Update, inputs: Inputs
) -> Float[Array, "*b p"]:
    """J(x) tau, the change in the linearised model's outputs; one forward-mode product.

    Args:
      apply: (params, inputs) -> outputs.
      params0: pre-trained weights, where J is taken.
      delta: tau, a tree like params0, or part of one if it is a nested dict; `LowRank` nodes are
        multiplied out.
      inputs: a batch, as `apply` takes it.
    """
    vector = dense(delta)
    same: bool = jax.tree.structure(vector) == jax.tree.structure(params0)  # type: ignore[operator]
    if same:
        return jax.jvp(lambda params: apply(params, inputs), (params0,), (vector,))[1]
    part = select(params0, tuple(flatten(vector)))
    _, tangent = jax.jvp(lambda leaves: apply(replace(params0, leaves), inputs), (part,), (vector,))
    return tangent


def tau_jacobian_penalty(
    apply: Apply, params0: Params, delta: Update, inputs: Inputs
) -> Float[Array, ""]:
    """tauJp: E_x || J(x) tau ||^2 on inputs x of *other* tasks.

    Where it is small, adding all task vectors to the linearised model gives, on each task, the
    outputs of that task's own model. For an update of zeros, value and gradient are 0.

    Args:
      apply: (params, inputs) -> outputs, e.g. of `image_encoder`.
      params0: pre-trained weights.
      delta: the update of the weights while training, fine-tuned minus pre-trained; a tree like
        params0, or part of one if it is a nested dict.
      inputs: a batch of another task; a new batch at each step, cycling through the tasks.

    Returns:
      The scalar to multiply by lambda and add to a loss.

    Reference: "Mastering Task Arithmetic: tauJp as a Key Indicator for Weight Disentanglement",
      ICLR 2025. Its released code takes the mean of the norms, not of their squares.

    Examples:
      >>> apply = lambda params, x: x @ params["kernel"]
      >>> before, update = {"kernel": jnp.ones((2, 2))}, {"kernel": jnp.eye(2)}
      >>> print(oj.tau_jacobian_penalty(apply, before, update, jnp.array([[3.0, 4.0]])))
      25.0
    """
    moved = tau_jacobian(apply, params0, delta, inputs)
    squares = jnp.sum(jnp.square(moved.astype(wide_type(moved.dtype))), axis=-1)
    return jnp.mean(squares)
