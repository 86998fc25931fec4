"""Finds a model: a local directory or file, or the local copy of a hub model."""

from __future__ import annotations

import os
import pathlib

from .adapters import ADAPTER_WEIGHTS
from .adapters import CONFIG as ADAPTER_CONFIG
from .config import HUB_NAMES, PRESETS
from .open_clip import OPEN_CLIP
from .processor import PREPROCESSOR, PROCESSOR
from .tensors import PICKLE_SUFFIXES

WEIGHTS = "model.safetensors"
OPEN_CLIP_WEIGHTS = "open_clip_model.safetensors"
SHARDS = ("model-*-of-*.safetensors", f"{WEIGHTS}.index.json")
TOKENIZER = (
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
    "special_tokens_map.json",
)
# The files of a CLIP directory besides its weights.
COMPANIONS = (*TOKENIZER, PROCESSOR, PREPROCESSOR, OPEN_CLIP)


def locate(source: str | os.PathLike[str]) -> pathlib.Path:
    """Returns a model's local directory or file; hub models are downloaded first.

    Raises:
      ValueError: nothing has that name, here or on the hub.
    """
    name = str(source)
    if name == "embedded":
        return pathlib.Path(__file__).parents[1] / "embedded" / "model"
    path = pathlib.Path(name)
    if path.is_dir() or (path.is_file() and path.suffix in (".safetensors", *PICKLE_SUFFIXES)):
        return path
    repo, _, revision = HUB_NAMES.get(name, name).partition("@")
    if repo.count("/") != 1 or repo.startswith((".", "/", "~")):
        raise ValueError(
            f"model {name!r}: no such directory; allowed: 'embedded', a directory, a safetensors "
            f"file, {', '.join(map(repr, HUB_NAMES))}, or a hub name like "
            "'openai/clip-vit-large-patch14'"
        )
    import huggingface_hub

    try:
        return pathlib.Path(
            huggingface_hub.snapshot_download(
                repo,
                revision=revision or None,
                allow_patterns=_wanted_files(name),
            )
        )
    except Exception as error:  # offline, not found, no access: the hub's message says which
        raise ValueError(
            f"model {name!r}: no such directory, and the hub did not provide it "
            f"({type(error).__name__}: {error}); check the name and the network, or pass a "
            "directory that contains the model"
        ) from error


def _wanted_files(name: str) -> list[str]:
    """Files to download; for presets, timm's own configuration and weights are skipped."""
    others = ["config.json", WEIGHTS, *SHARDS, ADAPTER_CONFIG, ADAPTER_WEIGHTS]
    return [*([] if name in PRESETS else others), OPEN_CLIP_WEIGHTS, *COMPANIONS]
