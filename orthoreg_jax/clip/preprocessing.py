"""Texts to token ids and images to pixels, by transformers' own tokenizer and processor.

Images stay uint8 until they are on the device: `resize_images` does what has to be done on the
host (RGB, resize, centre crop), `Normalization` the rest inside the compiled step.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Shaped, UInt8

from .config import LEGACY_EOS, OPEN_CLIP, ClipConfig, read_open_clip

TOKENIZER_FILES = ("tokenizer.json", "vocab.json")


def tokenize(
    texts: Sequence[str],
    directory: str | pathlib.Path,
    config: ClipConfig,
    truncate: bool = False,
) -> Int[np.ndarray, "t n"]:
    """Token ids of texts, padded to the model's context length.

    Args:
      texts: any strings.
      directory: the Hugging Face directory that holds the tokenizer's files.
      config: of the model that will read the ids.
      truncate: cut texts that are too long instead of refusing them.

    Raises:
      ValueError: no tokenizer there, one that does not belong to the model, or a text that is
        too long for it.
    """
    import transformers

    directory = pathlib.Path(directory)
    if not any((directory / name).is_file() for name in TOKENIZER_FILES):
        raise ValueError(
            f"{directory}: holds no tokenizer; expected {' or '.join(TOKENIZER_FILES)} (copy the "
            "tokenizer's files of the checkpoint beside its weights)"
        )
    try:
        tokenizer = transformers.CLIPTokenizer.from_pretrained(str(directory))
    except Exception as error:  # tokenizers raises plain Exception for a damaged file
        raise ValueError(
            f"{directory}: its tokenizer cannot be read ({error}); copy its files again"
        ) from error
    if len(tokenizer) > config.text.vocab_size:
        raise ValueError(
            f"{directory}: the tokenizer knows {len(tokenizer)} tokens, the model "
            f"{config.text.vocab_size}; use the tokenizer that belongs to the weights"
        )
    length, end = config.text.context_length, config.text.eos_token_id
    rows = tokenizer(list(texts), truncation=truncate, max_length=length)["input_ids"]
    long = [text for text, row in zip(texts, rows, strict=True) if len(row) > length]
    if long:
        raise ValueError(
            f"{len(long)} texts are longer than the {length} tokens that the model reads, the "
            f"first is {long[0]!r}; shorten the class name or the template"
        )
    padded = [row + [tokenizer.pad_token_id] * (length - len(row)) for row in rows]
    ids = np.array(padded, np.int32).reshape(len(rows), length)
    if end != LEGACY_EOS and not (ids == end).any(axis=1).all():
        raise ValueError(
            f"{directory}: the tokenizer ends a text with {tokenizer.eos_token_id}, config.json "
            f"says {end} (text_config.eos_token_id); use the files that belong together"
        )
    return ids


@dataclasses.dataclass(frozen=True)
class Normalization:
    """Mean and standard deviation of each colour channel, on the scale 0 to 1."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __post_init__(self) -> None:
        if not (np.isfinite([*self.mean, *self.std]).all() and min(self.std) > 0):
            raise ValueError(
                f"image_mean {list(self.mean)} and image_std {list(self.std)} are to be finite "
                "numbers, the latter above 0: pixels are (value - mean) / std"
            )

    def __call__(self, images: Shaped[Array, "b h w 3"]) -> Float[Array, "b h w 3"]:
        """Images on the scale 0 to 255 (uint8, or float after a crop) as pixels for the tower."""
        # Scale and shift in one multiplication and one addition per value.
        mean, std = jnp.float32(jnp.array(self.mean)), jnp.float32(jnp.array(self.std))
        return images.astype(jnp.float32) * (1 / (255 * std)) - mean / std


class Preprocessing(NamedTuple):
    """A checkpoint's image preprocessing: on the host up to uint8, the rest on the device."""

    processor: Any  # transformers' CLIPImageProcessorPil
    size: int
    normalize: Normalization

    def leaves_as_is(self, images: Any) -> bool:
        """Whether resize and crop would give the same bytes back."""
        sides = {self.size}  # of what the processor resizes to, and of the images
        return isinstance(images, np.ndarray) and {*images.shape[1:3]} == sides == {
            value for value in dict(self.processor.size).values() if value
        }

    def resize(self, images: Sequence[Any] | np.ndarray) -> UInt8[np.ndarray, "b size size 3"]:
        """RGB conversion, resize of the shorter side and centre crop, as the checkpoint says.

        Args:
          images: PIL images, or uint8 arrays of shape (h, w, 3); also one array (b, h, w, 3).
        """
        import PIL.Image

        if self.leaves_as_is(images):
            return np.asarray(images)
        # Of an array of 1 or 3 rows, the processor would take the rows for channels.
        pictures = [PIL.Image.fromarray(each) if isinstance(each, np.ndarray) else each
                    for each in images]  # fmt: skip
        pixels = self.processor(
            images=pictures, do_rescale=False, do_normalize=False, return_tensors="np"
        )["pixel_values"]
        return np.asarray(pixels).astype(np.uint8).transpose(0, 2, 3, 1)


def load_preprocessing(directory: str | pathlib.Path, config: ClipConfig) -> Preprocessing:
    """Reads `preprocessor_config.json`, or else what `open_clip_config.json` says.

    Without either, CLIP's published values hold.

    Args:
      directory: of the checkpoint.
      config: its sizes.

    Raises:
      ValueError: the crop is not the size of image that the model reads.
    """
    # By its module: the plain name needs torchvision in some versions of transformers.
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    directory = pathlib.Path(directory)
    size = config.visual.image_size
    path = directory / "preprocessor_config.json"
    if path.is_file():
        try:
            processor = CLIPImageProcessorPil.from_pretrained(str(directory))
        except Exception as error:  # not JSON, or values of a wrong kind
            raise ValueError(f"{path}: cannot be read ({error}); copy it again") from error
    else:
        changes = _from_open_clip(directory) if (directory / OPEN_CLIP).is_file() else {}
        processor = CLIPImageProcessorPil(
            size={"shortest_edge": size}, crop_size={"height": size, "width": size}, **changes
        )
    crop = (processor.crop_size["height"], processor.crop_size["width"])
    if crop != (size, size):
        raise ValueError(
            f"{path}: crops to {crop}, the model reads "
            f"({size}, {size}); use the preprocessor_config.json that belongs to the weights"
        )
    try:
        normalization = Normalization(tuple(processor.image_mean), tuple(processor.image_std))
    except ValueError as error:
        raise ValueError(f"{path if path.is_file() else directory / OPEN_CLIP}: {error}") from error
    return Preprocessing(processor, size, normalization)


def _from_open_clip(directory: pathlib.Path) -> dict[str, Any]:
    """Mean and standard deviation that open_clip's configuration states."""
    stated = read_open_clip(directory).get("preprocess_cfg") or {}
    other = {key: stated[key] for key, usual in (("interpolation", "bicubic"),
             ("resize_mode", "shortest")) if stated.get(key, usual) != usual}  # fmt: skip
    if other:
        raise ValueError(
            f"{directory / OPEN_CLIP}: preprocesses images by {other}; this program does as CLIP "
            "does: shortest side, bicubic"
        )
    names = {"mean": "image_mean", "std": "image_std"}
    return {ours: stated[theirs] for theirs, ours in names.items() if theirs in stated}
