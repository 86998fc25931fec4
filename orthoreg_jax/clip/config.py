"""The sizes of a CLIP model, as its `config.json` or `open_clip_config.json` states them."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from typing import Any

OPEN_CLIP = "open_clip_config.json"
# In the configurations of OpenAI's own checkpoints: the end of a text is its largest id.
LEGACY_EOS = 2
ACTIVATIONS = ("quick_gelu", "gelu")
ALONE = (
    "an image tower alone; name the CLIP that it was fine-tuned from, whose text tower it takes: "
    "--base, or base= in Python"
)
# What a size in a configuration can be; tensors are compared with it before memory is taken.
LARGEST = {"layers": 2**10, "size": 2**20}
# What open_clip's configurations may say without changing a plain CLIP ViT; None: anything.
NEUTRAL: dict[str, dict[str, tuple[Any, ...] | None]] = {
    "model_cfg": {
        "cast_dtype": None, "custom_text": (False,), "init_logit_bias": (None,),
        "init_logit_scale": None, "multimodal_cfg": (None,), "nonscalar_logit_scale": None,
        "output_dict": None,
    },
    "vision_cfg": {
        "act_kwargs": (None, {}), "attentional_pool": (False,), "attn_pooler_heads": None,
        "attn_pooler_queries": None, "final_ln_after_pool": (False,),
        "global_average_pool": (False,), "input_patchnorm": (False,), "ls_init_value": (None,),
        "n_queries": None, "no_ln_pre": (False,), "norm_kwargs": (None, {}),
        "output_tokens": None, "patch_dropout": None, "pool_type": ("tok",),
        "pos_embed_type": ("learnable",), "timm_drop": None, "timm_drop_path": None,
        "timm_model_name": (None, ""), "timm_model_pretrained": None, "timm_pool": None,
        "timm_proj": None, "timm_proj_bias": None,
    },
    "text_cfg": {
        "act_kwargs": (None, {}), "embed_cls": (False,), "eos_id": None,
        "final_ln_after_pool": (False,), "hf_model_config": None, "hf_model_name": (None, ""),
        "hf_model_pretrained": None, "hf_pooler_type": None, "hf_proj_type": None,
        "hf_tokenizer_name": None, "ls_init_value": (None,), "no_causal_mask": (False,),
        "norm_kwargs": (None, {}), "output_tokens": None, "pad_id": None,
        "pool_type": ("argmax",), "proj_bias": (False,), "proj_type": (None, "linear"),
        "tokenizer_kwargs": None, "tokenizer_mode": None,
    },
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
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


@dataclasses.dataclass(frozen=True)
class VisionConfig(TowerConfig):
    """A tower over an image's patches; `image_size` and `patch_size` in pixels."""

    image_size: int
    patch_size: int

    @property
    def tokens(self) -> int:
        """Patches plus the class token."""
        return (self.image_size // self.patch_size) ** 2 + 1


@dataclasses.dataclass(frozen=True)
class TextConfig(TowerConfig):
    """A causal tower over tokens, read at the end-of-text token.

    `eos_token_id` is the id at whose first occurrence the text is read; see also `LEGACY_EOS`.
    """

    vocab_size: int
    context_length: int
    bos_token_id: int | None
    eos_token_id: int


@dataclasses.dataclass(frozen=True)
class ClipConfig:
    """Both towers and the size of the space they project into."""

    visual: VisionConfig
    text: TextConfig
    projection: int


def read_config(directory: str | pathlib.Path, base: ClipConfig | None = None) -> ClipConfig:
    """Reads `config.json` of a Hugging Face CLIP directory, or else `open_clip_config.json`.

    Args:
      directory: of the model.
      base: of the model that it was fine-tuned from, from which an image tower alone has its text
        tower, and a directory without a configuration everything.

    Raises:
      ValueError: the file is missing, is not JSON, describes another kind of model, or sizes that
        do not fit together; every problem found is named.
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
    except (OSError, ValueError, RecursionError) as error:  # not JSON, or not text at all
        raise ValueError(f"{path}: is not JSON ({error}); download or save it again") from error
    kind = raw.get("model_type") if isinstance(raw, dict) else None
    if kind not in ("clip", "clip_vision_model"):
        raise ValueError(
            f"{path}: describes a model of type {kind!r}; this program reads type 'clip' "
            "(for example openai/clip-vit-large-patch14) and, beside a base, 'clip_vision_model'"
        )
    if kind == "clip_vision_model" and base is None:
        raise ValueError(f"{path}: describes {ALONE}")
    try:
        if base is not None and kind == "clip_vision_model":
            visual = from_huggingface({"vision_config": raw}).visual
            return ClipConfig(visual, base.text, base.projection)
        return from_huggingface(raw)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def is_open_clip(directory: str | pathlib.Path) -> bool:
    """Whether a directory holds a model as open_clip keeps it, and not as transformers does.

    On the hub, timm's configuration may lie beside open_clip's: it is another kind of model.
    """
    path = pathlib.Path(directory) / "config.json"
    if not path.with_name(OPEN_CLIP).is_file():
        return False
    try:
        raw = json.loads(path.read_text())
    except FileNotFoundError:
        return True
    except (OSError, ValueError, RecursionError):
        return False
    return not isinstance(raw, dict) or raw.get("model_type") != "clip"


def read_open_clip(directory: str | pathlib.Path) -> dict[str, Any]:
    """The content of `open_clip_config.json`: "model_cfg" and "preprocess_cfg".

    Raises:
      ValueError: it cannot be read.
    """
    path = pathlib.Path(directory) / OPEN_CLIP
    try:
        raw: dict[str, Any] = json.loads(path.read_text())
        _ = raw["model_cfg"]["vision_cfg"], raw["model_cfg"]["text_cfg"]
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise ValueError(
            f"{path}: is not the configuration of an open_clip model ({type(error).__name__}: "
            f"{error}); download it again"
        ) from error
    return raw


def from_open_clip(raw: dict[str, Any]) -> ClipConfig:
    """Reads a parsed `open_clip_config.json`.

    Raises:
      ValueError: something in it that a plain CLIP ViT does not have, or sizes missing.
    """
    model = raw["model_cfg"]
    known = {
        "vision_cfg": {"image_size", "layers", "width", "patch_size", "head_width", "mlp_ratio"},
        "text_cfg": {"context_length", "vocab_size", "width", "heads", "layers", "mlp_ratio"},
    }
    own = {key: value for key, value in model.items() if key not in known}
    tables = {"model_cfg": own, **{name: model[name] for name in known}}
    known |= {"model_cfg": {"embed_dim", "quick_gelu"}}
    strange = [
        f"{name}.{key} = {value!r}".removeprefix("model_cfg.")
        for name, table in tables.items()
        for key, value in table.items()
        if key not in known[name] and not _is_neutral(NEUTRAL[name], key, value)
    ]
    if strange:
        raise ValueError(
            f"{OPEN_CLIP}: has {', '.join(strange)}, which a plain CLIP ViT does not; this program "
            "reads those only"
        )
    vision, text = model["vision_cfg"], model["text_cfg"]
    activation = "quick_gelu" if model.get("quick_gelu", False) else "gelu"
    problems: list[str] = []
    vision = vision | {"head_width": vision.get("head_width", 64)}
    for name, table in (("vision_cfg", vision), ("text_cfg", text), ("model_cfg", model)):
        for key in {"image_size", "patch_size"} & table.keys():
            table[key] = _square(table, key)
        problems += _bad_sizes(name, {k: v for k, v in table.items() if k in OPEN_CLIP_SIZES})
        ratio = table.get("mlp_ratio", 4)
        if isinstance(ratio, bool) or not isinstance(ratio, int | float) or not 0 < ratio <= 64:
            problems.append(f"{name}.mlp_ratio is {ratio!r}, allowed: a number above 0, to 64")
    if not problems:
        for name, table, whole, part in (
            ("vision_cfg", vision, "width", "head_width"),
            ("vision_cfg", vision, "image_size", "patch_size"),
            ("text_cfg", text, "width", "heads"),
        ):
            if whole in table and part in table and table[whole] % table[part]:
                problems.append(
                    f"{name}.{whole} {table[whole]} is not a multiple of {part} {table[part]}"
                )
    if problems:
        raise ValueError(f"{OPEN_CLIP}: {'; '.join(problems)}")
    try:
        return ClipConfig(
            visual=VisionConfig(
                vision["width"],
                vision["layers"],
                vision["width"] // vision.get("head_width", 64),
                int(vision["width"] * vision.get("mlp_ratio", 4)),
                activation,
                1e-5,
                vision["image_size"],
                vision["patch_size"],
            ),
            text=TextConfig(
                text["width"],
                text["layers"],
                text["heads"],
                int(text["width"] * text.get("mlp_ratio", 4)),
                activation,
                1e-5,
                text["vocab_size"],
                text["context_length"],
                text["vocab_size"] - 2,
                LEGACY_EOS,
            ),
            projection=model["embed_dim"],
        )
    except (LookupError, TypeError) as error:
        raise ValueError(f"{OPEN_CLIP}: {type(error).__name__}: {error}") from error


def _is_neutral(table: dict[str, tuple[Any, ...] | None], key: str, value: Any) -> bool:
    return key in table and (table[key] is None or value in (table[key] or ()))


def _square(table: dict[str, Any], key: str) -> Any:
    """A size that is stated as one number, or as two equal ones."""
    value = table.get(key)
    if isinstance(value, list | tuple) and len(value) == 2 and value[0] == value[1]:
        return value[0]
    return value


OPEN_CLIP_SIZES = (
    "context_length", "embed_dim", "head_width", "heads", "image_size", "layers", "patch_size",
    "vocab_size", "width",
)  # fmt: skip
HUGGINGFACE_SIZES = (
    "hidden_size", "image_size", "intermediate_size", "max_position_embeddings",
    "num_attention_heads", "num_hidden_layers", "patch_size", "vocab_size",
)  # fmt: skip


def _bad_sizes(name: str, table: dict[str, Any]) -> list[str]:
    """Sizes that no model has, in words."""
    problems = []
    for key, value in table.items():
        largest = LARGEST["layers" if key.endswith("layers") else "size"]
        whole = isinstance(value, int) and not isinstance(value, bool)
        if not whole or not 0 < value <= largest:
            problems.append(f"{name}.{key} is {value!r}, allowed: one int from 1 to {largest}")
    return problems


def _end_of_text(value: Any, problems: list[str]) -> int:
    """The id at which a text is read; without one, its largest, as in OpenAI's configurations."""
    if isinstance(value, list | tuple) and len({*value}) == 1:
        value = value[0]
    if value is None:
        return LEGACY_EOS
    if isinstance(value, bool) or not isinstance(value, int):
        problems.append(f"text_config.eos_token_id is {value!r}, allowed: one id, or null")
        return LEGACY_EOS
    return value


def from_huggingface(raw: dict[str, Any]) -> ClipConfig:
    """Reads a parsed `config.json`; what it leaves out has transformers' defaults.

    Raises:
      ValueError: sizes that do not fit together or an activation not known.
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
            stated[key] = _square(stated, key)
        problems += _bad_sizes(
            name, {key: stated[key] for key in HUGGINGFACE_SIZES if key in stated}
        )
    if problems:
        raise ValueError("; ".join(problems))
    try:
        config = transformers.CLIPConfig.from_dict(raw)
    except Exception as error:  # transformers raises many kinds, all about the file's content
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
    problems += _bad_sizes("config", {"projection_dim": config.projection_dim})
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


def _openai(width: int, layers: int, patch: int, text_width: int, projection: int) -> ClipConfig:
    # OpenAI's towers: heads of 64 features, MLPs four times as wide, QuickGELU.
    return ClipConfig(
        visual=VisionConfig(width, layers, width // 64, 4 * width, "quick_gelu", 1e-5, 224, patch),
        text=TextConfig(
            text_width,
            12,
            text_width // 64,
            4 * text_width,
            "quick_gelu",
            1e-5,
            49408,
            77,
            49406,
            LEGACY_EOS,
        ),
        projection=projection,
    )


# The backbones of the paper: their sizes, where the hub keeps OpenAI's weights as safetensors
# (open_clip's own source of them; OpenAI's repositories hold B/32 and B/16 as pickles only), and
# the SHA-256 of those weights.
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
