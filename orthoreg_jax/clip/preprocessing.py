"""Turns texts into token ids and images into pixels, with transformers' tokenizer and processor.

Images stay uint8 until they are on the device. `resize_images` does the steps on the host (RGB,
resize, centre crop), `Normalization` the others inside the compiled step.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Shaped, UInt8

from orthoreg_jax.extras import explained
from orthoreg_jax.words import counted

from .config import LEGACY_EOS, ClipConfig
from .processor import PREPROCESSOR, defaults, read_processor

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
      directory: the Hugging Face directory with the tokenizer's files.
      config: sizes of the model that will read the ids.
      truncate: cut texts that are too long instead of refusing them.

    Raises:
      ValueError: the directory has no tokenizer, the tokenizer does not belong to the model, or a
        text is too long.
    """
    import transformers

    directory = pathlib.Path(directory)
    if not any((directory / name).is_file() for name in TOKENIZER_FILES):
        raise ValueError(
            f"{directory}: has no tokenizer; expected {' or '.join(TOKENIZER_FILES)} (copy the "
            "checkpoint's tokenizer files next to its weights)"
        )
    try:
        tokenizer = transformers.CLIPTokenizer.from_pretrained(str(directory))
    except Exception as error:  # tokenizers raises plain Exception for a damaged file
        raise ValueError(
            f"{directory}: its tokenizer cannot be read ({error}); copy its files again"
        ) from error
    if len(tokenizer) > config.text.vocab_size:
        raise ValueError(
            f"{directory}: the tokenizer has {len(tokenizer)} tokens, the model "
            f"{config.text.vocab_size}; use the tokenizer that belongs to the weights"
        )
    if tokenizer.pad_token_id is None:
        raise ValueError(
            f"{directory}: the tokenizer has no pad_token; set it in tokenizer_config.json to "
            "the end-of-text token, as CLIP does"
        )
    length, end = config.text.context_length, config.text.eos_token_id
    rows = tokenizer(list(texts), truncation=truncate, max_length=length)["input_ids"]
    long = [text for text, row in zip(texts, rows, strict=True) if len(row) > length]
    if long:
        raise ValueError(
            f"{counted(len(long), 'text exceeds', 'texts exceed')} the model's limit of "
            f"{length} tokens (first: {long[0]!r}); shorten the class name or the template"
        )
    padded = [row + [tokenizer.pad_token_id] * (length - len(row)) for row in rows]
    ids = np.array(padded, np.int32).reshape(len(rows), length)
    if end != LEGACY_EOS and not (ids == end).any(axis=1).all():
        raise ValueError(
            f"{directory}: the tokenizer ends a text with {tokenizer.eos_token_id}, config.json "
            f"says {end} (text_config.eos_token_id); use files that belong together"
        )
    if end == LEGACY_EOS and not (ids.max(axis=1) == tokenizer.eos_token_id).all():
        raise ValueError(
            f"{directory}: the tokenizer ends a text with {tokenizer.eos_token_id}, which is not "
            "its largest id; set text_config.eos_token_id in config.json to that id"
        )
    return ids


@dataclasses.dataclass(frozen=True)
class Normalization:
    """(factor * image - mean) / std per colour channel, for images scaled 0 to 255.

    `mean` and `std` are on the scale after `factor`, usually from 0 to 1.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    factor: float = 1 / 255

    def __post_init__(self) -> None:
        if not (np.isfinite([*self.mean, *self.std]).all() and min(self.std) > 0):
            raise ValueError(
                f"image_mean {list(self.mean)} and image_std {list(self.std)} must be finite, and "
                "image_std above 0: pixels become (value - mean) / std"
            )

    def __call__(self, images: Shaped[Array, "b h w 3"]) -> Float[Array, "b h w 3"]:
        """Turns images scaled 0 to 255 (uint8, or float after a crop) into pixels for the tower."""
        # Scale and shift in one multiplication and one addition per value.
        mean, std = jnp.float32(jnp.array(self.mean)), jnp.float32(jnp.array(self.std))
        return images.astype(jnp.float32) * (1 / (jnp.float32(1 / self.factor) * std)) - mean / std


class Preprocessing(NamedTuple):
    """A checkpoint's image preprocessing: on the host up to uint8, then on the device.

    `notes` say what the checkpoint's files do not specify.
    """

    processor: Any  # transformers' CLIPImageProcessorPil
    size: int
    normalize: Normalization
    notes: tuple[str, ...] = ()

    def leaves_as_is(self, images: Any) -> bool:
        """Whether resizing and cropping would leave the images unchanged."""
        sides = {self.size}  # sides of the processor's resized images, and of the images
        target = {value for value in dict(self.processor.size).values() if value}
        return (
            isinstance(images, np.ndarray)
            and {*images.shape[1:3]} == sides
            and (not self.processor.do_resize or target == sides)
        )

    def resize(self, images: Sequence[Any] | np.ndarray) -> UInt8[np.ndarray, "b size size 3"]:
        """Converts to RGB, resizes the shorter side and centre-crops, as the checkpoint specifies.

        Args:
          images: PIL images, uint8 arrays of shape (h, w, 3), or one array (b, h, w, 3).
        """
        import PIL.Image

        if self.leaves_as_is(images):
            return np.asarray(images)
        # In an array with 1 or 3 rows, the processor would mistake the rows for channels.
        pictures = [PIL.Image.fromarray(each) if isinstance(each, np.ndarray) else each
                    for each in images]  # fmt: skip
        pixels = self.processor(
            images=pictures, do_rescale=False, do_normalize=False, return_tensors="np"
        )["pixel_values"]
        return np.asarray(pixels).astype(np.uint8).transpose(0, 2, 3, 1)


@explained("orthoreg_jax.load_preprocessing")
def load_preprocessing(directory: str | pathlib.Path, config: ClipConfig) -> Preprocessing:
    """Reads the image preprocessing of a checkpoint.

    The first of these that exists is used: open_clip's configuration, for an open_clip model;
    `processor_config.json`, if it has an image processor; `preprocessor_config.json`. Without any,
    OpenAI's published values are used, and `notes` say so.

    Args:
      directory: the checkpoint's directory.
      config: its sizes.

    Raises:
      ValueError: a file cannot be read, or asks for something that is not supported, for example a
        crop of another size than the model reads.

    Examples:
      >>> clip = oj.load_checkpoint("embedded")
      >>> oj.load_preprocessing(clip.directory, clip.config).size
      32
    """
    # Imported by module: in some versions of transformers, the plain name needs torchvision.
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    size = config.visual.image_size
    values, notes = read_processor(pathlib.Path(directory), size)
    # Images are RGB, whatever a file says, because the tower reads three channels.
    processor = CLIPImageProcessorPil(**values, do_convert_rgb=True)
    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    if values["do_normalize"]:
        mean, std = values["image_mean"], values["image_std"]
    factor = float(values["rescale_factor"]) if values["do_rescale"] else 1.0
    return Preprocessing(processor, size, Normalization(mean, std, factor), notes)


def write_preprocessing(preprocessing: Preprocessing, directory: pathlib.Path) -> None:
    """Writes `preprocessor_config.json`, which every version of transformers reads.

    All steps are stated, so the result does not depend on a version's defaults.
    """
    processor = preprocessing.processor
    stated = {key: getattr(processor, key) for key in defaults(preprocessing.size)}
    for key in ("size", "crop_size"):
        stated[key] = dict(stated[key])
    stated |= {"image_processor_type": "CLIPImageProcessor", "do_convert_rgb": True}
    (directory / PREPROCESSOR).write_text(json.dumps(stated, indent=2) + "\n", encoding="utf-8")
