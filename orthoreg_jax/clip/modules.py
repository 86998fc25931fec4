"""The CLIP vision transformer and its text tower, in flax.linen.

Parameters are plain nested dicts. The blocks of a tower are stacked (one `nn.scan`), so each leaf
of `blocks` has a leading layer axis, e.g. `visual/blocks/attn/in_proj/kernel` of shape
(layers, width, 3 * width). Kernels are (in, out); query, key and value are one fused kernel.
Dimensions in annotations: b images or texts, n tokens, d width, p projected features.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from .config import LEGACY_EOS, ClipConfig, TextConfig, TowerConfig, VisionConfig

_ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "quick_gelu": lambda x: x * jax.nn.sigmoid(1.702 * x),
    "gelu": functools.partial(jax.nn.gelu, approximate=False),
}
_WIDTH_INIT = nn.initializers.normal
Gather = Callable[[Any], Any]  # weights as stored -> weights as used


class Attention(nn.Module):
    """Multi-head self-attention with a fused (d, 3d) input projection."""

    width: int
    heads: int
    causal: bool
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "b n d"]) -> Float[Array, "b n d"]:
        dense = functools.partial(nn.Dense, dtype=self.dtype)
        init = _WIDTH_INIT(self.width**-0.5)
        qkv = dense(3 * self.width, kernel_init=init, name="in_proj")(x)
        q, k, v = (
            part.reshape(*part.shape[:2], self.heads, -1) for part in jnp.split(qkv, 3, axis=-1)
        )
        mixed = jax.nn.dot_product_attention(q, k, v, is_causal=self.causal)
        return dense(self.width, kernel_init=init, name="out_proj")(mixed.reshape(x.shape))


class Mlp(nn.Module):
    """Two linear layers with the tower's activation between them."""

    config: TowerConfig
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "b n d"]) -> Float[Array, "b n d"]:
        sizes = self.config
        dense = functools.partial(nn.Dense, dtype=self.dtype)
        hidden = dense(
            sizes.mlp_width, kernel_init=_WIDTH_INIT((2 * sizes.width) ** -0.5), name="fc1"
        )
        output = dense(sizes.width, kernel_init=_WIDTH_INIT(sizes.mlp_width**-0.5), name="fc2")
        return output(_ACTIVATIONS[sizes.activation](hidden(x)))


class Block(nn.Module):
    """One pre-norm residual block; returns a pair, because `nn.scan` carries the first element."""

    config: TowerConfig
    causal: bool
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "b n d"], _: None) -> tuple[Float[Array, "b n d"], None]:
        norm = functools.partial(_layer_norm, self.config.eps, self.dtype)
        attention = Attention(
            self.config.width, self.config.heads, self.causal, self.dtype, name="attn"
        )
        x = x + attention(norm("norm1")(x))
        x = x + Mlp(self.config, self.dtype, name="mlp")(norm("norm2")(x))
        return x, None


def _layer_norm(eps: float, dtype: DTypeLike, name: str) -> nn.LayerNorm:
    # Two-pass variance: the fast one loses digits when the mean is large, as it is in CLIP.
    return nn.LayerNorm(epsilon=eps, dtype=dtype, use_fast_variance=False, name=name)


def _blocks(
    config: TowerConfig, causal: bool, dtype: DTypeLike, remat: bool, gather: Gather | None = None
) -> nn.Module:
    block = Block
    if gather is not None:
        block = nn.map_variables(block, "params", trans_in_fn=gather, init=True)
    # The backward pass keeps the outputs of the linear layers and recomputes all else: what is
    # cheap, and gathered weights. Measured on a CPU for full fine-tuning of ViT-B/32: x 0.79 in
    # time and x 0.70 in memory, because the loop writes and reads that much less.
    policy = None if remat else jax.checkpoint_policies.dots_with_no_batch_dims_saveable
    # Inside a scan, the loop itself keeps XLA from merging recomputed values (prevent_cse).
    block = nn.remat(block, prevent_cse=False, policy=policy)
    stack = nn.scan(
        block,
        variable_axes={"params": 0, "perturbations": 0, "intermediates": 0},
        split_rngs={"params": True},
        length=config.layers,
    )
    return stack(config, causal, dtype, name="blocks")


class VisionTransformer(nn.Module):
    """Image tower: preprocessed pixels to projected, not yet normalised features.

    `gather` is applied to the weights of each block just before the block uses them: where each
    device holds a part of them, it assembles the parts.
    """

    config: VisionConfig
    projection: int
    dtype: DTypeLike = jnp.float32
    remat: bool = False
    gather: Gather | None = None

    @nn.compact
    def __call__(self, pixels: Float[Array, "b size size 3"]) -> Float[Array, "b p"]:
        sizes, init = self.config, _WIDTH_INIT(self.config.width**-0.5)
        patch, side = sizes.patch_size, sizes.image_size // sizes.patch_size
        size = sizes.image_size
        if pixels.shape[1:] != (size, size, 3) or not jnp.issubdtype(pixels.dtype, jnp.floating):
            raise ValueError(
                f"pixels are {pixels.dtype} of shape {pixels.shape}; expected floats of shape "
                f"(batch, {size}, {size}, 3), resized and normalised by the checkpoint's "
                "preprocessing (`load_preprocessing`)"
            )
        # A convolution whose stride is its kernel size is one matrix product over the patches.
        kernel = self.param("patch_embedding", init, (patch, patch, 3, sizes.width))
        patches = pixels.astype(self.dtype).reshape(-1, side, patch, side, patch, 3)
        x = jnp.einsum("byixjc,ijcd->byxd", patches, kernel.astype(self.dtype))
        x = x.reshape(-1, side * side, sizes.width)
        cls = self.param("class_embedding", init, (sizes.width,)).astype(self.dtype)
        x = jnp.concatenate([jnp.broadcast_to(cls, (x.shape[0], 1, sizes.width)), x], axis=1)
        x = x + self.param("position_embedding", init, x.shape[1:]).astype(self.dtype)
        x = _layer_norm(sizes.eps, self.dtype, "pre_norm")(x)
        x, _ = _blocks(sizes, False, self.dtype, self.remat, self.gather)(x, None)
        x = _layer_norm(sizes.eps, self.dtype, "post_norm")(x[:, 0])
        return nn.Dense(
            self.projection, use_bias=False, dtype=self.dtype, kernel_init=init, name="projection"
        )(x)


class TextTransformer(nn.Module):
    """Text tower: token ids to projected, not yet normalised features."""

    config: TextConfig
    projection: int
    dtype: DTypeLike = jnp.float32
    remat: bool = False

    @nn.compact
    def __call__(self, tokens: Int[Array, "b n"]) -> Float[Array, "b p"]:
        sizes = self.config
        table = self.param("token_embedding", _WIDTH_INIT(0.02), (sizes.vocab_size, sizes.width))
        places = self.param(
            "position_embedding", _WIDTH_INIT(0.01), (sizes.context_length, sizes.width)
        )
        x = (table[tokens] + places[: tokens.shape[1]]).astype(self.dtype)
        x, _ = _blocks(sizes, True, self.dtype, self.remat)(x, None)
        x = _layer_norm(sizes.eps, self.dtype, "final_norm")(x)
        legacy = sizes.eos_token_id == LEGACY_EOS
        end = jnp.argmax(tokens if legacy else tokens == sizes.eos_token_id, axis=1)
        return nn.Dense(
            self.projection,
            use_bias=False,
            dtype=self.dtype,
            kernel_init=_WIDTH_INIT(sizes.width**-0.5),
            name="projection",
        )(x[jnp.arange(x.shape[0]), end])


class Clip(nn.Module):
    """Both towers; `apply` returns the logits of every image against every text."""

    config: ClipConfig
    dtype: DTypeLike = jnp.float32
    remat: bool = False

    def setup(self) -> None:
        """Builds the towers under the names `visual` and `text`."""
        sizes = self.config
        self.visual = VisionTransformer(sizes.visual, sizes.projection, self.dtype, self.remat)
        self.text = TextTransformer(sizes.text, sizes.projection, self.dtype, self.remat)
        self.logit_scale = self.param("logit_scale", nn.initializers.constant(2.6592), ())

    def __call__(
        self, pixels: Float[Array, "b size size 3"], tokens: Int[Array, "t n"]
    ) -> Float[Array, "b t"]:
        """Cosine similarities of images (rows) and texts (columns), times exp(logit_scale)."""
        images, texts = normalize(self.visual(pixels)), normalize(self.text(tokens))
        return jnp.exp(self.logit_scale) * images @ texts.T


def normalize(features: Float[Array, "*b p"]) -> Float[Array, "*b p"]:
    """Features divided by their Euclidean norm over the last axis."""
    features = features.astype(jnp.promote_types(features.dtype, jnp.float32))
    return features / jnp.linalg.norm(features, axis=-1, keepdims=True)
