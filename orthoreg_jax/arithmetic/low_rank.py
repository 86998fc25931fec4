"""Updates kept as two thin factors, as in LoRA, and what the factors alone can compute."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple, TypeGuard

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Inexact

from .precision import power_of_two, wide_type
from .types import TaskVector, Update


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, repr=False)
class LowRank:
    """A weight update dW = scale * left @ right of rank at most r; a node of a delta tree.

    In LoRA's notation, for kernels of shape (in, out): left is A^T, right is B^T, and scale is
    alpha / r. Leading axes stack matrices, as in any other leaf.

    Attributes:
      left: shape (..., m, r).
      right: shape (..., r, n).
      scale: a Python float.

    Reference: "LoRA: Low-Rank Adaptation of Large Language Models", ICLR 2022 (arXiv 2106.09685).

    Examples:
      >>> update = oj.LowRank(left=jnp.ones((4, 1)), right=jnp.ones((1, 3)), scale=0.5)
      >>> update.shape, update.rank
      ((4, 3), 1)
    """

    left: Inexact[Array, "*k m r"]
    right: Inexact[Array, "*k r n"]
    scale: float = dataclasses.field(default=1.0, metadata={"static": True})

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the update."""
        return (*self.left.shape[:-1], self.right.shape[-1])

    @property
    def rank(self) -> int:
        """Rank r of the factors."""
        return int(self.left.shape[-1])

    @property
    def dtype(self) -> Any:
        """Type of the factors."""
        return self.left.dtype

    def __repr__(self) -> str:
        left, right = (getattr(each, "shape", each) for each in (self.left, self.right))
        return f"LowRank(left={left}, right={right}, scale={self.scale:g})"

    def dense(self) -> Inexact[Array, "*k m n"]:
        """The update, multiplied out."""
        product = jnp.matmul(self.left, self.right, precision="highest")
        return product * jnp.asarray(self.scale, product.dtype)


def is_low_rank(node: Any) -> TypeGuard[LowRank]:
    """Whether a node of a tree is a `LowRank`; for `is_leaf=`."""
    return isinstance(node, LowRank)


def dense(delta: Update) -> TaskVector:
    """The tree with every `LowRank` node multiplied out, as in a task vector.

    Args:
      delta: a tree of arrays and `LowRank` nodes.

    Examples:
      >>> low = oj.LowRank(jnp.ones((3, 1)), jnp.ones((1, 2)), 0.5)
      >>> oj.dense({"w": low})["w"].tolist()
      [[0.5, 0.5], [0.5, 0.5], [0.5, 0.5]]
    """
    return jax.tree.map(
        lambda leaf: leaf.dense() if is_low_rank(leaf) else leaf, delta, is_leaf=is_low_rank
    )


class ScaledSquare(NamedTuple):
    """A number as unit^2 * relative, so that it does not overflow; see `power_of_two`."""

    unit: Float[Array, "*k"]
    relative: Float[Array, "*k"]


def squared_deviation(
    update: LowRank, precision: jax.lax.PrecisionLike = "highest"
) -> ScaledSquare:
    r"""|| G - I ||_F^2 of the smaller side's Gram matrix, by r x r algebra alone.

    With P = left^T left, Q = right right^T, scale s and smaller side n:
    s^4 tr((P Q)^2) - 2 s^2 tr(P Q) + n.
    """
    dtype = wide_type(update.dtype)
    left, right = update.left.astype(dtype), update.right.astype(dtype)
    inner = jnp.einsum("...mi,...mj->...ij", left, left, precision=precision)
    outer = jnp.einsum("...in,...jn->...ij", right, right, precision=precision)
    product = jnp.asarray(update.scale, dtype) ** 2 * jnp.matmul(inner, outer, precision=precision)
    unit = power_of_two(jnp.max(jnp.abs(product), axis=(-2, -1), initial=0))
    product = product / unit[..., None, None]
    fourth = jnp.sum(product * jnp.swapaxes(product, -1, -2), axis=(-2, -1))
    second = jnp.trace(product, axis1=-2, axis2=-1)
    return ScaledSquare(unit, fourth - 2 * second / unit + min(update.shape[-2:]) / unit**2)
