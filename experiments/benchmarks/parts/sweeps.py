"""Sweeps over alpha, of edited and of linearised models."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from cost import CLASSES, random_model
from measuring import queued_seconds

from orthoreg_jax.clip.checkpoint import image_encoder
from orthoreg_jax.clip.zeroshot import Head
from orthoreg_jax.config import default_config
from orthoreg_jax.evaluation.accuracy import EvaluationSet, Evaluator
from orthoreg_jax.reporting.tables import markdown_rows
from orthoreg_jax.training.modes import make_mode

from .part import SETTINGS, Cell, Part, Parts, Row, done, number


def cells(dry: bool) -> list[Cell]:
    """Cells for both kinds of sweep, in each setting."""
    sizes = {"model": "tiny", "images": 16, "batch": 8} if dry else {
        "model": "ViT-B/32", "images": 1024, "batch": 128}  # fmt: skip
    settings = ("default",) if dry else ("default", "highest", "bfloat16")
    return [sizes | {"setting": setting, "mode": mode} for setting in settings
            for mode in ("full", "linearized")]  # fmt: skip


def measure(cell: Cell, _: Any) -> list[Row]:
    """Images per second, each classified with every alpha of the grid."""
    precision, dtype = SETTINGS[cell["setting"]]
    config, params0 = random_model(cell["model"])
    options = default_config()
    alphas = np.asarray(options.evaluation.alphas, np.float32)
    images, batch, size = cell["images"], cell["batch"], config.visual.image_size
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (images // batch, batch, size, size, 3), dtype=np.uint8)
    head = rng.normal(size=(CLASSES, config.projection)).astype(np.float32)
    data = EvaluationSet(
        Head(jnp.asarray(head), jnp.int32(CLASSES)),
        [jax.device_put(one) for one in pixels],
        np.asarray(rng.integers(0, CLASSES, images)),
    )
    vector = jax.tree.map(lambda leaf: 1e-3 * leaf, params0)
    apply = image_encoder(config, jnp.dtype(dtype))

    def normalize(images: Any) -> Any:
        return images.astype(jnp.float32) / 255

    with jax.default_matmul_precision(precision):
        evaluator = Evaluator(apply, params0, normalize, make_mode(cell["mode"], options).outputs)
        forward = jax.jit(lambda params, images: apply(params, normalize(images)))
        seconds = queued_seconds(
            lambda: evaluator.predictions([vector], alphas[:, None], data), 1, 3
        )
        alone = queued_seconds(lambda: [forward(params0, one) for one in data.batches], 1, 5)
    return [
        cell
        | {
            "alphas": len(alphas),
            "seconds": seconds,
            "images_per_second": images / seconds,
            "forward_seconds": alone,
        }
    ]


def table(parts: Parts) -> list[str]:
    """The sweeps of edited and linearised models."""
    rows = [
        [
            row["model"],
            "linearised" if row["mode"] == "linearized" else "edited",
            row["setting"],
            str(row["alphas"]),
            number(row["images_per_second"], ",.0f"),
            number(row["seconds"], ".3f"),
            number(row["forward_seconds"], ".3f"),
            f"{row['seconds'] / row['forward_seconds']:.2f}",
        ]
        for row in done(parts, "sweeps")
    ]
    header = ("model", "", "precision", "alphas", "images / s", "sweep, s", "one forward pass, s",
              "sweep / this")  # fmt: skip
    note = "Images per second, each classified with every alpha. Images are on the device."
    return [note, markdown_rows(header, rows, left=3)]


PART = Part(
    "Sweeps over alpha", cells, measure, table, 45, 40, lambda cell: random_model(cell["model"])
)
