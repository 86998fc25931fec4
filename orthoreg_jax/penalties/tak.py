"""TAK: quadratic forms of weight updates with Kronecker-factored matrices, layer by layer."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Inexact

from orthoreg_jax.arithmetic.low_rank import LowRank, dense, is_low_rank
from orthoreg_jax.arithmetic.paths import flatten
from orthoreg_jax.arithmetic.precision import wide_type
from orthoreg_jax.arithmetic.types import Update


class Kronecker(NamedTuple):
    """The two factors of one layer's curvature; leading axes stack layers.

    Attributes:
      inputs: A = E[a a^T], of the inputs, which end with a 1 if the layer has a bias.
      outputs: B = E[g g^T], of the slopes of a random projection of the model's outputs by the
        layer's outputs.

    Examples:
      >>> oj.Kronecker(inputs=jnp.eye(5), outputs=jnp.eye(3)).outputs.shape
      (3, 3)
    """

    inputs: Float[Array, "*k m m"]
    outputs: Float[Array, "*k n n"]

    def __repr__(self) -> str:
        inputs, outputs = (getattr(each, "shape", each) for each in self)
        return f"Kronecker(inputs={inputs}, outputs={outputs})"


Factors = Mapping[str, Kronecker]  # by path of a layer, or of a vector


def kronecker_penalty(
    delta: Update, factors: Factors, *, precision: jax.lax.PrecisionLike = "highest"
) -> Float[Array, ""]:
    r"""sum_l tr(dW_l^T A_l dW_l B_l), an approximation of E_x || J(x) tau ||^2 without any x.

    Kernels are (in, out). A layer's bias is the last row of dW; if the update has no bias, the last
    row and column of A are dropped. Gradient: 2 A dW B, two matrix products in all. The factors are
    constants and get no gradient. A `LowRank` update is multiplied out only if its layer has a
    bias.

    Args:
      delta: any pytree of updates, fine-tuned minus pre-trained weights.
      factors: factors by path: that of a layer, with leaves PATH/kernel and PATH/bias, or that of a
        vector leaf, read as a matrix of one row. Factors without an update are ignored, and so are
        updates without factors.
      precision: precision of the matrix products.

    Returns:
      The scalar to multiply by lambda and add to a loss; 0 for an update of zeros.

    Raises:
      ValueError: no factor matches the update.

    Reference: "Dataless Weight Disentanglement in Task Arithmetic via Kronecker-Factored
      Approximate Curvature" (TAK), ICLR 2026 (arXiv 2602.17385), equation 8.

    Examples:
      >>> factors = {"layer": oj.Kronecker(jnp.diag(jnp.array([1.0, 4.0])), jnp.eye(1))}
      >>> print(oj.kronecker_penalty({"layer": {"kernel": jnp.ones((2, 1))}}, factors))
      5.0
    """
    leaves = flatten(delta, is_low_rank)
    terms = []
    for name, (inputs, outputs) in factors.items():
        update, inputs = _read(leaves, name, inputs)
        if update is not None:
            form = _low_rank_form if is_low_rank(update) else _form
            terms.append(form(update, inputs, outputs, precision).sum())
    if not terms:
        raise ValueError(
            f"factors: none matches the update; they are for {', '.join(factors) or 'nothing'}, "
            f"but the update's leaves are {', '.join(leaves)}"
        )
    return sum(terms[1:], start=terms[0])


def merge_kronecker(factors: Sequence[Factors]) -> dict[str, Kronecker]:
    """One pair of factors for several tasks: sum_t A_t (x) B_t ~ mean_t(A_t) (x) sum_t(B_t).

    Exact if the tasks share A or B. The cost of the penalty does not depend on the number of tasks.

    Args:
      factors: the factors of each task, all of the same layers.

    Raises:
      ValueError: there is no task, or the tasks have different layers.

    Reference: arXiv 2602.17385, equation 8.

    Examples:
      >>> tasks = [{"layer": oj.Kronecker(jnp.eye(2), scale * jnp.eye(1))} for scale in (1.0, 3.0)]
      >>> merged = oj.merge_kronecker(tasks)["layer"]
      >>> merged.inputs.tolist(), merged.outputs.tolist()
      ([[1.0, 0.0], [0.0, 1.0]], [[4.0]])
    """
    if not factors or any(set(each) != set(factors[0]) for each in factors):
        raise ValueError(
            f"factors of {len(factors)} tasks; give at least one task, all with the same layers"
        )
    return {
        name: Kronecker(
            jnp.mean(jnp.stack([each[name].inputs for each in factors]), axis=0),
            jnp.sum(jnp.stack([each[name].outputs for each in factors]), axis=0),
        )
        for name in factors[0]
    }


def _read(leaves: Mapping[str, Any], name: str, inputs: Any) -> tuple[Any, Any]:
    """A layer's or vector's update as matrices (None if it has none), and A for its rows."""
    if name in leaves:
        return leaves[name][..., None, :], inputs
    kernel, bias = leaves.get(f"{name}/kernel"), leaves.get(f"{name}/bias")
    if bias is None:
        rows = 0 if kernel is None else kernel.shape[-2]
        return kernel, inputs[..., :rows, :rows]
    row = bias[..., None, :]
    if kernel is None:
        return row, inputs[..., -1:, -1:]
    return jnp.concatenate([dense(kernel), row], axis=-2), inputs


# Plain autodiff takes four products where two are enough.
@functools.partial(jax.custom_jvp, nondiff_argnums=(3,))
def _form(
    update: Inexact[Array, "*k m n"],
    inputs: Float[Array, "*k m m"],
    outputs: Float[Array, "*k n n"],
    precision: jax.lax.PrecisionLike,
) -> Float[Array, "*k"]:
    return _form_and_half_slope(update, inputs, outputs, precision)[0]


@_form.defjvp
def _form_jvp(precision: jax.lax.PrecisionLike, primals: Any, tangents: Any) -> Any:
    update, inputs, outputs = primals
    value, half = _form_and_half_slope(update, inputs, outputs, precision)
    return value, 2 * jnp.sum(half * tangents[0].astype(half.dtype), axis=(-2, -1))


def _form_and_half_slope(update: Update, inputs: Any, outputs: Any, precision: Any) -> Any:
    """The value of the form, and A dW B, half its gradient."""
    wide = update.astype(wide_type(update.dtype))
    product = jnp.matmul(inputs.astype(wide.dtype), wide, precision=precision)
    product = jnp.matmul(product, outputs.astype(wide.dtype), precision=precision)
    return jnp.sum(wide * product, axis=(-2, -1)), product


def _low_rank_form(
    update: LowRank, inputs: Any, outputs: Any, precision: jax.lax.PrecisionLike
) -> Float[Array, "*k"]:
    """s^2 tr((L^T A L) (R B R^T)), by products with the thin factors alone."""
    dtype = wide_type(update.dtype)
    left, right = update.left.astype(dtype), update.right.astype(dtype)
    product = functools.partial(jnp.einsum, precision=precision)
    inner = product(
        "...mi,...mj->...ij", left, jnp.matmul(inputs.astype(dtype), left, precision=precision)
    )
    outer = product(
        "...in,...jn->...ij", right, jnp.matmul(right, outputs.astype(dtype), precision=precision)
    )
    return update.scale**2 * jnp.sum(inner * jnp.swapaxes(outer, -1, -2), axis=(-2, -1))
