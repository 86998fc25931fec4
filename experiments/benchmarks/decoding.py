r"""Images per second of the input pipeline, compared with what a train step needs.

    python experiments/benchmarks/decoding.py --rounds 5

It reads photographs of a typical size (500 x 375 pixels, JPEG of quality 90) from files, decodes
and randomly crops them, resizes them to 224 and batches them, as in training; and resizes and crops
them as in evaluation. It does the same with the embedded tasks' arrays, 32 x 32. The train steps
are those of experiments/benchmarks/cost.py, compiled here and timed in turns with the rest. Writes
experiments/results/decoding.md and .json.
"""

from __future__ import annotations

import argparse
import functools
import os
import pathlib
import tempfile
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import PIL.Image
from cost import CompiledStep
from measuring import medians, write_page

from orthoreg_jax.clip.checkpoint import load_checkpoint
from orthoreg_jax.clip.config import PRESETS
from orthoreg_jax.clip.preprocessing import load_preprocessing
from orthoreg_jax.reporting.tables import markdown_rows
from orthoreg_jax.tasks.folder import FileImages
from orthoreg_jax.tasks.loading import Feed, load_images
from orthoreg_jax.tasks.split import Split
from orthoreg_jax.tasks.task import load_tasks

IMAGES, BATCH = 256, 32


def write_photographs(folder: pathlib.Path) -> Split:
    """Writes JPEGs whose detail decays with frequency like that of photographs."""
    rng = np.random.default_rng(0)
    for number in range(IMAGES):
        image = np.zeros((375, 500, 3), np.float32)
        for size in (4, 12, 36, 108, 375):
            coarse = rng.normal(size=(size, size, 3)) * 60 / size**0.3
            rough = PIL.Image.fromarray(np.clip(coarse + 128, 0, 255).astype(np.uint8))
            image += np.asarray(rough.resize((500, 375), PIL.Image.Resampling.BICUBIC)) - 128.0
        picture = PIL.Image.fromarray(np.clip(image + 128, 0, 255).astype(np.uint8))
        picture.save(folder / f"{number:04d}.jpg", quality=90)
    paths = tuple(f"{number:04d}.jpg" for number in range(IMAGES))
    return Split(FileImages(folder, paths), np.zeros(IMAGES, np.int32))


def measure(rounds: int) -> dict[str, float]:
    """Images per second of all ways, interleaved."""
    embedded = load_checkpoint("embedded")
    small = load_preprocessing(embedded.directory, embedded.config)
    arrays = load_tasks("embedded", ["mnist"])["mnist"].splits["train"]
    count: dict[str, int] = {}
    ways: dict[str, Callable[[], Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        large = load_preprocessing(folder, PRESETS["ViT-B/32"])
        files = write_photographs(pathlib.Path(folder))
        size = sum(path.stat().st_size for path in pathlib.Path(folder).iterdir()) / IMAGES
        kinds = {
            f"JPEG 500 x 375 ({size / 1000:.0f} kB) to 224": (files, large),
            "arrays 32 x 32": (arrays, small),
        }
        for kind, (split, preprocessing) in kinds.items():
            feed = Feed(split, preprocessing, BATCH, 0, 0.9)
            load = functools.partial(load_images, split.images, range(IMAGES), preprocessing)
            ways[f"{kind}, training"] = functools.partial(every_batch, feed)
            ways[f"{kind}, evaluation"] = load
        count |= dict.fromkeys(ways, IMAGES)
        for model in ("ViT-B/32", "embedded"):
            for method in ("full", "attention"):
                name = f"train step takes: {model}, {method}"
                ways[name], count[name] = CompiledStep(model, method, BATCH).run, BATCH
        return {name: count[name] / seconds for name, seconds in medians(ways, rounds).items()}


def every_batch(feed: Feed) -> None:
    """Makes the batches of one epoch."""
    assert len(list(feed.batches(0, IMAGES // BATCH))) == IMAGES // BATCH


def main() -> None:
    """Measures everything and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    rates = measure(parser.parse_args().rounds)
    device = jax.devices()[0].device_kind
    title = f"Images per second, {os.cpu_count()} CPU cores, batch {BATCH} on {device}"
    cells = [[name, f"{rate:.0f}"] for name, rate in rates.items()]
    write_page("decoding", title, rates, markdown_rows(("", "images / s"), cells))


if __name__ == "__main__":
    main()
