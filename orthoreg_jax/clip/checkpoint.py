"""A CLIP model in memory: read from other libraries' files, saved as a Hugging Face directory."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import shutil
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from orthoreg_jax.arithmetic.paths import check_finite, flatten
from orthoreg_jax.storage import replacing_folder

from . import weights
from .config import WEIGHTS_SHA256, ClipConfig
from .config_files import to_huggingface
from .location import COMPANIONS, TOKENIZER, WEIGHTS
from .modules import Gather, VisionTransformer
from .open_clip import is_open_clip
from .opening import Base, open_model
from .preprocessing import Preprocessing, load_preprocessing, write_preprocessing
from .processor import has_processor
from .tensors import hash_file


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A loaded model.

    Attributes:
      config: the model's sizes.
      params: float32 numpy leaves, `{"visual": ..., "text": ..., "logit_scale": ()}`.
      directory: where it was read from; for a single weights file, the base's directory.
      sha256: hash of the weights file; of shards, a hash of their hashes.
      base: the model that was given as the one it was fine-tuned from.
      files: its weights files.
      texts: directory of the tokenizer's files, if they are elsewhere, with the text tower.
      notes: a sentence on each part that was left out, taken from the base, or set by default.
    """

    config: ClipConfig
    params: weights.Weights = dataclasses.field(repr=False)
    directory: pathlib.Path
    sha256: str
    base: Checkpoint | None = dataclasses.field(default=None, repr=False)
    files: tuple[pathlib.Path, ...] = dataclasses.field(default=(), repr=False)
    texts: pathlib.Path | None = dataclasses.field(default=None, repr=False)
    notes: tuple[str, ...] = ()

    @property
    def tower(self) -> VisionTransformer:
        """The image tower as a linen module; its parameters are `params["visual"]`."""
        return VisionTransformer(self.config.visual, self.config.projection)

    @property
    def tokenizer_directory(self) -> pathlib.Path:
        """The directory with the tokenizer's files."""
        return self.texts or self.directory

    @property
    def preprocessing_directory(self) -> pathlib.Path:
        """The directory with the preprocessing files: the model's own, or else the base's."""
        if self.base is None or has_processor(self.directory):
            return self.directory
        return self.base.preprocessing_directory

    @property
    def preprocessing(self) -> Preprocessing:
        """The image preprocessing of the model.

        Raises:
          ValueError: as `load_preprocessing`.
        """
        return load_preprocessing(self.preprocessing_directory, self.config)

    def hash_files(self) -> dict[str, str]:
        """SHA-256 of every file of the model, by name; those of a base start with "base/"."""
        names = COMPANIONS if is_open_clip(self.directory) else ("config.json", *COMPANIONS)
        paths = [*(self.directory / name for name in names), *self.files]
        if self.base is not None and self.base.directory == self.directory:
            paths = list(self.files)
        hashes = {path.name: hash_file(path) for path in paths if path.is_file()}
        below = {} if self.base is None else self.base.hash_files()
        return hashes | {f"base/{name}": each for name, each in below.items()}


def load_checkpoint(
    source: str | os.PathLike[str], base: str | os.PathLike[str] | Checkpoint | None = None
) -> Checkpoint:
    """Reads a CLIP model, or a part of one together with its base.

    Args:
      source: "embedded" (the small model in this package); a transformers directory with a whole
        CLIPModel; an open_clip directory (open_clip_config.json and safetensors); a preset
        ("ViT-B/32", "ViT-B/16", "ViT-L/14": OpenAI's weights at a fixed revision, whose hash is
        checked); or a hub name such as "openai/clip-vit-large-patch14", optionally with
        "@revision". With `base`, also a transformers directory with only an image tower (with or
        without a projection or a classifier's head), a peft LoRA adapter, or a safetensors file of
        either layout. Weights are safetensors, in one file or in shards.
      base: the CLIP from which the model was fine-tuned, as a source or already loaded. Whatever
        the model lacks is taken from it: text tower and tokenizer, projection, preprocessing.

    Raises:
      ValueError: nothing has that name, a file is truncated, the config describes another kind of
        model, or tensors do not fit it (all are listed).

    Examples:
      >>> clip = oj.load_checkpoint("embedded")
      >>> clip.params["visual"]["projection"]["kernel"].shape
      (256, 256)
    """
    if base is not None and not isinstance(base, Checkpoint):
        base = load_checkpoint(base)
    known = None if base is None else Base(base.config, flatten(base.params))
    opened = open_model(source, known)
    stored, files = opened.stored, opened.files
    where = files.paths[0] if len(files.paths) == 1 else opened.directory
    try:
        params = stored.params({} if known is None else known.leaves)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    config, sha256 = stored.config, files.sha256
    if sha256 != WEIGHTS_SHA256.get(str(source), sha256):
        raise ValueError(
            f"{where}: is not OpenAI's file for {source} (SHA-256 {sha256}, expected "
            f"{WEIGHTS_SHA256[str(source)]}); delete it to download it again"
        )
    directory, texts = opened.directory, None
    if base is not None:
        directory = directory or base.directory
        if "logit_scale" not in stored.paths:
            config = ClipConfig(
                visual=config.visual, text=base.config.text, projection=config.projection
            )
            texts = base.tokenizer_directory
        elif not any((directory / name).is_file() for name in TOKENIZER):
            texts = base.tokenizer_directory
    assert directory is not None
    return Checkpoint(config, params, directory, sha256, base, files.paths, texts, opened.notes)


def save_checkpoint(
    directory: str | os.PathLike[str],
    params: weights.Weights,
    like: Checkpoint,
    dtype: Any = np.float32,
    texts: Mapping[str, str] | None = None,
    overwrite: bool = False,
) -> pathlib.Path:
    """Writes a Hugging Face CLIP directory that transformers loads directly.

    Args:
      directory: must be new or empty.
      params: parameters with the structure of `like.params`.
      like: the checkpoint whose configuration, tokenizer and preprocessing are used.
      dtype: type of the tensors in the file.
      texts: other files by name, such as a model card README.md.
      overwrite: replace what the directory contains.

    Returns:
      The directory. It appears complete or not at all.

    Raises:
      ValueError: the directory is not empty, the parameters do not have the structure of `like` or
        are not finite, or its preprocessing cannot be read.
      StorageError: the directory cannot be written.
    """
    import safetensors
    import safetensors.numpy

    target = pathlib.Path(directory)
    if not target.is_dir() and target.exists():
        raise ValueError(f"{target}: is a file; choose a new directory for the model")
    if target.is_dir() and any(target.iterdir()) and not overwrite:
        raise ValueError(f"{target}: is not empty; choose a new directory for the model")
    tensors = weights.to_layout(params, "huggingface")
    with np.errstate(over="ignore"):  # overflow is checked below
        for key in tensors:  # one by one, because memory may hold only one copy of all
            tensors[key] = tensors[key].astype(dtype, copy=False)
    expected, found = weights.param_shapes(like.config), flatten(params)
    wrong = [
        f"{path} is {found[path].shape}, expected {shape}"
        for path, shape in expected.items()
        if found[path].shape != shape
    ]
    if wrong:
        raise ValueError(f"parameters differ in shape: {'; '.join(wrong)}")
    preprocessing = like.preprocessing
    advice = f"choose a smaller alpha, or a wider type than {np.dtype(dtype)}"
    check_finite(tensors, f"{target}: not written", advice)
    with replacing_folder(target) as scratch:
        config = json.dumps(to_huggingface(like.config), indent=2)
        (scratch / "config.json").write_text(config + "\n")
        safetensors.numpy.save_file(tensors, scratch / WEIGHTS, metadata={"format": "pt"})
        for name in TOKENIZER:
            if (like.tokenizer_directory / name).is_file():
                shutil.copy(like.tokenizer_directory / name, scratch / name)
        write_preprocessing(preprocessing, scratch)
        for name, text in (texts or {}).items():
            (scratch / name).write_text(text, encoding="utf-8")
    return target


def image_encoder(
    config: ClipConfig, dtype: Any = jnp.float32, remat: bool = False, gather: Gather | None = None
) -> Callable[[weights.Weights, Float[Array, "b size size 3"]], Float[Array, "b p"]]:
    """The image tower as a pure function `apply(params["visual"], pixels) -> features`.

    Features are projected and not normalised.

    Args:
      config: sizes of the model.
      dtype: type of the computation; parameters keep theirs.
      remat: recompute whole layers in the backward pass, to save memory; by default all but the
        outputs of their linear layers are recomputed.
      gather: applied to weights just before they are used, those of the blocks one block at a
        time.
    """
    tower = VisionTransformer(config.visual, config.projection, dtype, remat, gather)

    def apply(params: weights.Weights, pixels: Float[Array, "b size size 3"]) -> Any:
        if gather is not None:
            params = {
                name: part if name == "blocks" else gather(part) for name, part in params.items()
            }
        return tower.apply({"params": params}, pixels)

    return apply
