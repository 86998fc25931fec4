"""Shared by the parts of `accelerator.py`.

A part measures cells. A cell is a dict of texts and numbers with everything that the measuring
process needs; it becomes rows of the part's table. The most important cells come first, because
the rest is left out when the time is over.
"""

from __future__ import annotations

import dataclasses
import math
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from orthoreg_jax.clip.config import PRESETS, ClipConfig, VisionConfig
from orthoreg_jax.config import ORTHOREG
from orthoreg_jax.reporting.tables import NONE

Cell = dict[str, Any]
Row = dict[str, Any]
Parts = Mapping[str, Any]  # name -> machine, command, rows and cells left, as in the file

ROOT = pathlib.Path(__file__).parents[3]
SIZES: dict[str, Any] = {
    "width": 32,
    "layers": 2,
    "heads": 2,
    "mlp_width": 64,
    "activation": "quick_gelu",
}
PRESETS["tiny"] = ClipConfig(
    visual=VisionConfig(**SIZES, eps=1e-5, image_size=32, patch_size=16),
    text=dataclasses.replace(PRESETS["ViT-B/32"].text, width=32, layers=1, heads=2, mlp_width=64),
    projection=32,
)
# Setting -> precision of float32 products, and type of activations.
SETTINGS = {
    "highest": ("highest", "float32"),
    "default": ("default", "float32"),
    "bfloat16": ("default", "bfloat16"),
}
PAIR = ("", ORTHOREG)
SPARE = 20.0  # seconds before the end of a cell's time at which its own program ends
_end = math.inf  # end of the current cell's time, by time.monotonic()


class Part(NamedTuple):
    """One part of the measurement.

    Attributes:
      title: title of its section.
      cells: (dry) -> its cells.
      measure: (cell, result of `prepare`) -> rows, in a process that has the device to itself.
      table: (measured parts) -> paragraphs of its section.
      seconds: time for the whole part.
      limit: seconds for one cell, after which its process is ended.
      prepare: work outside the cell's time limit, for several cells at once, in threads.
      together: number of cells prepared at once.
    """

    title: str
    cells: Callable[[bool], list[Cell]]
    measure: Callable[[Cell, Any], list[Row]]
    table: Callable[[Parts], list[str]]
    seconds: float
    limit: float
    prepare: Callable[[Cell], Any] = lambda cell: None
    together: int = 1


def number(value: float | None, form: str = ".1f", factor: float = 1) -> str:
    """Formats a number, or a dash for None."""
    return NONE if value is None else f"{factor * value:{form}}"


def done(parts: Parts, part: str) -> list[Row]:
    """Rows of a part without an error."""
    return [row for row in parts.get(part, {"rows": []})["rows"] if "error" not in row]


def peaks_of(parts: Parts) -> dict[str, float]:
    """TFLOP/s of the large product, by setting."""
    return {row["setting"]: row["tflops"] for row in done(parts, "peaks")}


def give_seconds(seconds: float) -> None:
    """Sets the time that the current cell may take."""
    global _end
    _end = time.monotonic() + seconds


def results_folder() -> pathlib.Path:
    """The folder for files that a part writes besides its rows."""
    return pathlib.Path(os.environ["ACCELERATOR_RESULTS"])


def run_program(command: Sequence[str]) -> tuple[float, bool]:
    """Runs a Python program of the checkout, and asks it to stop before the cell's time is over.

    Returns:
      Seconds taken, and whether the program finished.

    Raises:
      RuntimeError: the program failed.
    """
    began = time.perf_counter()
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    process = subprocess.Popen(
        [sys.executable, *command], cwd=ROOT, env=os.environ | {"PYTHONPATH": path}, stdout=2
    )
    try:
        left = _end - SPARE - time.monotonic()
        code, ended = process.wait(None if math.isinf(left) else max(1.0, left)), True
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(SPARE / 2)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        code, ended = 0, False
    if code:
        raise RuntimeError(f"{' '.join(command[:2])} ended with {code}; its output is above")
    return time.perf_counter() - began, ended
