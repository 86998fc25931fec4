"""What the parts of `accelerator.py` have in common.

A part measures cells. A cell is a dict of texts and numbers, which tells the process that measures
it all it has to know, and becomes rows of the part's table. The first cells of a part matter most:
when its time is over the rest is left out.
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
Parts = Mapping[str, Any]  # of the file: by name, with machine, command, rows and cells left

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
# A setting -> the precision of float32 products, and the type of activations.
SETTINGS = {
    "highest": ("highest", "float32"),
    "default": ("default", "float32"),
    "bfloat16": ("default", "bfloat16"),
}
PAIR = ("", ORTHOREG)
SPARE = 20.0  # seconds that a program of its own ends before its cell's time is over
_end = math.inf  # of the cell that is measured now, by time.monotonic()


class Part(NamedTuple):
    """One part of the measurement.

    Attributes:
      title: of its section.
      cells: (dry) -> its cells.
      measure: (a cell, what was prepared) -> rows, in a process that has the device to itself.
      table: the parts measured -> paragraphs of its section.
      seconds: for all of it.
      limit: seconds for one cell, after which its process is ended.
      prepare: what does not count for the cell's time; of several cells at once, in threads.
      together: the number of these.
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
    """A number, or a dash for what there is not."""
    return NONE if value is None else f"{factor * value:{form}}"


def done(parts: Parts, part: str) -> list[Row]:
    """Rows without an error."""
    return [row for row in parts.get(part, {"rows": []})["rows"] if "error" not in row]


def peaks_of(parts: Parts) -> dict[str, float]:
    """TFLOP/s of the large product, by setting."""
    return {row["setting"]: row["tflops"] for row in done(parts, "peaks")}


def give_seconds(seconds: float) -> None:
    """Says how long the cell may take that is measured now."""
    global _end
    _end = time.monotonic() + seconds


def results_folder() -> pathlib.Path:
    """Where files go that a part leaves beside its rows."""
    return pathlib.Path(os.environ["ACCELERATOR_RESULTS"])


def run_program(command: Sequence[str]) -> tuple[float, bool]:
    """Runs a Python program of the checkout; asks it to stop before the cell's time is over.

    Returns:
      The seconds that it took, and whether it came to its end.

    Raises:
      RuntimeError: it failed.
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
