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

from .config import ClipConfig

TOKENIZER_FILES = ("tokenizer.json", "vocab.json")


def tokenize(
    texts: Sequence[str], directory: str | pathlib.Path, config: ClipConfig
) -> Int[np.ndarray, "t n"]:
    """Token ids of texts, padded and cut to the model's context length.

    Args:
      texts: any strings.
      directory: the Hugging Face directory that holds the tokenizer's files.
      config: of the model that will read the ids.

    Raises:
      ValueError: no tokenizer there, or one whose ids the model has no embedding for.
    """
    import transformers

    directory = pathlib.Path(directory)
    if not any((directory / name).is_file() for name in TOKENIZER_FILES):
        raise ValueError(
            f"{directory}: holds no tokenizer; expected {' or '.join(TOKENIZER_FILES)} (copy the "
            "tokenizer's files of the checkpoint beside its weights)"
        )
    tokenizer = transformers.CLIPTokenizer.from_pretrained(str(directory))
    if len(tokenizer) > config.text.vocab_size:
        raise ValueError(
            f"{directory}: the tokenizer knows {len(tokenizer)} tokens, the model "
            f"{config.text.vocab_size}; use the tokenizer that belongs to the weights"
        )
    ids = tokenizer(
        list(texts),
        padding="max_length",
        truncation=True,
        max_length=config.text.context_length,
        return_tensors="np",
    )
    return ids["input_ids"].astype(np.int32)


@dataclasses.dataclass(frozen=True)
class Normalization:
    """Mean and standard deviation of each colour channel, on the scale 0 to 1."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]

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

    def resize(self, images: Sequence[Any] | np.ndarray) -> UInt8[np.ndarray, "b size size 3"]:
        """RGB conversion, resize of the shorter side and centre crop, as the checkpoint says.

        Args:
          images: PIL images, or uint8 arrays of shape (h, w, 3); also one array (b, h, w, 3).
        """
        if isinstance(images, np.ndarray) and images.shape[1:] == (self.size, self.size, 3):
            return images  # resize and crop would give the same bytes back
        pixels = self.processor(
            images=list(images), do_rescale=False, do_normalize=False, return_tensors="np"
        )["pixel_values"]
        return np.asarray(pixels).astype(np.uint8).transpose(0, 2, 3, 1)


def load_preprocessing(directory: str | pathlib.Path, config: ClipConfig) -> Preprocessing:
    """Reads `preprocessor_config.json`; without that file, CLIP's published values hold.

    Raises:
      ValueError: the crop is not the size of image that the model reads.
    """
    # By its module: the plain name needs torchvision in some versions of transformers.
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    directory = pathlib.Path(directory)
    size = config.visual.image_size
    if (directory / "preprocessor_config.json").is_file():
        processor = CLIPImageProcessorPil.from_pretrained(str(directory))
    else:
        processor = CLIPImageProcessorPil(
            size={"shortest_edge": size}, crop_size={"height": size, "width": size}
        )
    crop = (processor.crop_size["height"], processor.crop_size["width"])
    if crop != (size, size):
        raise ValueError(
            f"{directory / 'preprocessor_config.json'}: crops to {crop}, the model reads "
            f"({size}, {size}); use the preprocessor_config.json that belongs to the weights"
        )
    normalization = Normalization(tuple(processor.image_mean), tuple(processor.image_std))
    return Preprocessing(processor, size, normalization)
