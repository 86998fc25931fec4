"""A CLIP model on disk: a Hugging Face directory, or one of open_clip, without torch."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import pathlib
import shutil
import tempfile
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from orthoreg_jax.arithmetic.paths import check_finite, flatten
from orthoreg_jax.storage import write_error

from . import weights
from .config import (
    HUB_NAMES,
    OPEN_CLIP,
    PRESETS,
    WEIGHTS_SHA256,
    ClipConfig,
    is_open_clip,
    read_config,
    to_huggingface,
)
from .modules import Gather, VisionTransformer
from .preprocessing import load_preprocessing

WEIGHTS = "model.safetensors"
OPEN_CLIP_WEIGHTS = "open_clip_model.safetensors"
# What a Hugging Face CLIP directory holds beside its weights; copied along when one is saved.
PREPROCESSOR = "preprocessor_config.json"
COMPANIONS = (
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
    "special_tokens_map.json",
    PREPROCESSOR,
    OPEN_CLIP,
)


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A loaded model.

    Attributes:
      config: its sizes.
      params: float32 numpy leaves, `{"visual": ..., "text": ..., "logit_scale": ()}`.
      directory: where it came from; holds the tokenizer's and the preprocessing's files.
      sha256: hash of the weights file.
    """

    config: ClipConfig
    params: weights.Params = dataclasses.field(repr=False)
    directory: pathlib.Path
    sha256: str

    @property
    def tower(self) -> VisionTransformer:
        """The image tower as a linen module; its parameters are `params["visual"]`."""
        return VisionTransformer(self.config.visual, self.config.projection)

    def hash_files(self) -> dict[str, str]:
        """SHA-256 of every file that the model consists of, by name."""
        paths = [self.directory / name for name in _own_files(self.directory)]
        return {path.name: hash_file(path) for path in paths if path.is_file()}


def load_checkpoint(source: str | os.PathLike[str]) -> Checkpoint:
    """Reads a CLIP model.

    Args:
      source: "embedded" (the small model that comes with this package), a Hugging Face
        directory, one of open_clip (open_clip_config.json and safetensors), a preset ("ViT-B/32",
        "ViT-B/16", "ViT-L/14": OpenAI's weights, of a fixed revision whose hash is checked) or a
        hub name such as "openai/clip-vit-large-patch14", optionally with "@revision".

    Raises:
      ValueError: nothing of that name, a truncated file, a config of another kind of model, or
        tensors that do not fit it (all listed).

    Examples:
      >>> clip = oj.load_checkpoint("embedded")
      >>> clip.params["visual"]["projection"]["kernel"].shape
      (256, 256)
    """
    import safetensors
    import safetensors.numpy

    directory = locate(source)
    # The sizes and QuickGELU of OpenAI's models are known, whatever a copy's configuration says.
    config = PRESETS.get(str(source)) or read_config(directory)
    path = directory / (OPEN_CLIP_WEIGHTS if is_open_clip(directory) else WEIGHTS)
    if not path.is_file():
        raise ValueError(
            f"{path}: not found; this program reads weights as safetensors only, never pickles. A "
            "hub repository often has them in a pull request: name it as REPOSITORY@refs/pr/NUMBER"
            "; or save the model again with transformers' `save_pretrained`"
        )
    try:
        tensors = safetensors.numpy.load_file(path)
    except (safetensors.SafetensorError, OSError) as error:
        raise ValueError(
            f"{path}: not a whole safetensors file ({error}); it may be truncated or a git-lfs "
            "pointer: download or copy it again"
        ) from error
    try:
        layout = "open_clip" if "visual.conv1.weight" in tensors else "huggingface"
        params = weights.from_layout(tensors, config, layout)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    sha256 = hash_file(path)
    if sha256 != WEIGHTS_SHA256.get(str(source), sha256):
        raise ValueError(
            f"{path}: is not the file of OpenAI's {source} (SHA-256 {sha256}, expected "
            f"{WEIGHTS_SHA256[str(source)]}); delete it to have it downloaded again"
        )
    return Checkpoint(config, params, directory, sha256)


def _own_files(directory: pathlib.Path) -> tuple[str, ...]:
    """Names of the files that a model may consist of; others of the hub may lie beside them."""
    if is_open_clip(directory):
        return (OPEN_CLIP_WEIGHTS, *COMPANIONS)
    return ("config.json", WEIGHTS, *COMPANIONS)


def locate(source: str | os.PathLike[str]) -> pathlib.Path:
    """The local directory of a model, downloaded from the hub if its name says so."""
    name = str(source)
    if name == "embedded":
        return pathlib.Path(__file__).parents[1] / "embedded" / "model"
    if pathlib.Path(name).is_dir():
        return pathlib.Path(name)
    repo, _, revision = HUB_NAMES.get(name, name).partition("@")
    if repo.count("/") != 1 or repo.startswith((".", "/", "~")):
        raise ValueError(
            f"model {name!r}: no such directory; allowed: 'embedded', a directory, "
            f"{', '.join(map(repr, HUB_NAMES))}, or a hub name like 'openai/clip-vit-large-patch14'"
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
    except Exception as error:  # offline, not found, no access: the hub's own words say which
        raise ValueError(
            f"model {name!r}: neither a directory here nor to be had from the hub "
            f"({type(error).__name__}: {error}); check the name and the network, or pass a "
            "directory that holds the model"
        ) from error


def _wanted_files(name: str) -> list[str]:
    """What to download; of the presets, timm's own configuration and weights are left there."""
    transformers = [] if name in PRESETS else ["config.json", WEIGHTS]
    return [*transformers, OPEN_CLIP_WEIGHTS, *COMPANIONS]


def save_checkpoint(
    directory: str | os.PathLike[str],
    params: weights.Params,
    like: Checkpoint,
    dtype: Any = np.float32,
    texts: Mapping[str, str] | None = None,
) -> pathlib.Path:
    """Writes a Hugging Face CLIP directory, which transformers loads as it is.

    Args:
      directory: must not exist yet, or be empty.
      params: parameters of the same structure as `like.params`.
      like: the checkpoint whose configuration, tokenizer and preprocessing are kept.
      dtype: of the tensors in the file.
      texts: further files by name, as a model card README.md.

    Returns:
      The directory. It appears whole or not at all.

    Raises:
      ValueError: the directory holds something, or the parameters are not those of `like`, or NaN
        or infinite.
      StorageError: it cannot be written.
    """
    import safetensors
    import safetensors.numpy

    target = pathlib.Path(directory)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ValueError(f"{target}: is not empty; choose a new directory for the model")
    with np.errstate(over="ignore"):  # it is looked for below
        tensors = {k: v.astype(dtype) for k, v in weights.to_layout(params, "huggingface").items()}
    expected, found = weights.param_shapes(like.config), flatten(params)
    wrong = [
        f"{path} is {found[path].shape}, expected {shape}"
        for path, shape in expected.items()
        if found[path].shape != shape
    ]
    if wrong:
        raise ValueError(f"parameters of another size: {'; '.join(wrong)}")
    advice = f"choose a smaller alpha, or a wider type than {np.dtype(dtype)}"
    check_finite(tensors, f"{target}: not written", advice)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = pathlib.Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    except OSError as error:
        raise write_error(target, error) from error
    try:
        config = json.dumps(to_huggingface(like.config), indent=2)
        (scratch / "config.json").write_text(config + "\n")
        safetensors.numpy.save_file(tensors, scratch / WEIGHTS, metadata={"format": "pt"})
        for name in COMPANIONS:
            if name != OPEN_CLIP and (like.directory / name).is_file():
                shutil.copy(like.directory / name, scratch / name)
        if not (scratch / PREPROCESSOR).is_file():
            load_preprocessing(like.directory, like.config).processor.save_pretrained(scratch)
        for name, text in (texts or {}).items():
            (scratch / name).write_text(text, encoding="utf-8")
        for path in scratch.iterdir():
            path.chmod(0o644)  # the safetensors writer makes them private
        scratch.chmod(0o755)
        if target.exists():
            target.rmdir()
        scratch.rename(target)
    except (OSError, safetensors.SafetensorError) as error:
        raise write_error(target, error) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return target


def image_encoder(
    config: ClipConfig, dtype: Any = jnp.float32, remat: bool = False, gather: Gather | None = None
) -> Callable[[weights.Params, Float[Array, "b size size 3"]], Float[Array, "b p"]]:
    """The image tower as a pure function `apply(params["visual"], pixels) -> features`.

    Features are projected and not normalised.

    Args:
      config: of the model.
      dtype: of the computation; parameters stay as they are.
      remat: compute whole layers again in the backward pass, to save memory; by default all but
        the outputs of their linear layers.
      gather: applied to weights as they are about to be used, those of the blocks one block at a
        time.
    """
    tower = VisionTransformer(config.visual, config.projection, dtype, remat, gather)

    def apply(params: weights.Params, pixels: Float[Array, "b size size 3"]) -> Any:
        if gather is not None:
            params = {
                name: part if name == "blocks" else gather(part) for name, part in params.items()
            }
        return tower.apply({"params": params}, pixels)

    return apply


def hash_file(path: pathlib.Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
