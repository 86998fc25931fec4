"""A CLIP model in memory: read from other libraries' files, saved as a Hugging Face directory."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from orthoreg_jax.arithmetic.paths import briefly, check_arrays, flatten
from orthoreg_jax.arithmetic.task_vectors import apply_task_vector

from . import weights
from .config import WEIGHTS_SHA256, ClipConfig
from .location import COMPANIONS, TOKENIZER
from .modules import Gather, VisionTransformer
from .open_clip import is_open_clip
from .opening import Base, open_model
from .preprocessing import Preprocessing, load_preprocessing
from .processor import has_processor
from .saving import Companions, check_output, stored_type, write_model
from .tensors import hash_file


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A loaded model.

    Attributes:
      config: the model's sizes.
      params: float32 numpy leaves, `{"visual": ..., "text": ..., "logit_scale": ()}`.
      directory: where it came from; the base's for a single file of weights.
      sha256: hash of the weights file; of shards, of their hashes.
      base: the model that was named as the one it was fine-tuned from.
      files: of its weights.
      texts: where the tokenizer's files are, if elsewhere: they belong to the text tower.
      notes: a sentence for all that was left out, taken from the base, or by default.

    Examples:
      >>> clip = oj.load_checkpoint("embedded")
      >>> list(clip.params), clip.config.visual.layers
      (['logit_scale', 'text', 'visual'], 3)
    """

    config: ClipConfig
    params: weights.Weights = dataclasses.field(repr=False)
    directory: pathlib.Path
    sha256: str
    base: Checkpoint | None = dataclasses.field(default=None, repr=False)
    files: tuple[pathlib.Path, ...] = dataclasses.field(default=(), repr=False)
    texts: pathlib.Path | None = dataclasses.field(default=None, repr=False)
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        count = sum(np.size(leaf) for leaf in flatten(self.params).values())
        pixels = self.config.visual.image_size
        return f"Checkpoint({str(self.directory)!r}: {count / 1e6:.1f} M parameters, {pixels} px)"

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

    @property
    def companions(self) -> Companions:
        """What a directory of the model holds beside its weights."""
        directories = self.preprocessing_directory, self.tokenizer_directory
        return Companions(self.config, self.preprocessing, *directories)

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
    if not isinstance(source, str | os.PathLike):
        raise ValueError(
            f"source is {briefly(source)}, a {type(source).__name__}; give the name of a "
            "model, or its directory"
        )
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


def check_checkpoint(value: Any, name: str = "checkpoint") -> None:
    """Checks that a value is a `Checkpoint`, not its parameters or its name.

    Raises:
      ValueError: it is not. The error calls it `name`.
    """
    if not isinstance(value, Checkpoint):
        raise ValueError(
            f"{name} is {briefly(value)}, a {type(value).__name__}; give a Checkpoint, as "
            "oj.load_checkpoint returns it"
        )


def save_checkpoint(
    directory: str | os.PathLike[str],
    params: weights.Weights,
    like: Checkpoint,
    dtype: Any = np.float32,
    texts: Mapping[str, str] | None = None,
    overwrite: bool = False,
    layout: str = "transformers",
) -> pathlib.Path:
    """Writes a CLIP's directory, by default one that transformers' CLIPModel loads.

    Args:
      directory: must not exist yet, or be empty.
      params: parameters of the same structure as `like.params`.
      like: the checkpoint whose configuration, tokenizer and preprocessing are kept.
      dtype: of the tensors in the file: float16, bfloat16, float32 or float64.
      texts: further files by name, as a model card README.md.
      overwrite: take the place of what the directory holds.
      layout: "transformers"; "vision" or "vision-bare" (CLIPVisionModel: the image tower alone,
        keys with or without "vision_model."), "vision-projection" (the same with the projection);
        or "open_clip".

    Returns:
      The directory. It appears complete or not at all.

    Raises:
      ValueError: the directory holds something; the parameters are not those of `like`, or NaN or
        infinite in this type; another type or layout, or a model that the layout cannot state; the
        preprocessing of `like` cannot be read.
      StorageError: it cannot be written.

    Examples:
      >>> clip = oj.load_checkpoint("embedded")
      >>> folder = oj.save_checkpoint("copy", clip.params, like=clip)
      >>> sorted(path.name for path in folder.iterdir())[:3]
      ['config.json', 'model.safetensors', 'preprocessor_config.json']
    """
    check_checkpoint(like, "like")
    check_arrays(params, "params")
    check_output(layout, {})
    stored_type(dtype)
    leaves = {path: np.asarray(leaf) for path, leaf in flatten(params).items()}
    expected = weights.param_shapes(like.config)
    if differing := expected.keys() ^ leaves.keys():
        raise ValueError(
            f"not the parameters of a whole CLIP: {', '.join(sorted(differing))} missing or "
            "unknown; merge an image tower into the full parameters first"
        )
    wrong = [
        f"{path} is {leaves[path].shape}, expected {shape}"
        for path, shape in expected.items()
        if leaves[path].shape != shape
    ]
    if wrong:
        raise ValueError(f"parameters differ in shape: {'; '.join(wrong)}")

    def read(path: str, place: int | None) -> np.ndarray:
        return leaves[path] if place is None else leaves[path][place : place + 1]

    target = _free(directory, overwrite)
    write_model(target, read, like.companions, layout, dtype, texts)
    return target


def save_edited(
    directory: str | os.PathLike[str],
    like: Checkpoint,
    vector: Any,
    alpha: float,
    texts: Mapping[str, str] | None = None,
    overwrite: bool = False,
    layout: str = "transformers",
) -> pathlib.Path:
    """Writes theta_0 + alpha * tau layer by layer: memory holds no second copy of the weights.

    Args:
      directory: as of `save_checkpoint`, also `texts`, `overwrite` and `layout`.
      like: the checkpoint with theta_0.
      vector: the task vector, dense, of numpy arrays.
      alpha: its scale.
      texts: files.
      overwrite: or not.
      layout: of the directory.

    Raises:
      ValueError: as `save_checkpoint`; a vector that does not fit; or one that changes what the
        layout leaves out.
      StorageError: it cannot be written.
    """
    jax.eval_shape(apply_task_vector, like.params, vector, alpha)  # refuses what does not fit
    leaves, changes = flatten(like.params), flatten(vector)
    check_output(layout, changes)

    def read(path: str, place: int | None) -> np.ndarray:
        where = ... if place is None else slice(place, place + 1)
        leaf = leaves[path][where]
        if path not in changes:
            return np.asarray(leaf)
        change = np.asarray(changes[path])[where].astype(np.float32, copy=False)
        with np.errstate(over="ignore"):  # it is looked for when it is written
            return np.asarray(leaf + np.float32(alpha) * change)

    target = _free(directory, overwrite)
    write_model(target, read, like.companions, layout, texts=texts)
    return target


def _free(directory: str | os.PathLike[str], overwrite: bool) -> pathlib.Path:
    target = pathlib.Path(directory)
    if not target.is_dir() and target.exists():
        raise ValueError(f"{target}: is a file; choose a new directory for the model")
    if target.is_dir() and any(target.iterdir()) and not overwrite:
        raise ValueError(f"{target}: is not empty; choose a new directory for the model")
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

    Examples:
      >>> clip = oj.load_checkpoint("embedded")
      >>> apply = oj.image_encoder(clip.config)
      >>> apply(clip.params["visual"], jnp.zeros((2, 32, 32, 3))).shape
      (2, 256)
    """
    tower = VisionTransformer(config.visual, config.projection, dtype, remat, gather)

    def apply(params: weights.Weights, pixels: Float[Array, "b size size 3"]) -> Any:
        if gather is not None:
            params = {
                name: part if name == "blocks" else gather(part) for name, part in params.items()
            }
        return tower.apply({"params": params}, pixels)

    return apply
