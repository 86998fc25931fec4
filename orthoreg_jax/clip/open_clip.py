"""Reads open_clip's configuration of a model, `open_clip_config.json`."""

from __future__ import annotations

import json
import pathlib
from typing import Any

from .config import LEGACY_EOS, ClipConfig, TextConfig, VisionConfig, bad_sizes, square

OPEN_CLIP = "open_clip_config.json"
OPEN_CLIP_SIZES = (
    "context_length", "embed_dim", "head_width", "heads", "image_size", "layers", "patch_size",
    "vocab_size", "width",
)  # fmt: skip
# Values in open_clip's configurations that leave a plain CLIP ViT unchanged; None: any value.
NEUTRAL_OPTIONS: dict[str, dict[str, tuple[Any, ...] | None]] = {
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


def is_open_clip(directory: str | pathlib.Path) -> bool:
    """Whether a directory contains an open_clip model and not a transformers one.

    On the hub, open_clip's configuration may be next to timm's, which is another kind of model.
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
      ValueError: the file cannot be read.
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
      ValueError: it describes something that a plain CLIP ViT does not have, or lacks sizes.
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
        if key not in known[name] and not _is_neutral(NEUTRAL_OPTIONS[name], key, value)
    ]
    if strange:
        raise ValueError(
            f"{OPEN_CLIP}: has {', '.join(strange)}, which a plain CLIP ViT lacks; only plain "
            "CLIP ViTs are supported"
        )
    vision, text = model["vision_cfg"], model["text_cfg"]
    activation = "quick_gelu" if model.get("quick_gelu", False) else "gelu"
    problems: list[str] = []
    vision = vision | {"head_width": vision.get("head_width", 64)}
    for name, table in (("vision_cfg", vision), ("text_cfg", text), ("model_cfg", model)):
        for key in {"image_size", "patch_size"} & table.keys():
            table[key] = square(table, key)
        problems += bad_sizes(name, {k: v for k, v in table.items() if k in OPEN_CLIP_SIZES})
        ratio = table.get("mlp_ratio", 4)
        if isinstance(ratio, bool) or not isinstance(ratio, int | float) or not 0 < ratio <= 64:
            problems.append(f"{name}.mlp_ratio is {ratio!r}, allowed: a number above 0, up to 64")
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
                width=vision["width"],
                layers=vision["layers"],
                heads=vision["width"] // vision.get("head_width", 64),
                mlp_width=int(vision["width"] * vision.get("mlp_ratio", 4)),
                activation=activation,
                eps=1e-5,
                image_size=vision["image_size"],
                patch_size=vision["patch_size"],
            ),
            text=TextConfig(
                width=text["width"],
                layers=text["layers"],
                heads=text["heads"],
                mlp_width=int(text["width"] * text.get("mlp_ratio", 4)),
                activation=activation,
                eps=1e-5,
                vocab_size=text["vocab_size"],
                context_length=text["context_length"],
                bos_token_id=text["vocab_size"] - 2,
                eos_token_id=LEGACY_EOS,
            ),
            projection=model["embed_dim"],
        )
    except (LookupError, TypeError) as error:
        raise ValueError(f"{OPEN_CLIP}: {type(error).__name__}: {error}") from error


def to_open_clip(config: ClipConfig) -> dict[str, Any]:
    """The "model_cfg" that open_clip reads: the inverse of `from_open_clip`.

    Raises:
      ValueError: sizes that open_clip's configuration cannot state, all named.
    """
    visual, text = config.visual, config.text
    raw = {
        "model_cfg": {
            "embed_dim": config.projection,
            "quick_gelu": visual.activation == "quick_gelu",
            "vision_cfg": {
                "image_size": visual.image_size,
                "layers": visual.layers,
                "width": visual.width,
                "head_width": visual.width // visual.heads,
                "patch_size": visual.patch_size,
                "mlp_ratio": visual.mlp_width / visual.width,
            },
            "text_cfg": {
                "context_length": text.context_length,
                "vocab_size": text.vocab_size,
                "width": text.width,
                "heads": text.heads,
                "layers": text.layers,
                "mlp_ratio": text.mlp_width / text.width,
            },
        }
    }
    ends = (LEGACY_EOS, text.vocab_size - 1)  # two names of the largest id
    read = from_open_clip(json.loads(json.dumps(raw)))
    wrong = [
        f"{tower}.{key} is {value!r}, open_clip has {getattr(getattr(read, tower), key)!r}"
        for tower, sizes in (("visual", visual), ("text", text))
        for key, value in vars(sizes).items()
        if value != getattr(getattr(read, tower), key)
        and not (key == "eos_token_id" and value in ends)
        and key != "bos_token_id"  # of the tokenizer alone
    ]
    if wrong:
        raise ValueError(f"layout 'open_clip': cannot state this model: {'; '.join(wrong)}")
    return raw


def _is_neutral(table: dict[str, tuple[Any, ...] | None], key: str, value: Any) -> bool:
    return key in table and (table[key] is None or value in (table[key] or ()))
