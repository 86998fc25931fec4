"""Fine-tuning of the attention projections alone."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from orthoreg_jax.arithmetic.paths import replace, select
from orthoreg_jax.arithmetic.task_vectors import task_vector

from .mode import Apply, Mode

PATHS = ("*attn/in_proj/kernel", "*attn/out_proj/kernel")


def attention(options: ConfigDict) -> Mode:
    """Trains the weights, not the biases, of attention's input and output projections.

    No options. Reference: ATT-FT, "Fine-Tuning Attention Modules Only: Enhancing Weight
    Disentanglement in Task Arithmetic", ICLR 2025 (arXiv 2407.07089).
    """
    return only(PATHS, "ATT-FT")


def only(patterns: tuple[str, ...], label: str) -> Mode:
    """Trains the leaves whose paths match a glob, and leaves the rest as it is."""

    def delta(trainable: Any, params0: Any) -> Any:
        return task_vector(trainable, select(params0, patterns))

    def forward(apply: Apply, params0: Any, trainable: Any, inputs: Any) -> Any:
        return apply(replace(params0, trainable), inputs)

    return Mode(
        label=label,
        init=lambda params0, key: jax.tree.map(jnp.array, select(params0, patterns)),
        delta=delta,
        forward=forward,
    )
