"""The penalty, compared with the two matrix products that it needs at least."""

from __future__ import annotations

import functools
from typing import Any

import jax
import penalty
from measuring import queued_seconds

from orthoreg_jax.clip.weights import VISUAL_MATRICES
from orthoreg_jax.penalties.orthoreg import orthogonality_penalty
from orthoreg_jax.reporting.tables import markdown_rows

from .part import Cell, Part, Parts, Row, done, number, peaks_of


def cells(dry: bool) -> list[Cell]:
    """One cell for each model and precision."""
    models = ["tiny"] if dry else ["ViT-B/32", "ViT-L/14"]
    return [{"model": model, "setting": name} for name in ("highest", "default")
            for model in models]  # fmt: skip


@functools.lru_cache(maxsize=1)
def _updates(model: str) -> Any:
    return jax.device_put(penalty.updates(model))


def measure(cell: Cell, _: Any) -> list[Row]:
    """Seconds of value and gradient, of both by autodiff, and of the products alone."""
    precision, delta = cell["setting"], _updates(cell["model"])
    matrices = penalty.stacks(delta)
    ours = jax.jit(
        jax.value_and_grad(
            functools.partial(orthogonality_penalty, matrices=VISUAL_MATRICES, precision=precision)
        )
    )
    plain = jax.jit(
        jax.value_and_grad(functools.partial(penalty.plain_penalty, precision=precision))
    )
    products = jax.jit(functools.partial(penalty.two_products, precision=precision))
    squares = penalty.squares_like(matrices)
    ways = {
        "seconds": lambda: ours(delta),
        "products": lambda: products(matrices, squares),
        "autodiff": lambda: plain(matrices),
    }
    found = {name: queued_seconds(way) for name, way in ways.items()}
    return [cell | found | {"tflops": penalty.operations(matrices) / found["seconds"] / 1e12}]


def table(parts: Parts) -> list[str]:
    """Times relative to those of the products."""
    peak, rows = peaks_of(parts), []
    for row in done(parts, "penalty"):
        top = peak.get(row["setting"])
        rows.append(
            [
                row["model"],
                row["setting"],
                number(row["seconds"], ".2f", 1000),
                number(row["products"], ".2f", 1000),
                f"{row['seconds'] / row['products']:.2f}",
                number(row["autodiff"], ".2f", 1000),
                f"{row['autodiff'] / row['seconds']:.2f}",
                number(row["tflops"]),
                number(top and row["tflops"] / top, ".0f", 100),
            ]
        )
    header = ("model", "precision", "value and gradient, ms", "its two products alone, ms",
              "ours / these", "plain autodiff, ms", "/ ours", "TFLOP/s", "% of peak")  # fmt: skip
    return [markdown_rows(header, rows, left=2)]


PART = Part(
    "The penalty against its products",
    cells,
    measure,
    table,
    40,
    30,
    lambda cell: _updates(cell["model"]),
)
