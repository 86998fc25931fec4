"""Mergers, on vectors as large as those of the paper's models."""

from __future__ import annotations

import functools
import gc
import statistics
import time
from typing import Any

import jax
from cost import random_model
from measuring import HeldBytes

from orthoreg_jax.clip.weights import VISUAL_MATRICES
from orthoreg_jax.merging import MERGERS, merge_task_vectors
from orthoreg_jax.reporting.tables import markdown_rows

from .part import Cell, Part, Parts, Row, done, number

VECTORS, RANK = 8, 16  # task vectors to merge


def cells(dry: bool) -> list[Cell]:
    """One cell for each model and merger; the small model's first."""
    models = ["tiny"] if dry else ["ViT-B/32", "ViT-L/14"]
    names = ("average", "iso_c") if dry else MERGERS
    return [{"model": model, "merger": name} for model in models for name in names]


@functools.lru_cache(maxsize=1)
def vectors(model: str) -> list[Any]:
    """Task vectors of low rank plus noise; leaves that are not matrices are noise."""
    shapes = jax.eval_shape(lambda: random_model.__wrapped__(model)[1])

    def leaf(key: Any, shape: tuple[int, ...]) -> Any:
        keys = jax.random.split(key, 3)
        noise = 1e-4 * jax.random.normal(keys[0], shape)
        if len(shape) < 2:
            return noise
        left = jax.random.normal(keys[1], (*shape[:-1], RANK))
        right = jax.random.normal(keys[2], (*shape[:-2], RANK, shape[-1]))
        return noise + 1e-3 * left @ right

    leaves, structure = jax.tree.flatten(shapes)

    @jax.jit
    def make(key: Any) -> Any:
        keys = jax.random.split(key, len(leaves))
        made = [leaf(own, each.shape) for own, each in zip(keys, leaves, strict=True)]
        return jax.tree.unflatten(structure, made)

    return jax.block_until_ready([make(jax.random.key(task)) for task in range(VECTORS)])


def measure(cell: Cell, _: Any) -> list[Row]:
    """Seconds of the first call, which compiles, and of a later one; memory beyond the vectors."""
    merger = MERGERS[cell["merger"]]()
    trees = vectors(cell["model"])[: merger.at_most or VECTORS]
    key = jax.random.key(0) if merger.random else None

    def merge() -> Any:
        merged = merge_task_vectors(trees, merger, matrices=VISUAL_MATRICES, key=key)
        return jax.block_until_ready(merged)

    gc.collect()
    with HeldBytes() as held:
        before, began = held.most, time.perf_counter()
        merge()
        first = time.perf_counter() - began
        again = []
        for _ in range(3 if first < 5 else 0):
            began = time.perf_counter()
            merge()
            again.append(time.perf_counter() - began)
    more = None if before is None or held.most is None else (held.most - before) / 2**20
    seconds = statistics.median(again) if again else None
    return [cell | {"first": first, "seconds": seconds, "megabytes": more}]


def table(parts: Parts) -> list[str]:
    """Seconds and memory."""
    rows = [
        [
            row["model"],
            row["merger"],
            number(row["first"], ".2f"),
            number(row["seconds"], ".3f"),
            number(row["megabytes"], ".0f"),
        ]
        for row in done(parts, "mergers")
    ]
    header = ("shapes of", "merger", "first, s", "again, s", "MB beyond the vectors")
    return [
        "Eight random task vectors of low rank plus noise, on the device. The first call "
        "compiles; a call that takes over 5 s is not repeated.",
        markdown_rows(header, rows, left=2),
    ]


PART = Part("Mergers", cells, measure, table, 80, 30, lambda cell: vectors(cell["model"]))
