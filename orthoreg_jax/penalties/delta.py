"""DELTA: how far a non-linear model is from a linear one that is trained beside it."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from orthoreg_jax.arithmetic.task_vectors import apply_task_vector
from orthoreg_jax.arithmetic.types import Apply, Inputs, Params, Update

from .taujp import tau_jacobian


def scaled_features(
    apply: Apply,
    params0: Params,
    student: Update,
    teacher: Update,
    inputs: Inputs,
    alpha: float | Float[Array, ""] = 1.0,
) -> tuple[Float[Array, "b p"], Float[Array, "b p"]]:
    """Features of the student and of its linear teacher, both at alpha times their updates.

    With g(x; theta) = f(x; theta) / ||f(x; theta)||: g(x; theta_0 + alpha tau_S), and
    g(x; theta_0) + alpha J_g(x) tau_T.

    Args:
      apply: f, (params, inputs) -> features.
      params0: theta_0.
      student: tau_S, a tree like params0 or of a part.
      teacher: tau_T, likewise.
      inputs: a batch x.
      alpha: how far along both updates.
    """

    def unit(params: Params, inputs: Inputs) -> Float[Array, "b p"]:
        features = apply(params, inputs)
        return features / jnp.linalg.norm(features, axis=-1, keepdims=True)

    own = unit(apply_task_vector(params0, student, alpha), inputs)
    change = tau_jacobian(unit, params0, teacher, inputs)
    return own, unit(params0, inputs) + jnp.asarray(alpha, change.dtype) * change


def squared_distance(own: Float[Array, "b p"], linear: Float[Array, "b p"]) -> Float[Array, ""]:
    """Mean squared distance of features; the linear model's get no gradient."""
    return jnp.mean(jnp.sum(jnp.square(own - jax.lax.stop_gradient(linear)), axis=-1))


def delta_distance(
    apply: Apply,
    params0: Params,
    student: Update,
    teacher: Update,
    inputs: Inputs,
    alpha: float | Float[Array, ""] = 1.0,
) -> Float[Array, ""]:
    """E_x || g(x; theta_0 + alpha tau_S) - [g(x; theta_0) + alpha J_g(x) tau_T] ||^2.

    g are the model's features divided by their norm. Kept small along a range of alpha, it makes
    the non-linear student answer as a linear model does, whose task vectors add up. The teacher
    gets no gradient from it. Both are trained on the task itself as well, at the same alpha; see
    the mode "delta".

    Args:
      apply: f, (params, inputs) -> features, e.g. of `image_encoder`.
      params0: theta_0, pre-trained weights.
      student: tau_S, the update of the non-linear model; a tree like params0, or of a part.
      teacher: tau_T, the update of the linearised model, likewise.
      inputs: a batch of the task's own.
      alpha: how far along both updates.

    Returns:
      The scalar to be added to a loss.

    Reference: DELTA, ICML 2026 (arXiv 2605.18993); published settings have its weight at 1.

    Examples:
      >>> apply = lambda params, x: x @ params["kernel"]
      >>> before, none = {"kernel": jnp.eye(2)}, {"kernel": jnp.zeros((2, 2))}
      >>> print(oj.delta_distance(apply, before, none, none, jnp.array([[3.0, 4.0]])))
      0.0
    """
    return squared_distance(*scaled_features(apply, params0, student, teacher, inputs, alpha))
