r"""How many images a second the input pipeline makes, beside what a train step takes.

    python experiments/benchmarks/decoding.py --rounds 5

Photographs of a typical size (500 x 375 pixels, JPEG of quality 90) are read from files, decoded,
cropped at random, resized to 224 and batched, as training does; and resized and cropped as
evaluation does. The same of the embedded tasks' arrays, 32 x 32. The train steps are those of
experiments/cost.py, compiled and timed here, in turn with the rest. Writes
experiments/results/decoding.md and .json.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import PIL.Image

from orthoreg_jax.clip.checkpoint import load_checkpoint
from orthoreg_jax.clip.config import PRESETS
from orthoreg_jax.clip.preprocessing import Preprocessing, load_preprocessing
from orthoreg_jax.reporting.tables import markdown_rows
from orthoreg_jax.storage import write_json, write_text
from orthoreg_jax.tasks.folder import FileImages
from orthoreg_jax.tasks.loading import Feed, load_images
from orthoreg_jax.tasks.split import Split
from orthoreg_jax.tasks.task import load_tasks

ROOT = pathlib.Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "experiments"))

from cost import Timed  # noqa: E402

PHOTOGRAPHS, BATCH, STEPS = 256, 32, 8


def write_photographs(folder: pathlib.Path) -> Split:
    """JPEGs whose detail falls off with frequency as that of photographs does."""
    rng = np.random.default_rng(0)
    for number in range(PHOTOGRAPHS):
        image = np.zeros((375, 500, 3), np.float32)
        for size in (4, 12, 36, 108, 375):
            coarse = rng.normal(size=(size, size, 3)) * 60 / size**0.3
            rough = PIL.Image.fromarray(np.clip(coarse + 128, 0, 255).astype(np.uint8))
            image += np.asarray(rough.resize((500, 375), PIL.Image.Resampling.BICUBIC)) - 128.0
        picture = PIL.Image.fromarray(np.clip(image + 128, 0, 255).astype(np.uint8))
        picture.save(folder / f"{number:04d}.jpg", quality=90)
    paths = tuple(f"{number:04d}.jpg" for number in range(PHOTOGRAPHS))
    return Split(FileImages(folder, paths), np.zeros(PHOTOGRAPHS, np.int32))


def training(split: Split, preprocessing: Preprocessing) -> Callable[[], int]:
    """Makes some batches; returns how many images those were."""
    feed = Feed(split, preprocessing, BATCH, 0, 0.9)

    def run() -> int:
        return sum(len(labels) for _, labels in feed.batches(0, STEPS))

    return run


def evaluation(split: Split, preprocessing: Preprocessing) -> Callable[[], int]:
    """Preprocesses images for evaluation; returns how many."""
    rows = range(min(len(split), BATCH * STEPS))

    def run() -> int:
        return len(load_images(split.images, rows, preprocessing))

    return run


def measure(rounds: int) -> list[dict[str, Any]]:
    """Medians, all taken in turn."""
    embedded = load_checkpoint("embedded")
    small = load_preprocessing(embedded.directory, embedded.config)
    arrays = load_tasks("embedded", ["mnist"])["mnist"].splits["train"]
    steps = [Timed(model, method, BATCH)
             for model in ("ViT-B/32", "embedded") for method in ("full", "attention")]  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        large = load_preprocessing(folder, PRESETS["ViT-B/32"])
        files = write_photographs(pathlib.Path(folder))
        size = sum(path.stat().st_size for path in pathlib.Path(folder).iterdir()) / PHOTOGRAPHS
        photographs = f"JPEG 500 x 375 ({size / 1000:.0f} kB) to 224"
        makers = {
            f"{photographs}, training": training(files, large),
            f"{photographs}, evaluation": evaluation(files, large),
            "arrays 32 x 32, training": training(arrays, small),
            "arrays 32 x 32, evaluation": evaluation(arrays, small),
        }
        rates: dict[str, list[float]] = {name: [] for name in makers}
        for _ in range(rounds):
            for name, make in makers.items():
                began = time.perf_counter()
                count = make()
                rates[name].append(count / (time.perf_counter() - began))
            for step in steps:
                step.run()
    rows = [{"what": name, "images_per_second": statistics.median(rate)}
            for name, rate in rates.items()]  # fmt: skip
    for step in steps:
        rate = BATCH / statistics.median(step.seconds[1:])
        rows.append({"what": f"train step takes: {step.model}, {step.name}",
                     "images_per_second": rate})  # fmt: skip
    return rows


def main() -> None:
    """Measures and writes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    rows = measure(parser.parse_args().rounds)
    cells = [[row["what"], f"{row['images_per_second']:.0f}"] for row in rows]
    device = jax.devices()[0].device_kind
    lines = [
        f"# Images a second, {os.cpu_count()} CPU cores, batch {BATCH} on {device}\n",
        f"    python {' '.join(sys.argv)}\n",
        markdown_rows(("", "images / s"), cells),
    ]
    text = "\n".join(lines) + "\n"
    write_text(ROOT / "experiments" / "results" / "decoding.md", text)
    write_json(ROOT / "experiments" / "results" / "decoding.json", rows)
    print(text)


if __name__ == "__main__":
    main()
