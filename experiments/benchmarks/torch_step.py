"""The same train step in plain PyTorch: experiments/parity/reference.py on random weights."""

from __future__ import annotations

import functools
import math
import pathlib
import sys
import tempfile
from collections.abc import Callable

import torch
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from orthoreg_jax.clip.config import ClipConfig
from orthoreg_jax.config import ORTHOREG, default_config

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "parity"))

from reference import Reference, update  # noqa: E402


def torch_step(config: ClipConfig, method: str, batch: int, classes: int) -> Callable[[], None]:
    """A function that makes one step of a method."""
    sizes, mode, lora = config.visual, method.removesuffix(ORTHOREG), default_config().lora
    reference = Reference(
        write_model(config),
        mode,
        {f"{layer}/{place}": torch.empty(lora.rank, sizes.width).uniform_(-1, 1)
         / math.sqrt(sizes.width) for layer in range(sizes.layers) for place in ("in", "out")},
        lora.alpha / lora.rank,
        "eager" if mode == "linearized" else "sdpa",
    )  # fmt: skip
    optimizer = torch.optim.AdamW(reference.trainable.values(), lr=1e-5, weight_decay=0.1)
    pixels = torch.randn(batch, 3, sizes.image_size, sizes.image_size)
    labels = torch.randint(classes, (batch,))
    head = torch.randn(classes, config.projection)
    strength = 10.0 if method.endswith(ORTHOREG) else None
    return lambda: update(reference, optimizer, pixels, labels, head, strength) and None


@functools.cache
def write_model(config: ClipConfig) -> str:
    """A Hugging Face directory of random weights; it lives as long as this process."""
    sizes = config.visual
    vision = CLIPVisionConfig(
        hidden_size=sizes.width,
        intermediate_size=sizes.mlp_width,
        projection_dim=config.projection,
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads,
        image_size=sizes.image_size,
        patch_size=sizes.patch_size,
        hidden_act=sizes.activation,
        layer_norm_eps=sizes.eps,
    )
    _folders.append(tempfile.TemporaryDirectory())
    CLIPVisionModelWithProjection(vision).save_pretrained(_folders[-1].name)
    return _folders[-1].name


_folders: list[tempfile.TemporaryDirectory[str]] = []
