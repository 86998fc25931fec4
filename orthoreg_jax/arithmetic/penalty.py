"""The orthogonality penalty on weight updates, as a loss term and as an optax transformation."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from numbers import Real
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Inexact, Int

from .low_rank import LowRank, dense, is_low_rank, squared_deviation
from .matrices import as_matrices, read_updates, select_leaves
from .meshes import automatically_sharded
from .paths import flatten, leaf_path
from .precision import wide_type
from .rules import Matrix, Rules, Skip, is_masked, read_leaves
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
    the norm has a kink and E is nothing but rounding; it is right wherever the Gram is finite
    (entries up to about 1e18). Entries that are NaN or infinite, or whose Gram is, give a value and
    a gradient of their matrix that are not finite either, never a small one.
    Value and gradient can be differentiated in forward and reverse mode. The Gram is accumulated
    in float32 (float64 for float64 updates), whatever the type of the update. Updates may be
    sharded in any way, over meshes whose axes are Explicit, too.

    The penalty is of each update by itself: at 0 it says nothing of two tasks' updates, which may
    be the same.

    Args:
      delta: any pytree of updates, fine-tuned minus pre-trained weights. A `LowRank` node is never
        multiplied out, unless its rank is no smaller than a side or a rule gives it other axes.
        LoRA's factors that are two leaves (see `Adapter`) are given as they are, not as what they
        changed by: their product is the update.
      matrices: rules from path patterns to readings, for leaves that are not plain 2-D matrices
        (`describe_matrices` shows what is read how, `layer_rules` has those of stock layers).
        Integer and boolean leaves, biases, scales and embeddings are left out unless a rule says
        otherwise.
      form: "released" or "paper". Strengths do not carry over between them.
      precision: of the matrix products. TPUs and recent GPUs round float32 factors to fewer bits
        unless told "highest"; "default" is faster there and makes no difference on CPUs.

    Returns:
      The scalar to be multiplied by lambda and added to a loss. Where dW = 0 each matrix
      contributes sqrt(min(m, n)) (released) or n (paper).

    Raises:
      ValueError: an unknown form, leaves that need a rule and have none, a rule that fits no leaf
        or reads integers as a matrix, no matrix at all.

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
      >>> tasks = [{"kernel": jnp.eye(4, 3)}] * 2  # of two tasks that changed the same
      >>> print([float(oj.orthogonality_penalty(task)) for task in tasks], oj.cosine_matrix(tasks))
      [0.0, 0.0] [[1. 1.]
       [1. 1.]]
    """
    _check_form(form)
    return _sum_terms(select_leaves(delta, matrices), form, precision)


def _sum_terms(
    updates: Mapping[str, tuple[Any, Matrix]], form: str, precision: jax.lax.PrecisionLike
) -> Float[Array, ""]:
    def term(leaf: Any, reading: Matrix) -> Float[Array, ""]:
        if is_low_rank(leaf) and reading == Matrix() and leaf.rank < min(leaf.shape[-2:]):
            return _low_rank_penalty(leaf, form, precision).sum()
        return _penalty(as_matrices(jnp.asarray(dense(leaf)), reading), form, precision).sum()

    terms = [
        automatically_sharded(functools.partial(term, reading=reading), leaf)
        for leaf, reading in updates.values()
    ]
    return sum(terms[1:], start=terms[0])


class OrthogonalityPenaltyState(NamedTuple):
    """State of `add_orthogonality_penalty`.

    Attributes:
      count: updates made so far; the argument of a scheduled strength.
      anchor: pre-trained weights; leaves that are not penalised hold `optax.MaskedNode`. None
        if it is not kept.
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
    keep_anchor: bool = True,
) -> optax.GradientTransformationExtraArgs:
    """Adds the gradient of `strength * orthogonality_penalty(params - anchor)` to the updates.

    The same training as the penalty in the loss, without touching the loss. It must be the first
    of a chain, where updates still are gradients of the loss, ahead of clipping and of the
    optimiser. Factors that a rule reads as an `Adapter` count by what their product changed.

    Inside `optax.masked` or `optax.multi_transform` anchor and rules may be those of the whole
    model: what is masked out is passed over.

    Args:
      strength: lambda, a float or an optax schedule of the number of updates made.
      anchor: pre-trained weights, a pytree like the parameters. Default: the parameters that
        `init` is given. Leaves that are penalised are copied into the state, so that parameters
        and state may both be donated.
      matrices: see `orthogonality_penalty`.
      form: see `orthogonality_penalty`.
      precision: see `orthogonality_penalty`.
      keep_anchor: False keeps no copy in the state, which a checkpoint of it then does not hold
        either; each `update` is given one:
        `optimizer.update(gradients, state, params, anchor=pretrained)`.

    Returns:
      A transformation whose `update` needs `params`.

    Raises:
      ValueError: a strength that is no number of 0 or more; as `orthogonality_penalty`, when `init`
        is called; `update` without params, or without the anchor that is not kept; an anchor of
        another structure or shape, or one that was donated.

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
    _check_strength(strength)
    if anchor is not None and not keep_anchor:
        raise ValueError(
            "keep_anchor=False: the anchor is given to each `update`, as "
            "optimizer.update(gradients, state, params, anchor=pretrained); leave it out here"
        )

    def penalty(params: Any, anchor: Any) -> Float[Array, ""]:
        new, old = (read_updates(flatten(tree, is_low_rank), matrices) for tree in (params, anchor))
        updates = {path: (_change(leaf, old[path][0]), each) for path, (leaf, each) in new.items()}
        return _sum_terms(updates, form, precision)

    # Compiled by itself where an update is not: what is sharded explicitly has a gradient there
    # without a mesh in context.
    penalty_and_slope = jax.jit(jax.value_and_grad(penalty))

    def penalised(params: Any, leaves: Any) -> Any:
        """The leaves that matrices are read from, `optax.MaskedNode` in place of the others."""
        readings = read_leaves(flatten(params, is_low_rank), matrices)
        return jax.tree.map_with_path(
            lambda path, _, leaf: (
                leaf
                if not isinstance(readings.get(leaf_path(path), Skip("masked")), Skip)
                else optax.MaskedNode()
            ),
            params,
            leaves,
            is_leaf=_is_node,
        )

    def init(params: Any) -> OrthogonalityPenaltyState:
        source = params if anchor is None else _like(params, anchor)
        _check_there(params, "params")
        _check_there(source, "anchor")
        check_same(params, source, ("params", "anchor"))
        select_leaves(params, matrices)  # for its checks
        kept = penalised(params, source)
        value = jax.eval_shape(penalty, kept, kept)
        kept = jax.tree.map(jnp.array, kept) if keep_anchor else None
        return OrthogonalityPenaltyState(jnp.zeros((), jnp.int32), kept, jnp.zeros((), value.dtype))

    def update(
        updates: Any,
        state: OrthogonalityPenaltyState,
        params: Any = None,
        *,
        anchor: Any = None,
        **others: Any,
    ) -> Any:
        del others  # of other transformations of the chain
        if params is None:
            raise ValueError(
                "add_orthogonality_penalty acts on the parameters: call "
                "optimizer.update(gradients, state, params)"
            )
        if (anchor is None) != keep_anchor:
            raise ValueError(
                "update(..., anchor=...): the state has the anchor already; leave it out, or make "
                "the transformation with keep_anchor=False"
                if keep_anchor
                else "keep_anchor=False: call "
                "optimizer.update(gradients, state, params, anchor=pretrained)"
            )
        if not keep_anchor:
            anchor = _like(params, anchor)
            check_same(params, anchor, ("params", "anchor"))
        old = state.anchor if keep_anchor else penalised(params, anchor)
        new = jax.tree.map(
            lambda old, new: optax.MaskedNode() if is_masked(old) else new,
            old,
            params,
            is_leaf=is_masked,
        )
        value, gradient = penalty_and_slope(new, old)
        scale = jnp.asarray(strength(state.count) if callable(strength) else strength)
        updates = jax.tree.map(
            lambda slope, update: (
                update
                if is_masked(slope)
                else update + (scale.astype(slope.dtype) * slope).astype(update.dtype)
            ),
            gradient,
            updates,
            is_leaf=is_masked,
        )
        count = optax.safe_increment(state.count)
        return updates, OrthogonalityPenaltyState(count, state.anchor, value)

    return optax.GradientTransformationExtraArgs(init, update)


def _is_node(node: Any) -> bool:
    return is_masked(node) or is_low_rank(node)


def _change(new: Any, old: Any) -> Any:
    """The update from old to new weights; of products by the factors alone."""
    if not is_low_rank(new):
        return new - old
    left = jnp.concatenate([new.left, -old.left], axis=-1)
    right = jnp.concatenate([new.right, old.right], axis=-2)
    return LowRank(left, right, new.scale)


def _like(params: Any, anchor: Any) -> Any:
    """The anchor without the leaves that a mask takes out of the parameters."""
    try:
        return jax.tree.map(
            lambda param, old: param if is_masked(param) else old,
            params,
            anchor,
            is_leaf=is_masked,
        )
    except ValueError:
        return anchor  # of another structure: the check names the leaves


def _check_there(tree: Any, name: str) -> None:
    gone = [path for path, leaf in flatten(tree).items() if _is_donated(leaf)]
    if gone:
        raise ValueError(
            f"{name}: the memory of {len(gone)} leaves was donated to an earlier step, the first "
            f"is {gone[0]!r}; initialise the optimiser ahead of the first step, or with a copy "
            "that no step is given: jax.tree.map(jnp.copy, params)"
        )


def _is_donated(leaf: Any) -> bool:
    is_array = isinstance(leaf, jax.Array) and not isinstance(leaf, jax.core.Tracer)
    return is_array and leaf.is_deleted()


def _check_strength(strength: Any) -> None:
    if callable(strength):
        return
    number = isinstance(strength, Real | jax.Array | np.ndarray)
    if not number or np.shape(strength) != ():
        came = repr(strength) if strength is None or isinstance(strength, str) else None
        came = came or f"{type(strength).__name__} of shape {np.shape(strength)}"
        raise ValueError(
            f"strength is {came}; give lambda as one finite number, 0 or more, or as a schedule of "
            "the number of updates"
        )
    if not isinstance(strength, jax.core.Tracer) and not 0 <= strength < math.inf:
        raise ValueError(f"strength {strength}; a penalty needs a finite number, 0 or more")


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
    deviation = _deviation(matrices, precision)
    if form == "released":
        norm = _norm(deviation)
        return norm.unit * norm.relative
    return _squared(deviation, matrices.shape)


@_penalty.defjvp
def _penalty_jvp(form: str, precision: jax.lax.PrecisionLike, primals: Any, tangents: Any) -> Any:
    (matrices,), (tangent,) = primals, tangents
    deviation = _deviation(matrices, precision)
    if form == "paper":
        value = _squared(deviation, matrices.shape)
        scaled = deviation * 4.0
    else:
        norm = _norm(deviation)
        value = norm.unit * norm.relative
        # Below this, ||E|| is the rounding of the Gram's sums: no direction to be taken from it.
        rounding = jnp.finfo(deviation.dtype).eps * deviation.shape[-1]
        small = value <= rounding
        factor = jnp.where(small, 0.0, 2.0 / jnp.where(small, 1.0, norm.relative))
        scaled = deviation / norm.unit[:, None, None] * factor[:, None, None]
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


class _Norm(NamedTuple):
    """|| E ||_F as unit * relative, the unit a power of 2; NaN where an entry is not finite."""

    unit: Float[Array, " k"]
    relative: Float[Array, " k"]


def _norm(deviation: Float[Array, "k s s"]) -> _Norm:
    largest = jnp.max(jnp.abs(jax.lax.stop_gradient(deviation)), axis=(1, 2))
    _, exponent = jnp.frexp(largest)
    # Squares of E overflow long before E does; at the sizes of training the unit is 1.
    power = jnp.ldexp(jnp.ones_like(largest), exponent - 1)
    unit = jnp.where(largest > 2.0**40, power, 1.0)
    unit = jnp.where(jnp.isfinite(largest), unit, jnp.nan)
    squared = jnp.sum(jnp.square(deviation / unit[:, None, None]), axis=(1, 2))
    # sqrt has no derivative at 0: keep it out of second derivatives at orthonormal updates.
    zero = squared == 0
    return _Norm(unit, jnp.where(zero, 0.0, jnp.sqrt(jnp.where(zero, 1.0, squared))))


def _squared(deviation: Float[Array, "k s s"], shape: tuple[int, ...]) -> Float[Array, " k"]:
    # || X^T X - I_n ||^2 = || X X^T - I_m ||^2 + n - m, so the smaller Gram serves wide ones too.
    return jnp.sum(jnp.square(deviation), axis=(1, 2)) + max(0, shape[-1] - shape[-2])
