"""Trains a larger embedded base from scratch.

It reads pairs.npz, or pairs.npz.xz, and captions.json from build/embedded, where
experiments/embedded/build_data.py writes them, and writes the model to the results folder in
pieces of 15 MiB: `cat pretrained.tar.* | tar x`.
"""

from __future__ import annotations

import io
import lzma
import pathlib
import shutil
import sys
import tarfile
import tempfile
from typing import Any

import numpy as np

from orthoreg_jax.clip.checkpoint import load_checkpoint
from orthoreg_jax.reporting.tables import markdown_rows
from orthoreg_jax.storage import read_json, write_json

from .part import ROOT, Cell, Part, Parts, Row, done, number, results_folder, run_program

PAIRS = ROOT / "build" / "embedded"
PIECE = 15 * 2**20


def cells(dry: bool) -> list[Cell]:
    """One cell: a base with 20 M parameters or more."""
    if dry:
        return [{"width": 32, "layers": 1, "patch": 16, "epochs": 1, "batch": 16}]
    return [{"width": 512, "layers": 6, "patch": 4, "epochs": 30, "batch": 512}]


def measure(cell: Cell, _: Any) -> list[Row]:
    """Seconds of training and measuring, and the accuracies on the card."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch)
        pairs = _few_pairs(folder) if cell["width"] == 32 else _pairs(folder)
        places = {"pairs": pairs, "state": folder / "state", "out": folder / "out"}
        options = [f"--{name}={value}" for name, value in (places | cell).items()]
        tasks = folder if cell["width"] == 32 else ROOT / "orthoreg_jax" / "embedded" / "tasks"
        shutil.copytree(tasks, folder / "out" / "tasks", ignore=shutil.ignore_patterns("out"))
        seconds, ended = run_program(["experiments/embedded/train_model.py", *options])
        if not ended:
            raise TimeoutError(f"training did not come to its end in {seconds:.0f} s; fewer epochs")
        model = folder / "out" / "model"
        params = load_checkpoint(model).params["visual"]
        cards = [path.read_text(encoding="utf-8") for path in (folder / "out").glob("*CARD*.md")]
        _keep(model, results_folder())
    table = cards[0].partition("## Zero-shot accuracy")[2].partition("\n")[2].strip()
    return [cell | {"parameters": _size(params), "seconds": seconds, "table": table}]


def _size(params: Any) -> int:
    return sum(np.size(leaf) for leaf in _leaves(params))


def _leaves(tree: Any) -> list[Any]:
    return sum(map(_leaves, tree.values()), []) if isinstance(tree, dict) else [tree]


def _pairs(folder: pathlib.Path) -> pathlib.Path:
    """The folder with pairs.npz and captions.json.

    Raises:
      FileNotFoundError: the files were not made, or not copied to this machine.
    """
    if (PAIRS / "pairs.npz").is_file():
        return PAIRS
    packed = PAIRS / "pairs.npz.xz"
    if not packed.is_file():
        raise FileNotFoundError(f"no pairs.npz in {PAIRS}: experiments/embedded/build_data.py")
    with lzma.open(packed) as source, open(folder / "pairs.npz", "wb") as target:
        shutil.copyfileobj(source, target)
    shutil.copy(PAIRS / "captions.json", folder)
    return folder


def _few_pairs(folder: pathlib.Path) -> pathlib.Path:
    """Writes noise with the prompts of the tests' small tasks, and these tasks."""
    sys.path.insert(0, str(ROOT))
    from tests import small_run

    small_run.write_tasks(folder)
    table = read_json(folder / "tasks.json")
    for name, entry in table["tasks"].items():
        entry["about"] = {"control": name == "others"}
    write_json(folder / "tasks.json", table)
    texts = sorted(
        template.format(name)
        for entry in table["tasks"].values()
        for template in entry["templates"]
        for name in entry["classes"]
    )
    rng, count = np.random.default_rng(0), len(texts)
    images = rng.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
    np.savez(folder / "pairs.npz", images=images)
    write_json(folder / "captions.json", [[text] for text in texts])
    return folder


def _keep(model: pathlib.Path, target: pathlib.Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.add(model, "model")
    packed = buffer.getvalue()
    for place, start in enumerate(range(0, len(packed), PIECE)):
        (target / f"pretrained.tar.{place}").write_bytes(packed[start : start + PIECE])


def table(parts: Parts) -> list[str]:
    """Size and time, and the card's table."""
    rows = done(parts, "pretraining")
    keys = ("width", "layers", "patch", "epochs", "batch")
    lines = [
        [
            number(row["parameters"], ".1f", 1e-6),
            *(str(row[key]) for key in keys),
            number(row["seconds"], ".0f"),
        ]
        for row in rows
    ]
    header = ("image tower, M parameters", *keys, "seconds, measuring included")
    return [markdown_rows(header, lines), *(row["table"] for row in rows)]


PART = Part("Pre-training of a larger base", cells, measure, table, 420, 420)
