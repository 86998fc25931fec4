"""Reads and writes a model's sizes in `config.json`, or reads open_clip's configuration."""

from __future__ import annotations

import json
import pathlib
from typing import Any

from .config import (
    ACTIVATIONS,
    LEGACY_EOS,
    ClipConfig,
    TextConfig,
    TowerConfig,
    VisionConfig,
    bad_sizes,
    square,
)
from .open_clip import from_open_clip, is_open_clip, read_open_clip

ALONE = (
    "an image tower alone; name the CLIP it was fine-tuned from, which provides the text tower: "
    "base= in Python, --base in commands"
)
HUGGINGFACE_SIZES = (
    "hidden_size", "image_size", "intermediate_size", "max_position_embeddings",
    "num_attention_heads", "num_hidden_layers", "patch_size", "vocab_size",
)  # fmt: skip


def read_config(directory: str | pathlib.Path, base: ClipConfig | None = None) -> ClipConfig:
    """Reads `config.json` of a Hugging Face CLIP directory, or else `open_clip_config.json`.

    Args:
      directory: the model's directory.
      base: sizes of the model it was fine-tuned from. They provide the text tower of a single image
        tower, and all sizes if the directory has no configuration.

    Raises:
      ValueError: the file is missing, is not JSON, or describes another kind of model or sizes that
        do not fit together; the message names every problem.
    """
    path = pathlib.Path(directory) / "config.json"
    if is_open_clip(directory):
        return from_open_clip(read_open_clip(directory))
    if not path.is_file():
        if base is not None:
            return base
        raise ValueError(
            f"{path}: not found; a CLIP directory holds config.json, model.safetensors and the "
            "tokenizer's files, as `save_pretrained` of transformers writes them"
        )
    try:
        raw = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:  # not JSON, or not text
        raise ValueError(f"{path}: is not JSON ({error}); download or save it again") from error
    kind = raw.get("model_type") if isinstance(raw, dict) else None
    if kind is None and isinstance(raw, dict) and "methods" in raw:
        raise ValueError(
            f"{directory}: is a run's folder, not a model; write a model of the run with `orthoreg "
            f"export --workdir {directory} --method METHOD --out DIRECTORY`, or `orthoreg merge`"
        )
    if kind not in ("clip", "clip_vision_model"):
        described = (
            f"a model of type {kind!r}" if kind is not None else "no model (it has no model_type)"
        )
        raise ValueError(
            f"{path}: describes {described}; supported: 'clip' (for example "
            "openai/clip-vit-large-patch14) and, with a base, 'clip_vision_model'"
        )
    if kind == "clip_vision_model" and base is None:
        raise ValueError(f"{path}: describes {ALONE}")
    try:
        if base is not None and kind == "clip_vision_model":
            visual = from_huggingface({"vision_config": raw}).visual
            return ClipConfig(visual=visual, text=base.text, projection=base.projection)
        return from_huggingface(raw)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _end_of_text(value: Any, problems: list[str]) -> int:
    """The token id that ends a text; None means the largest id, as in OpenAI's configurations."""
    if isinstance(value, list | tuple) and len({*value}) == 1:
        value = value[0]
    if value is None:
        return LEGACY_EOS
    if isinstance(value, bool) or not isinstance(value, int):
        problems.append(f"text_config.eos_token_id is {value!r}, allowed: one id, or null")
        return LEGACY_EOS
    return value


def from_huggingface(raw: dict[str, Any]) -> ClipConfig:
    """Reads a parsed `config.json`; missing keys take transformers' defaults.

    Raises:
      ValueError: sizes do not fit together, or an activation is unknown.
    """
    import transformers

    problems: list[str] = []
    raw = raw | {
        name: dict(raw[name]) for name in ("vision_config", "text_config")
        if isinstance(raw.get(name), dict)
    }  # fmt: skip
    for name in ("vision_config", "text_config"):
        stated: dict[str, Any] = raw[name] if isinstance(raw.get(name), dict) else {}
        for key in {"image_size", "patch_size"} & stated.keys():
            stated[key] = square(stated, key)
        problems += bad_sizes(
            name, {key: stated[key] for key in HUGGINGFACE_SIZES if key in stated}
        )
    if problems:
        raise ValueError("; ".join(problems))
    try:
        config = transformers.CLIPConfig.from_dict(raw)
    except Exception as error:  # transformers raises many kinds, all about the content
        raise ValueError(f"not a CLIP configuration: {error}") from error
    vision, text = config.vision_config, config.text_config
    towers = {"vision_config": vision, "text_config": text}
    for name, tower in towers.items():
        if tower.hidden_act not in ACTIVATIONS:
            problems.append(
                f"{name}.hidden_act is {tower.hidden_act!r}, allowed: {', '.join(ACTIVATIONS)}"
            )
        if not isinstance(tower.layer_norm_eps, float) or not 0 <= tower.layer_norm_eps < 1:
            problems.append(
                f"{name}.layer_norm_eps is {tower.layer_norm_eps!r}, allowed: a number from 0 to 1"
            )
    if vision.num_channels != 3:
        problems.append(f"vision_config.num_channels is {vision.num_channels}, allowed: 3")
    if vision.image_size % vision.patch_size:
        problems.append(
            f"vision_config: patches of {vision.patch_size} px do not tile {vision.image_size} px"
        )
    problems += bad_sizes("config", {"projection_dim": config.projection_dim})
    end = _end_of_text(text.eos_token_id, problems)
    if problems:
        raise ValueError("; ".join(problems))
    sizes = {
        name: {
            "width": tower.hidden_size,
            "layers": tower.num_hidden_layers,
            "heads": tower.num_attention_heads,
            "mlp_width": tower.intermediate_size,
            "activation": tower.hidden_act,
            "eps": tower.layer_norm_eps,
        }
        for name, tower in towers.items()
    }
    return ClipConfig(
        visual=VisionConfig(
            **sizes["vision_config"], image_size=vision.image_size, patch_size=vision.patch_size
        ),
        text=TextConfig(
            **sizes["text_config"],
            vocab_size=text.vocab_size,
            context_length=text.max_position_embeddings,
            bos_token_id=text.bos_token_id,
            eos_token_id=end,
        ),
        projection=config.projection_dim,
    )


def to_huggingface(config: ClipConfig) -> dict[str, Any]:
    """The `config.json` that transformers' CLIPModel reads: the inverse of `from_huggingface`."""

    def tower(sizes: TowerConfig) -> dict[str, Any]:
        return {
            "hidden_size": sizes.width,
            "num_hidden_layers": sizes.layers,
            "num_attention_heads": sizes.heads,
            "intermediate_size": sizes.mlp_width,
            "hidden_act": sizes.activation,
            "layer_norm_eps": sizes.eps,
            "projection_dim": config.projection,
        }

    return {
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "projection_dim": config.projection,
        "logit_scale_init_value": 2.6592,
        "vision_config": tower(config.visual)
        | {
            "model_type": "clip_vision_model",
            "image_size": config.visual.image_size,
            "patch_size": config.visual.patch_size,
            "num_channels": 3,
        },
        "text_config": tower(config.text)
        | {
            "model_type": "clip_text_model",
            "vocab_size": config.text.vocab_size,
            "max_position_embeddings": config.text.context_length,
            "bos_token_id": config.text.bos_token_id,
            "eos_token_id": config.text.eos_token_id,
            "pad_token_id": config.text.eos_token_id,
        },
    }
