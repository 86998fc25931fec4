"""OrthoReg as an optax transformation, for training loops that keep their loss unchanged."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from orthoreg_jax.arithmetic.low_rank import LowRank, is_low_rank
from orthoreg_jax.arithmetic.matrices import read_updates, select_leaves
from orthoreg_jax.arithmetic.paths import flatten, leaf_path
from orthoreg_jax.arithmetic.rules import Rules, Skip, is_masked, read_leaves
from orthoreg_jax.arithmetic.task_vectors import check_same
from orthoreg_jax.arithmetic.types import Params, PyTree, Update

from .orthoreg import check_form, sum_terms


class OrthogonalityPenaltyState(NamedTuple):
    """State of `add_orthogonality_penalty`.

    Attributes:
      count: updates made so far; the argument of a scheduled strength.
      anchor: pre-trained weights, with `optax.MaskedNode` for leaves that are not penalised. None
        if the state does not keep it.
      penalty: for logs: the penalty of the parameters that the last update was made from, not
        multiplied by the strength; 0 before the first.
    """

    count: Int[Array, ""]  # type: ignore[assignment]  # optax's name for it
    anchor: Any
    penalty: Float[Array, ""]


def add_orthogonality_penalty(
    strength: optax.ScalarOrSchedule,
    anchor: Params = None,
    *,
    matrices: Rules | None = None,
    form: str = "released",
    precision: jax.lax.PrecisionLike = "highest",
    keep_anchor: bool = True,
) -> optax.GradientTransformationExtraArgs:
    """Adds the gradient of `strength * orthogonality_penalty(params - anchor)` to the updates.

    Trains exactly as the penalty in the loss does, without a change to the loss. It must be the
    first in a chain, before clipping and the optimiser, where updates are still gradients of the
    loss. For factors that a rule reads as an `Adapter`, the update is the change of their product
    since `init`; a term of the loss has the whole product. Where one factor was 0, they are equal.

    Inside `optax.masked` or `optax.multi_transform`, anchor and rules may be those of the whole
    model: leaves that are masked out are skipped.

    Args:
      strength: lambda, a float or an optax schedule of the number of updates made.
      anchor: pre-trained weights, a pytree like the parameters. Default: the parameters that
        `init` is given. Penalised leaves are copied into the state, so that parameters and state
        may both be donated.
      matrices: see `orthogonality_penalty`.
      form: see `orthogonality_penalty`.
      precision: see `orthogonality_penalty`.
      keep_anchor: False keeps no copy in the state, nor in its checkpoints; pass one to each
        `update` instead: `optimizer.update(gradients, state, params, anchor=pretrained)`.

    Returns:
      A transformation whose `update` needs `params`.

    Raises:
      ValueError: the strength is not a number of 0 or more; `init` gets a tree that
        `orthogonality_penalty` refuses; `update` gets no params, or no anchor where the state
        keeps none; the anchor has another structure or shape, or was donated.

    Examples:
      >>> params = {"kernel": jnp.ones((4, 3))}
      >>> optimizer = optax.chain(oj.add_orthogonality_penalty(0.1), optax.adamw(1e-3))
      >>> state = optimizer.init(params)  # remembers them as the pre-trained weights
      >>> gradients = jax.tree.map(jnp.ones_like, params)
      >>> updates, state = optimizer.update(gradients, state, params)
      >>> print(state[0].penalty)  # nothing has changed yet: sqrt(3)
      1.7320508
    """
    check_form(form)
    _check_strength(strength)
    if anchor is not None and not keep_anchor:
        raise ValueError(
            "keep_anchor=False: pass the anchor to each `update`, as optimizer.update(gradients, "
            "state, params, anchor=pretrained); leave it out here"
        )

    def penalty(params: Params, anchor: Params) -> Float[Array, ""]:
        new, old = (read_updates(flatten(tree, is_low_rank), matrices) for tree in (params, anchor))
        updates = {path: (_change(leaf, old[path][0]), each) for path, (leaf, each) in new.items()}
        return sum_terms(updates, form, precision)

    # Compiled, even where the update is not: inside jit, explicitly sharded arrays have a gradient
    # without a mesh in context.
    penalty_and_slope = jax.jit(jax.value_and_grad(penalty))

    def penalised(params: Params, leaves: Any) -> PyTree:
        """The leaves that contain matrices, with `optax.MaskedNode` in place of the others."""
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

    def init(params: Params) -> OrthogonalityPenaltyState:
        source = params if anchor is None else _like(params, anchor)
        _check_not_donated(params, "params")
        _check_not_donated(source, "anchor")
        check_same(params, source, ("params", "anchor"))
        select_leaves(params, matrices)  # for its checks
        kept = penalised(params, source)
        value = jax.eval_shape(penalty, kept, kept)
        kept = jax.tree.map(jnp.array, kept) if keep_anchor else None
        return OrthogonalityPenaltyState(jnp.zeros((), jnp.int32), kept, jnp.zeros((), value.dtype))

    def update(
        updates: Update,
        state: OrthogonalityPenaltyState,
        params: Params = None,
        *,
        anchor: Params = None,
        **others: Any,
    ) -> Any:
        del others  # arguments for other transformations in the chain
        if params is None:
            raise ValueError(
                "add_orthogonality_penalty needs the parameters: call "
                "optimizer.update(gradients, state, params)"
            )
        if (anchor is None) != keep_anchor:
            raise ValueError(
                "update(..., anchor=...): the state already has the anchor; leave it out, or "
                "create the transformation with keep_anchor=False"
                if keep_anchor
                else "keep_anchor=False: call "
                "optimizer.update(gradients, state, params, anchor=pretrained)"
            )
        check_same(params, updates, ("params", "updates"))
        if not keep_anchor:
            anchor = _like(params, anchor)
            check_same(params, anchor, ("params", "anchor"))
        old = state.anchor if keep_anchor else penalised(params, anchor)
        _check_as_at_init(params, old)
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
        count: Any = optax.safe_increment(state.count)
        return updates, OrthogonalityPenaltyState(count, state.anchor, value)

    # optax declares a state to be any tree; ours is a type of its own.
    return optax.GradientTransformationExtraArgs(init, update)  # type: ignore[arg-type]


def _is_node(node: Any) -> bool:
    return is_masked(node) or is_low_rank(node)


def _change(new: Any, old: Any) -> Any:
    """The update from old to new weights; for products, from the factors alone.

    A B - A_0 B_0 = (A - A_0) B + A_0 (B - B_0): the difference of the products themselves would
    cancel all digits of a small change.
    """
    if not is_low_rank(new):
        return new - old
    left = jnp.concatenate([new.left - old.left, old.left], axis=-1)
    right = jnp.concatenate([new.right, new.right - old.right], axis=-2)
    return LowRank(left, right, new.scale)


def _like(params: Params, anchor: Params) -> Params:
    """The anchor without the leaves that a mask removes from the parameters."""
    try:
        return jax.tree.map(
            lambda param, old: param if is_masked(param) else old,
            params,
            anchor,
            is_leaf=is_masked,
        )
    except ValueError:
        return anchor  # its structure differs: the check names the leaves


def _check_as_at_init(params: Params, anchor: Params) -> None:
    """Checks that the parameters have the leaves of the anchor, which has the penalised ones."""
    now = {path: jnp.shape(leaf) for path, leaf in flatten(params).items()}
    for path, leaf in flatten(anchor).items():
        if now.get(path) != jnp.shape(leaf):
            came = f"the shape {now[path]}" if path in now else "no such leaf"
            raise ValueError(
                f"leaf {path!r} had the shape {jnp.shape(leaf)} when the optimiser was "
                f"initialised, and params have {came}; initialise it with these parameters"
            )


def _check_not_donated(tree: PyTree, name: str) -> None:
    gone = [path for path, leaf in flatten(tree).items() if _is_donated(leaf)]
    if gone:
        raise ValueError(
            f"{name}: the memory of {len(gone)} leaves was donated to an earlier step (first: "
            f"{gone[0]!r}); initialise the optimiser before the first step, or with a copy that "
            "is never donated: jax.tree.map(jnp.copy, params)"
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
            f"strength is {came}; give lambda as one finite number, 0 or more, or as a schedule "
            "over the number of updates"
        )
    if not isinstance(strength, jax.core.Tracer) and not 0 <= strength < math.inf:
        raise ValueError(f"strength {strength}; a penalty needs a finite number, 0 or more")
