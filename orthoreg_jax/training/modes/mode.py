"""A mode is a few functions; no other code knows which mode is running."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from orthoreg_jax.arithmetic.paths import replace, select
from orthoreg_jax.arithmetic.task_vectors import apply_task_vector, task_vector
from orthoreg_jax.arithmetic.types import Apply, Inputs, Params, Trainable, Update

# (apply, params0, vectors, coefficients (g v), inputs) -> outputs (g b p)
Outputs = Callable[[Apply, Any, Sequence[Any], Any, Any], Any]


def edited_outputs(
    apply: Apply,
    params0: Params,
    vectors: Sequence[Any],
    coefficients: Float[Array, "g v"],
    inputs: Inputs,
) -> Float[Array, "g b p"]:
    """Outputs of theta_0 + sum_v c_v tau_v, for each of g rows of coefficients.

    Computes one row after another, so memory holds one edited model, whatever g is.

    Args:
      apply: (params, inputs) -> outputs (b p).
      params0: theta_0.
      vectors: tau_v, trees of some or all leaves of params0.
      coefficients: c, a row for each edited model.
      inputs: a batch, as `apply` takes it.

    Reference: task arithmetic, Ilharco et al., 2023.

    Examples:
      >>> apply = lambda params, x: x @ params["w"]
      >>> params0, tau = {"w": jnp.ones((2, 1))}, {"w": jnp.array([[1.0], [2.0]])}
      >>> oj.edited_outputs(apply, params0, [tau], jnp.array([[0.0], [2.0]]), jnp.ones((1, 2)))
      Array([[[2.]],
      <BLANKLINE>
             [[8.]]], dtype=float32)
    """

    def outputs(row: Float[Array, " v"]) -> Any:
        params = params0
        for number, vector in enumerate(vectors):
            params = apply_task_vector(params, vector, row[number])
        return apply(params, inputs)

    return jax.lax.map(outputs, coefficients)


def linearized_outputs(
    apply: Apply,
    params0: Params,
    vectors: Sequence[Any],
    coefficients: Float[Array, "g v"],
    inputs: Inputs,
) -> Float[Array, "g b p"]:
    """Outputs of f_lin(x; theta_0 + sum_v c_v tau_v) = f(x) + sum_v c_v J(x) tau_v.

    All g rows together cost one pass of f and one Jacobian-vector product per vector. Leaves that
    a vector lacks do not change.

    Args:
      apply: f, (params, inputs) -> outputs (b p).
      params0: theta_0.
      vectors: tau_v, trees of some or all leaves of params0.
      coefficients: c, a row for each edited model.
      inputs: a batch x, as `apply` takes it.

    Reference: tangent task arithmetic, Ortiz-Jimenez et al., 2023, eq. 2.

    Examples:
      >>> apply = lambda params, x: jnp.exp(x @ params["w"])
      >>> params0, tau = {"w": jnp.zeros((1, 1))}, {"w": jnp.ones((1, 1))}
      >>> oj.linearized_outputs(apply, params0, [tau], jnp.array([[0.5]]), jnp.ones((1, 1)))
      Array([[[1.5]]], dtype=float32)
    """
    outputs, push = jax.linearize(lambda params: apply(params, inputs), params0)
    still = jax.tree.map(jnp.zeros_like, params0)
    tangents = jnp.stack([push(apply_task_vector(still, vector)) for vector in vectors])
    return outputs + jnp.einsum("gv,vbp->gbp", coefficients.astype(tangents.dtype), tangents)


class Moment(NamedTuple):
    """When a step is taken.

    Attributes:
      step: its number, from 0.
      share: of all steps that are done; 1 for an optimiser without an end.
    """

    step: Int[Array, ""]
    share: Float[Array, ""]


class Mode(NamedTuple):
    """One way to fine-tune.

    Attributes:
      label: its name in tables, as in the paper.
      init: (params0, key) -> trainable, the tree that the optimiser updates; never params0's own
        buffers, because the train step donates it.
      delta: (trainable, params0) -> the update of the weights, which the penalty sees; a tree of
        the leaves that change, dense or `LowRank`. Multiplied out it is the task vector.
      forward: (apply, params0, trainable, inputs) -> outputs while training.
      outputs: (apply, params0, vectors, coefficients, inputs) -> outputs of the edited models, for
        evaluation of task vectors.
      whole: whether every leaf of params0 is trained.
      loss: (apply, params0, trainable, inputs, head, labels, moment) -> the loss of the task; None:
        the cross-entropy of what `forward` returns.
      penalised: (trainable, params0) -> the updates that penalties act on; None: that of `delta`.
    """

    label: str
    init: Callable[[Any, Any], Any]
    delta: Callable[[Any, Any], Any]
    forward: Callable[[Apply, Any, Any, Any], Any]
    outputs: Outputs = edited_outputs
    whole: bool = False
    loss: Callable[..., Any] | None = None
    penalised: Callable[[Any, Any], Sequence[Any]] | None = None


def only(patterns: tuple[str, ...], label: str) -> Mode:
    """Trains the leaves whose paths match a glob, and leaves the rest unchanged."""

    def delta(trainable: Trainable, params0: Params) -> Update:
        return task_vector(trainable, select(params0, patterns))

    def forward(apply: Apply, params0: Params, trainable: Trainable, inputs: Inputs) -> Any:
        return apply(replace(params0, trainable), inputs)

    return Mode(
        label=label,
        init=lambda params0, key: jax.tree.map(jnp.array, select(params0, patterns)),
        delta=delta,
        forward=forward,
    )
