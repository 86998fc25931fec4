"""Switches both sides to float64, where differences are not float32's rounding error."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch


def switch() -> None:
    """Makes new arrays, and the attention of both sides, float64 from now on.

    The attention of jax.nn and of transformers takes its softmax in float32, whatever its inputs.
    """
    jax.config.update("jax_enable_x64", True)
    torch.set_default_dtype(torch.float64)
    softmax: Any = torch.nn.functional.softmax
    torch.nn.functional.softmax = lambda x, dim=-1, dtype=None: softmax(x, dim=dim)
    jax.nn.dot_product_attention = _attention  # type: ignore[assignment]


def _attention(query: Any, key: Any, value: Any, is_causal: bool = False) -> Any:
    """Attention over arrays of shape (batch, positions, heads, features)."""
    scores = jnp.einsum("bthd,bshd->bhts", query, key) / np.sqrt(query.shape[-1])
    if is_causal:
        places = jnp.arange(scores.shape[-1])
        scores = jnp.where(places[:, None] >= places, scores, -jnp.inf)
    return jnp.einsum("bhts,bshd->bthd", jax.nn.softmax(scores, axis=-1), value)


def widen(tree: Any) -> Any:
    """Casts a tree to float64."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), tree)


def widened(function: Any) -> Any:
    """Wraps a function to return float64."""
    return functools.wraps(function)(lambda *arguments: widen(function(*arguments)))
