"""A step of fine-tuning: time, percentage of the peak, memory."""

from __future__ import annotations

import gc
import threading
from collections.abc import Sequence
from typing import Any

import jax
from cost import CompiledStep, random_model
from measuring import HeldBytes, queued_seconds

from orthoreg_jax.config import ORTHOREG
from orthoreg_jax.reporting.tables import NONE, markdown_rows
from orthoreg_jax.training.modes import MODES

from .part import PAIR, SETTINGS, Cell, Part, Parts, Row, done, number, peaks_of

_model_lock = threading.Lock()


def cells(dry: bool) -> list[Cell]:
    """Cells for every model, mode and precision; the most informative come first."""
    if dry:
        return [step_cell("tiny", "full" + plus, "default", 8, 2) for plus in PAIR]
    found: list[Cell] = []

    def add(model: str, modes: Sequence[str], settings: Sequence[str]) -> None:
        found.extend(
            step_cell(model, mode + plus, setting, *batch_of(model))
            for setting in settings
            for mode in modes
            for plus in PAIR
        )

    others = [mode for mode in MODES if mode != "full"]
    add("ViT-L/14", ["full"], ["default", "bfloat16"])
    add("ViT-B/32", ["full"], list(SETTINGS))
    add("ViT-L/14", others, ["default"])
    add("ViT-B/32", others, ["default"])
    add("ViT-B/16", ["full"], ["default", "bfloat16"])
    add("ViT-L/14", ["full"], ["highest"])
    add("ViT-L/14", others, ["bfloat16"])
    add("ViT-B/16", others, ["default"])
    add("ViT-B/32", others, ["bfloat16", "highest"])
    add("ViT-B/16", others, ["bfloat16"])
    add("ViT-B/16", list(MODES), ["highest"])
    add("ViT-L/14", others, ["highest"])
    # The penalty at its default precision, whatever the model's.
    both = [cell for cell in found if cell["method"] == "full" + ORTHOREG]
    precise = [cell | {"penalty": "highest"} for cell in both if cell["setting"] == "default"]
    return found[:10] + precise[:2] + found[10:] + precise[2:]


def batch_of(model: str) -> tuple[int, int]:
    """The recipe's batch size, and the number of parts that compute it."""
    return (128, 2) if model == "ViT-L/14" else (128, 1)


def step_cell(model: str, method: str, setting: str, batch: int, accumulate: int) -> Cell:
    """A cell in which the penalty's products have the model's precision."""
    return {
        "model": model,
        "method": method,
        "setting": setting,
        "batch": batch,
        "accumulate": accumulate,
        "penalty": SETTINGS[setting][0] if method.endswith(ORTHOREG) else "",
    }


def prepare(cell: Cell) -> CompiledStep:
    """Compiles the step."""
    with _model_lock:
        random_model(cell["model"])
    return _compiled(cell, remat=False)


def _compiled(cell: Cell, remat: bool) -> CompiledStep:
    precision, dtype = SETTINGS[cell["setting"]]
    with jax.default_matmul_precision(precision):  # thread-local
        return CompiledStep(
            cell["model"],
            cell["method"],
            cell["batch"],
            dtype,
            remat,
            cell["accumulate"],
            cell["penalty"] or "highest",
        )


def measure(cell: Cell, step: CompiledStep) -> list[Row]:
    """Time, operations and memory of one compiled step."""
    gc.collect()  # frees the previous step's state
    try:
        remat = False
        jax.block_until_ready(step.run())
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        step.forget()
        gc.collect()
        remat, step = True, _compiled(cell, remat=True)
    with HeldBytes() as held:
        seconds = queued_seconds(step.run, 3, 4)
    step.forget()
    return [
        cell
        | {
            "by": "JAX",
            "seconds": seconds,
            "tflops": step.operations / seconds / 1e12,
            "megabytes": step.bytes / 2**20,
            "held_megabytes": held.most and held.most / 2**20,
            "compile_seconds": step.compile_seconds,
            "compiled_at_once": TOGETHER,
            "remat": remat,
        }
    ]


def key(row: Row) -> tuple[Any, ...]:
    """The fields in which steps of two programs must agree to be compared."""
    return tuple(row[name] for name in ("model", "method", "batch", "setting", "penalty"))


def names(row: Row) -> list[str]:
    """A step's first columns."""
    batch = str(row["batch"])
    if row["accumulate"] > 1:
        batch = f"{row['accumulate']} x {row['batch'] // row['accumulate']}"
    return [row["model"], row["method"], batch, row["setting"]]


def table(parts: Parts) -> list[str]:
    """The steps, with their percentage of the peak."""
    peak = peaks_of(parts)
    plain = {key(row): row["seconds"] for row in done(parts, "steps")}
    order = {cell_key: place for place, cell_key in enumerate(map(key, _sorted_cells()))}
    rows = []
    for row in sorted(done(parts, "steps"), key=lambda row: order.get(key(row), len(order))):
        base = plain.get(key({**row, "method": row["method"].partition("+")[0], "penalty": ""}))
        top = peak.get(row["setting"])
        rows.append(
            [
                *names(row),
                row["penalty"] or NONE,
                number(row["seconds"], ".2f", 1000),
                number(base and row["seconds"] / base, ".3f"),
                number(row["tflops"]),
                number(top and row["tflops"] / top, ".0f", 100),
                number(row["megabytes"], ".0f"),
                number(row["held_megabytes"], ".0f"),
                number(row["compile_seconds"]),
                str(row.get("compiled_at_once", 1)),
                "yes" if row["remat"] else "no",
            ]
        )
    header = ("model", "method", "batch", "precision", "penalty's", "ms", "/ without penalty",
              "TFLOP/s", "% of peak", "MB by XLA", "MB held", "compile, s", "at once",
              "remat")  # fmt: skip
    return [
        "TFLOP/s count the matrix products of the traced step; the peak is that of the large "
        "product above. MB by XLA: state, pre-trained weights, inputs, outputs and temporary "
        "arrays. MB held: the most memory that the allocator had given out while steps ran. At "
        "once: the largest number of steps compiled in parallel; none is compiled while one is "
        "timed.",
        markdown_rows(header, rows, left=5),
    ]


def _sorted_cells() -> list[Cell]:
    """The cells sorted by model, precision and mode, for the table."""
    every = cells(dry=False)
    models = ("ViT-B/32", "ViT-B/16", "ViT-L/14")
    return sorted(
        every,
        key=lambda cell: (
            models.index(cell["model"]),
            list(SETTINGS).index(cell["setting"]),
            list(MODES).index(cell["method"].partition("+")[0]),
            cell["method"],
        ),
    )


TOGETHER = 8
PART = Part("Train steps", cells, measure, table, 240, 75, prepare, TOGETHER)
