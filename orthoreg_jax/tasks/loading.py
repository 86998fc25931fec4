"""Images of a split as arrays of the model's input size: all at once, or in batches."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from jaxtyping import Int, UInt8

from orthoreg_jax.clip.preprocessing import Preprocessing

from .batches import training_row
from .decoding import THREADS
from .split import ArrayImages, Images, Split

TRIES = 10
RATIO = (3 / 4, 4 / 3)

Batch = tuple[UInt8[np.ndarray, "b h w 3"], Int[np.ndarray, " b"]]


def load_images(
    images: Images, rows: Sequence[int] | Int[np.ndarray, " n"], preprocessing: Preprocessing
) -> UInt8[np.ndarray, "n size size 3"]:
    """Images, preprocessed for evaluation, as uint8 (not yet normalised).

    Raises:
      ValueError: an image cannot be decoded; the message names it.
    """
    if isinstance(images, ArrayImages):
        return preprocessing.resize(images.rgb()[np.asarray(rows)])

    def one(row: int) -> UInt8[np.ndarray, "size size 3"]:
        return preprocessing.resize([images[row]])[0]

    with ThreadPoolExecutor(THREADS) as pool:
        size = preprocessing.size
        return np.array(list(pool.map(one, map(int, rows))), np.uint8).reshape(-1, size, size, 3)


@dataclasses.dataclass(frozen=True)
class Feed:
    """Training batches of a task, a pure function of seed and step.

    Every image is cropped from the whole picture and resized on the host, like CLIP's training
    augmentation, so the way in which images are stored does not matter. In a run on several hosts,
    each process makes its own part of every batch.

    Attributes:
      split: training split of the task.
      preprocessing: preprocessing of the model.
      batch_size: images in a batch, over all processes.
      seed: determines order and crops.
      crop_scale: smallest share of a picture that a crop keeps; 1: no crop.
      process: number of this process, of `processes`.
      processes: number of processes that share each batch.
    """

    split: Split
    preprocessing: Preprocessing
    batch_size: int
    seed: int
    crop_scale: float = 1.0
    process: int = 0
    processes: int = 1

    def batches(self, first: int, last: int) -> Iterator[Batch]:
        """Batches of steps `first` to `last - 1`, prepared ahead of time."""
        return _made_ahead(self.batch, first, last)

    def batch(self, step: int) -> Batch:
        """This process's part of the batch of a step."""
        start = int(step) * self.batch_size + self.process * self._part
        places = range(start, start + self._part)
        rows = [training_row(len(self.split), place, self.seed) for place in places]
        if self.crop_scale == 1:
            images = load_images(self.split.images, rows, self.preprocessing)
        else:
            pairs = zip(places, rows, strict=True)
            images = np.stack([self._crop(place, self.split.images[row]) for place, row in pairs])
        return images, self.split.labels[rows]

    def _crop(self, place: int, image: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "s s 3"]:
        """The crop at a place in the endless sequence of images; it differs in every epoch."""
        rng = np.random.default_rng((self.seed, 1, place))
        return random_crop(rng, image, self.preprocessing.size, self.crop_scale)

    @property
    def _part(self) -> int:
        return self.batch_size // self.processes


@dataclasses.dataclass(frozen=True)
class Rotation:
    """Images of several feeds, one feed a step, in turn; also a pure function of the step."""

    feeds: tuple[Feed, ...]

    def batches(self, first: int, last: int) -> Iterator[UInt8[np.ndarray, "b h w 3"]]:
        """Images of steps `first` to `last - 1`, prepared ahead of time."""
        return _made_ahead(self._images, first, last)

    def _images(self, step: int) -> UInt8[np.ndarray, "b h w 3"]:
        turn, place = divmod(int(step), len(self.feeds))
        return self.feeds[place].batch(turn)[0]


def _made_ahead(make: Callable[[int], Any], first: int, last: int) -> Iterator[Any]:
    import grain

    options = grain.ReadOptions(num_threads=THREADS, prefetch_buffer_size=2 * THREADS)
    # A thread makes a whole batch: handing over single images costs more than small ones do.
    return iter(grain.MapDataset.range(first, last).map(make).to_iter_dataset(options))


def random_crop(
    rng: np.random.Generator, image: UInt8[np.ndarray, "h w 3"], size: int, smallest: float
) -> UInt8[np.ndarray, "size size 3"]:
    """Crops a random box and resizes it to a square, bicubic.

    The box's share of the area is uniform from `smallest` to 1, its aspect ratio log-uniform from
    3:4 to 4:3. A box that does not fit is drawn again, at most 10 times; then the largest centred
    box with a ratio in these bounds is used. This is the recipe of CLIP's training, on the host.
    """
    import PIL.Image

    height, width = image.shape[:2]
    low, high = map(math.log, RATIO)
    for _ in range(TRIES):
        area = height * width * rng.uniform(smallest, 1.0)
        ratio = math.exp(rng.uniform(low, high))
        tall, wide = round(math.sqrt(area / ratio)), round(math.sqrt(area * ratio))
        if 0 < tall <= height and 0 < wide <= width:
            top, left = rng.integers(0, height - tall + 1), rng.integers(0, width - wide + 1)
            break
    else:
        wide = min(width, round(height * RATIO[1]))
        tall = min(height, round(width / RATIO[0]))
        top, left = (height - tall) // 2, (width - wide) // 2
    cut = PIL.Image.fromarray(image[top : top + tall, left : left + wide])
    return np.asarray(cut.resize((size, size), PIL.Image.Resampling.BICUBIC))
