"""Sizes of a CLIP model: types, allowed values, and the sizes of OpenAI's models."""

from __future__ import annotations

import dataclasses
from typing import Any

# In OpenAI's own configurations, whose texts end at their largest id.
LEGACY_EOS = 2
ACTIVATIONS = ("quick_gelu", "gelu")
# Limits of sizes in a configuration; tensors are compared with it before memory is allocated.
LARGEST_SIZES = {"layers": 2**10, "size": 2**20}


@dataclasses.dataclass(frozen=True, kw_only=True)
class TowerConfig:
    """Sizes of one transformer tower.

    Attributes:
      width: features of a token.
      layers: number of residual blocks.
      heads: attention heads; must divide `width`.
      mlp_width: hidden features of each block's MLP.
      activation: "quick_gelu" (x * sigmoid(1.702 x), OpenAI's weights) or "gelu" (exact).
      eps: epsilon of the layer norms.
    """

    width: int
    layers: int
    heads: int
    mlp_width: int
    activation: str
    eps: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class VisionConfig(TowerConfig):
    """A tower over image patches; `image_size` and `patch_size` are in pixels."""

    image_size: int
    patch_size: int

    @property
    def tokens(self) -> int:
        """Patches plus the class token."""
        return (self.image_size // self.patch_size) ** 2 + 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextConfig(TowerConfig):
    """A causal tower over tokens, read at the end-of-text token.

    The text is read at the first occurrence of `eos_token_id`; see also `LEGACY_EOS`.
    """

    vocab_size: int
    context_length: int
    bos_token_id: int | None
    eos_token_id: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClipConfig:
    """Both towers, and the size of the space into which they project."""

    visual: VisionConfig
    text: TextConfig
    projection: int


def square(table: dict[str, Any], key: str) -> Any:
    """A size given as one number or as two equal numbers."""
    value = table.get(key)
    if isinstance(value, list | tuple) and len(value) == 2 and value[0] == value[1]:
        return value[0]
    return value


def bad_sizes(name: str, table: dict[str, Any]) -> list[str]:
    """Describes each invalid size."""
    problems = []
    for key, value in table.items():
        largest = LARGEST_SIZES["layers" if key.endswith("layers") else "size"]
        whole = isinstance(value, int) and not isinstance(value, bool)
        if not whole or not 0 < value <= largest:
            problems.append(f"{name}.{key} is {value!r}, allowed: an int from 1 to {largest}")
    return problems


def _openai(width: int, layers: int, patch: int, text_width: int, projection: int) -> ClipConfig:
    # OpenAI's towers: heads with 64 features, MLPs four times as wide, QuickGELU.
    return ClipConfig(
        visual=VisionConfig(
            width=width,
            layers=layers,
            heads=width // 64,
            mlp_width=4 * width,
            activation="quick_gelu",
            eps=1e-5,
            image_size=224,
            patch_size=patch,
        ),
        text=TextConfig(
            width=text_width,
            layers=12,
            heads=text_width // 64,
            mlp_width=4 * text_width,
            activation="quick_gelu",
            eps=1e-5,
            vocab_size=49408,
            context_length=77,
            bos_token_id=49406,
            eos_token_id=LEGACY_EOS,
        ),
        projection=projection,
    )


# The paper's backbones: their sizes, the hub repositories with OpenAI's weights as safetensors
# (open_clip's own source; OpenAI's repositories have B/32 and B/16 only as pickles), and the
# SHA-256 of those weights.
PRESETS = {
    "ViT-B/32": _openai(768, 12, 32, 512, 512),
    "ViT-B/16": _openai(768, 12, 16, 512, 512),
    "ViT-L/14": _openai(1024, 24, 14, 768, 768),
}
HUB_NAMES = {
    "ViT-B/32": "timm/vit_base_patch32_clip_224.openai@a6f597a30f7b82c51704746581f9a4e41421e878",
    "ViT-B/16": "timm/vit_base_patch16_clip_224.openai@977e3dd0ec55ab8da155f2fbeb6b5f54948b6e3d",
    "ViT-L/14": "timm/vit_large_patch14_clip_224.openai@18d0535469bb561bf468d76c1d73aa35156c922b",
}
WEIGHTS_SHA256 = {
    "ViT-B/32": "e6d1bd7789aa45192b3bf90570a789b478bae1b74ebcce7eddd908e83a2b7c31",
    "ViT-B/16": "4b8699299b1e8997753c64b052ba32031449d5d853f55a039148560ee02b820f",
    "ViT-L/14": "9ce2e8a8ebfff3793d7d375ad6d3c35cb9aebf3de7ace0fc7308accab7cd207e",
}
