"""Both sides in float64: what they differ by there is not rounding of float32."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch


def switch() -> None:
    """From now on new arrays are float64, and both attentions, too.

    jax.nn's attention and transformers' take their softmax in float32, whatever their inputs are.
    """
    jax.config.update("jax_enable_x64", True)
    torch.set_default_dtype(torch.float64)
    softmax: Any = torch.nn.functional.softmax
    torch.nn.functional.softmax = lambda x, dim=-1, dtype=None: softmax(x, dim=dim)
    jax.nn.dot_product_attention = _attention  # type: ignore[assignment]


def _attention(query: Any, key: Any, value: Any, is_causal: bool = False) -> Any:
    """Of (batch, positions, heads, features)."""
    scores = jnp.einsum("bthd,bshd->bhts", query, key) / np.sqrt(query.shape[-1])
    if is_causal:
        places = jnp.arange(scores.shape[-1])
        scores = jnp.where(places[:, None] >= places, scores, -jnp.inf)
    return jnp.einsum("bhts,bshd->bthd", jax.nn.softmax(scores, axis=-1), value)


def widen(tree: Any) -> Any:
    """The same numbers in float64."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), tree)


def widened(function: Any) -> Any:
    """A function whose result is in float64."""
    return functools.wraps(function)(lambda *arguments: widen(function(*arguments)))
