"""The orthogonality penalty on weight updates, as a loss term and as an optax transformation."""

from __future__ import annotations

import functools
import math
from numbers import Real
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Inexact, Int

from .low_rank import LowRank, dense, is_low_rank, squared_deviation
from .matrices import Matrix, Rules, as_matrices, read_leaf, select_leaves
from .paths import leaf_path
from .precision import wide_type
from .task_vectors import check_same

FORMS = ("released", "paper")


def orthogonality_penalty(
    delta: Any,
    *,
    matrices: Rules | None = None,
    form: str = "released",
    precision: jax.lax.PrecisionLike = "highest",
) -> Float[Array, ""]:
    r"""Distance of each weight update from orthonormal columns, summed over the matrices.

    With G the Gram matrix of an update dW of m rows and n columns (kernels are (in, out), so
    columns are the output features):

    * "released":  sum_l || G_l - I ||_F, with G_l of the *smaller* side (dW^T dW if m >= n, else
      dW dW^T): the authors' released code. Does not change when an update is transposed.
    * "paper":  sum_l || dW_l^T dW_l - I ||_F^2, Gram over columns (equation 8 of the paper).

    The gradient is the closed form, 2 dW E / ||E||_F or 4 dW E with E = G - I: two matrix products
    in all. It is exactly 0 at dW = 0 and, in the released form, at an orthonormal dW too, where
    the norm has a kink and E is nothing but rounding; it is never NaN where the Gram is finite.
    Value and gradient can be differentiated in forward and reverse mode. The Gram is accumulated
    in float32 (float64 for float64 updates), whatever the type of the update.

    Args:
      delta: any pytree of updates, fine-tuned minus pre-trained weights. A `LowRank` node is never
        multiplied out, unless its rank is no smaller than a side or a rule gives it other axes.
      matrices: rules from path patterns to readings, for leaves that are not plain 2-D matrices
        (`describe_matrices` shows what is read how).
      form: "released" or "paper". Strengths do not carry over between them.
      precision: of the matrix products. TPUs and recent GPUs round float32 factors to fewer bits
        unless told "highest"; "default" is faster there and makes no difference on CPUs.

    Returns:
      The scalar to be multiplied by lambda and added to a loss. Where dW = 0 each matrix
      contributes sqrt(min(m, n)) (released) or n (paper).

    Raises:
      ValueError: an unknown form, a leaf that needs a rule and has none, a rule that fits no leaf,
        no matrix at all.

    Reference: "Understanding and Enforcing Weight Disentanglement in Task Arithmetic", CVPR 2026
      (arXiv 2604.17078), equation 8.

    Examples:
      >>> update = {"bias": jnp.ones(3), "kernel": jnp.zeros((4, 3))}
      >>> print(oj.orthogonality_penalty(update))  # sqrt(3)
      1.7320508
      >>> print(oj.orthogonality_penalty(update, form="paper"))
      3.0
      >>> print(oj.orthogonality_penalty({"kernel": jnp.eye(4, 3)}))  # orthonormal columns
      0.0
    """
    _check_form(form)
    terms = []
    for leaf, reading in select_leaves(delta, matrices).values():
        if is_low_rank(leaf) and reading == Matrix() and leaf.rank < min(leaf.shape[-2:]):
            terms.append(_low_rank_penalty(leaf, form, precision).sum())
        else:
            terms.append(_penalty(as_matrices(dense(leaf), reading), form, precision).sum())
    return sum(terms[1:], start=terms[0])


class OrthogonalityPenaltyState(NamedTuple):
    """State of `add_orthogonality_penalty`.

    Attributes:
      count: updates made so far; the argument of a scheduled strength.
      anchor: pre-trained weights; leaves that are not penalised hold `optax.MaskedNode`.
      penalty: the penalty, not multiplied by the strength, at the last update; for logs.
    """

    count: Int[Array, ""]  # type: ignore[assignment]  # optax's name for it
    anchor: Any
    penalty: Float[Array, ""]


def add_orthogonality_penalty(
    strength: optax.ScalarOrSchedule,
    anchor: Any = None,
    *,
    matrices: Rules | None = None,
    form: str = "released",
    precision: jax.lax.PrecisionLike = "highest",
) -> optax.GradientTransformation:
    """Adds the gradient of `strength * orthogonality_penalty(params - anchor)` to the updates.

    The same training as the penalty in the loss, without touching the loss. It must be the first
    of a chain, where updates still are gradients of the loss, ahead of clipping and of the
    optimiser.

    Args:
      strength: lambda, a float or an optax schedule of the number of updates made.
      anchor: pre-trained weights, a pytree like the parameters. Default: the parameters that
        `init` is given. Leaves that are penalised are copied into the state, so that parameters
        and state may both be donated.
      matrices: see `orthogonality_penalty`.
      form: see `orthogonality_penalty`.
      precision: see `orthogonality_penalty`.

    Returns:
      A transformation whose `update` needs `params`.

    Raises:
      ValueError: a negative strength; as `orthogonality_penalty`, when `init` is called; `update`
        without params; an anchor of another structure or shape.

    Examples:
      >>> params = {"kernel": jnp.ones((4, 3))}
      >>> optimizer = optax.chain(oj.add_orthogonality_penalty(0.1), optax.adamw(1e-3))
      >>> state = optimizer.init(params)  # remembers them as the pre-trained weights
      >>> gradients = jax.tree.map(jnp.ones_like, params)
      >>> updates, state = optimizer.update(gradients, state, params)
      >>> print(state[0].penalty)  # nothing has changed yet: sqrt(3)
      1.7320508
    """
    _check_form(form)
    known = isinstance(strength, Real | jax.Array) and not isinstance(strength, jax.core.Tracer)
    if known and not 0 <= strength < math.inf:
        raise ValueError(f"strength {strength}; a penalty needs a finite number, 0 or more")
    term = functools.partial(
        orthogonality_penalty, matrices=matrices, form=form, precision=precision
    )

    def init(params: Any) -> OrthogonalityPenaltyState:
        source = params if anchor is None else anchor
        check_same(params, source, ("params", "anchor"))
        penalised = jax.tree.map_with_path(
            lambda path, leaf: isinstance(
                read_leaf(leaf_path(path), jnp.shape(leaf), matrices), Matrix
            ),
            params,
        )
        value = jax.eval_shape(term, source)
        kept = jax.tree.map(
            lambda keep, leaf: jnp.array(leaf) if keep else optax.MaskedNode(), penalised, source
        )
        return OrthogonalityPenaltyState(jnp.zeros((), jnp.int32), kept, jnp.zeros((), value.dtype))

    def update(updates: Any, state: OrthogonalityPenaltyState, params: Any = None) -> Any:
        if params is None:
            raise ValueError(
                "add_orthogonality_penalty acts on the parameters: call "
                "optimizer.update(gradients, state, params)"
            )

        def penalty(params: Any) -> Float[Array, ""]:
            # Leaves without an anchor are those that no matrix is read from.
            delta = jax.tree.map(
                lambda old, new: new if _masked(old) else new - old,
                state.anchor,
                params,
                is_leaf=_masked,
            )
            return term(delta)

        value, gradient = jax.value_and_grad(penalty)(params)
        scale = jnp.asarray(strength(state.count) if callable(strength) else strength)
        updates = jax.tree.map(
            lambda old, update, slope: (
                update
                if _masked(old)
                else update + (scale.astype(slope.dtype) * slope).astype(update.dtype)
            ),
            state.anchor,
            updates,
            gradient,
            is_leaf=_masked,
        )
        count = optax.safe_increment(state.count)
        return updates, OrthogonalityPenaltyState(count, state.anchor, value)

    return optax.GradientTransformation(init, update)


def _masked(node: Any) -> bool:
    return isinstance(node, optax.MaskedNode)


def _check_form(form: str) -> None:
    if form not in FORMS:
        raise ValueError(f"form {form!r}; allowed: {', '.join(map(repr, FORMS))}")


def _low_rank_penalty(
    update: LowRank, form: str, precision: jax.lax.PrecisionLike
) -> Float[Array, "*k"]:
    # The rank is below both sides, so ||G - I||^2 >= side - rank >= 1: no kink to mind.
    squared = squared_deviation(update, precision)
    if form == "released":
        return jnp.sqrt(squared)
    return squared + max(0, update.shape[-1] - update.shape[-2])


# A custom derivative, because plain autodiff makes three matrix products where two are enough and
# NaN at an orthonormal update. As a JVP rule it serves forward and reverse mode alike.
@functools.partial(jax.custom_jvp, nondiff_argnums=(1, 2))
def _penalty(
    matrices: Inexact[Array, "k m n"], form: str, precision: jax.lax.PrecisionLike
) -> Float[Array, " k"]:
    """The penalty of each of k matrices."""
    return _value(_deviation(matrices, precision), matrices.shape, form)


@_penalty.defjvp
def _penalty_jvp(form: str, precision: jax.lax.PrecisionLike, primals: Any, tangents: Any) -> Any:
    (matrices,), (tangent,) = primals, tangents
    deviation = _deviation(matrices, precision)
    value = _value(deviation, matrices.shape, form)
    if form == "paper":
        factor = jnp.full_like(value, 4.0)
    else:
        # Below this, ||E|| is the rounding of the Gram's sums: no direction to be taken from it.
        rounding = jnp.finfo(deviation.dtype).eps * deviation.shape[-1]
        norm = jnp.where(value > rounding, value, 1.0)
        factor = jnp.where(value > rounding, 2.0 / norm, 0.0)
    scaled = deviation * factor[:, None, None]
    wide = matrices.astype(deviation.dtype)
    # dW E on the side where the Gram was taken; the tangent meets the gradient entry by entry.
    factors = (wide, scaled) if _over_columns(matrices.shape) else (scaled, wide)
    gradient = jnp.matmul(*factors, precision=precision)
    return value, jnp.sum(gradient * tangent.astype(gradient.dtype), axis=(1, 2))


def _over_columns(shape: tuple[int, ...]) -> bool:
    return shape[-2] >= shape[-1]


def _deviation(
    matrices: Inexact[Array, "k m n"], precision: jax.lax.PrecisionLike
) -> Float[Array, "k s s"]:
    """E = G - I, G the Gram of the smaller side s."""
    dtype = wide_type(matrices.dtype)
    equation = "kij,kil->kjl" if _over_columns(matrices.shape) else "kij,klj->kil"
    gram = jnp.einsum(
        equation, matrices, matrices, precision=precision, preferred_element_type=dtype
    )
    return gram - jnp.eye(gram.shape[-1], dtype=dtype)


def _value(
    deviation: Float[Array, "k s s"], shape: tuple[int, ...], form: str
) -> Float[Array, " k"]:
    squared = jnp.sum(jnp.square(deviation), axis=(1, 2))
    if form == "released":
        # sqrt has no derivative at 0: keep it out of second derivatives at orthonormal updates.
        positive = squared > 0
        return jnp.where(positive, jnp.sqrt(jnp.where(positive, squared, 1.0)), 0.0)
    # || X^T X - I_n ||^2 = || X X^T - I_m ||^2 + n - m, so the smaller Gram serves wide ones too.
    return squared + max(0, shape[-1] - shape[-2])
