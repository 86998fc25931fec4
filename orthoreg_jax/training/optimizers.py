"""Optimisers of fine-tuning: what turns gradients into updates, before decay and learning rate."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import optax
from optax.contrib import MuonDimensionNumbers, scale_by_muon

from orthoreg_jax.arithmetic.types import Params, Update

RMS = 0.2  # of an update's entries, near Adam's
KERNELS = ("kernel", "a", "b")  # of linear layers; the latter two are LoRA's factors


def muon() -> optax.GradientTransformation:
    """Muon on the kernels of linear layers and LoRA's factors; Adam on everything else.

    The Nesterov momentum of a matrix of m rows and n columns is replaced by the orthonormal matrix
    near it, times 0.2 sqrt(max(m, n)): its entries are as large as those of an Adam update, so
    learning rate and weight decay keep their meaning. Each layer of a stacked kernel is a matrix;
    query, key and value are one, as for the penalty.

    Reference: "Muon: An optimizer for hidden layers in neural networks", 2024; its size: "Muon is
      Scalable for LLM Training", 2025 (arXiv 2502.16982).
    """

    def kinds(params: Params) -> Any:
        return jax.tree.map_with_path(
            lambda path, leaf: "muon" if leaf.ndim >= 2 and path[-1].key in KERNELS else "adam",
            params,
        )

    on_kernels = optax.chain(
        scale_by_muon(weight_dimension_numbers=_last_two_axes), optax.stateless(_sized)
    )
    return optax.multi_transform({"muon": on_kernels, "adam": optax.scale_by_adam()}, kinds)


def _last_two_axes(params: Params) -> Any:
    return jax.tree.map(lambda leaf: MuonDimensionNumbers(leaf.ndim - 2, leaf.ndim - 1), params)


def _sized(updates: Update, params: Params) -> Update:
    del params
    return jax.tree.map(lambda leaf: RMS * max(leaf.shape[-2:]) ** 0.5 * leaf, updates)


# By the name that `training.optimizer` has.
OPTIMIZERS: dict[str, Callable[[], optax.GradientTransformation]] = {
    "adamw": optax.scale_by_adam,
    "muon": muon,
}
