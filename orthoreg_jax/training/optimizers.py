"""What fine-tuning may take in place of Adam, before weight decay and learning rate."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from orthoreg_jax.arithmetic.types import Params, Update

MOMENTUM = 0.95
RMS = 0.2  # of an update's entries, near Adam's
COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the Newton-Schulz iteration, as published
STEPS = 5
KERNELS = ("kernel", "a", "b")  # of linear layers; the latter two are LoRA's factors


def muon() -> optax.GradientTransformation:
    """Muon on the kernels of linear layers and LoRA's factors; Adam on everything else.

    The Nesterov momentum of a matrix of m rows and n columns is replaced by the orthonormal matrix
    near it that five Newton-Schulz steps find, times 0.2 sqrt(max(m, n)): its entries are as large
    as those of an Adam update, so that learning rate and weight decay keep their meaning. Each
    layer of a stacked kernel is a matrix; query, key and value are one, as for the penalty.
    `optax.contrib.muon(consistent_rms=0.2)` does the same, but for the correction of its first
    steps' momentum; it needs a newer optax than we do.

    Reference: "Muon: An optimizer for hidden layers in neural networks", 2024; its size: "Muon is
      Scalable for LLM Training", 2025 (arXiv 2502.16982).
    """

    def kinds(params: Params) -> Any:
        return jax.tree.map_with_path(
            lambda path, leaf: "muon" if leaf.ndim >= 2 and path[-1].key in KERNELS else "adam",
            params,
        )

    return optax.multi_transform({"muon": _scale_by_muon(), "adam": optax.scale_by_adam()}, kinds)


def _scale_by_muon() -> optax.GradientTransformation:
    def init(params: Params) -> Params:
        return jax.tree.map(jnp.zeros_like, params)

    def update(updates: Update, state: Params, params: Params = None) -> Any:
        del params
        state = jax.tree.map(lambda old, new: MOMENTUM * old + (1 - MOMENTUM) * new, state, updates)
        ahead = jax.tree.map(lambda old, new: MOMENTUM * old + (1 - MOMENTUM) * new, state, updates)
        return jax.tree.map(_orthonormal, ahead), state

    return optax.GradientTransformation(init, update)


def _orthonormal(momentum: Float[Array, "*k m n"]) -> Float[Array, "*k m n"]:
    """0.2 sqrt(max(m, n)) times the orthonormal matrix near each; 0 where the momentum is."""
    a, b, c = COEFFICIENTS
    rows, columns = momentum.shape[-2:]
    matrix = momentum.mT if rows > columns else momentum
    norm = jnp.sqrt(jnp.sum(jnp.square(matrix), axis=(-2, -1), keepdims=True))
    matrix = matrix / jnp.where(norm > 0, norm, 1)
    for _ in range(STEPS):
        gram = matrix @ matrix.mT
        matrix = a * matrix + (b * gram + c * gram @ gram) @ matrix
    matrix = matrix.mT if rows > columns else matrix
    return RMS * max(rows, columns) ** 0.5 * matrix


# By the name that `training.optimizer` has.
OPTIMIZERS: dict[str, Callable[[], optax.GradientTransformation]] = {
    "adamw": optax.scale_by_adam,
    "muon": muon,
}
