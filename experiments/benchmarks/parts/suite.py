"""A real run from start to finish: the embedded suite."""

from __future__ import annotations

import pathlib
import sys
import tempfile
import time
from typing import Any

from orthoreg_jax.reporting.tables import markdown_rows

from .part import ROOT, Cell, Part, Parts, Row, done, number, run_program


def cells(dry: bool) -> list[Cell]:
    """Cells for the main run, and for one with float32 products at the device's default."""
    if dry:
        return [{"config": "small", "setting": "highest"}]
    return [{"config": "embedded", "setting": name} for name in ("highest", "default")]


def measure(cell: Cell, _: Any) -> list[Row]:
    """Seconds of one command, by stage, and its table of results."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch)
        config = _small(folder) if cell["config"] == "small" else cell["config"]
        run, began = folder / "run", time.time()
        options = ["--config", str(config), "--workdir", str(run)]
        precision = f"--config.matmul_precision={cell['setting']}"
        seconds, ended = run_program(["-m", "orthoreg_jax", "run", *options, precision])
        if not ended:
            raise TimeoutError(f"the run did not come to its end in {seconds:.0f} s")
        stages = phases(run, began)
        table = (run / "table.md").read_text(encoding="utf-8")
    return [cell | {"seconds": seconds, "stages": stages, "table": table}]


def phases(run: pathlib.Path, began: float) -> dict[str, float]:
    """Seconds by stage, from the times at which a run folder's files were written."""
    ends = {
        "start": run / "config.json",
        "fine-tuning": max(run.rglob("vector.safetensors"), key=lambda path: path.stat().st_mtime),
        "evaluation": run / "results.json",
        "report": run / "report.html",
    }
    found, before = {}, began
    for stage, path in ends.items():
        now = path.stat().st_mtime
        found[stage], before = now - before, now
    return found


def _small(folder: pathlib.Path) -> pathlib.Path:
    """Writes the tests' small model, tasks and config."""
    sys.path.insert(0, str(ROOT))
    from tests import small_run

    small_run.write_model(folder)
    small_run.write_tasks(folder)
    config, text = folder / "small.py", small_run.CONFIG.replace("DATA", str(folder))
    less = "config.methods, config.evaluation.disentanglement_tasks = ('full',), ()"
    text = text.replace("return config", f"{less}\n    return config")
    config.write_text(text.replace("feature_images = 8", "feature_images = 0"), encoding="utf-8")
    return config


def table(parts: Parts) -> list[str]:
    """Seconds by stage, and each run's own table."""
    rows = done(parts, "suite")
    stages = list(rows[0]["stages"]) if rows else []
    lines = [
        [
            row["config"],
            row["setting"],
            *(number(row["stages"][stage]) for stage in stages),
            number(row["seconds"]),
        ]
        for row in rows
    ]
    header = ("config", "precision", *(f"{stage}, s" for stage in stages), "`orthoreg run`, s")
    found = [markdown_rows(header, lines, left=2)]
    for row in rows:
        found += [f"`{row['config']}` at {row['setting']}:", row["table"].strip()]
    return found


PART = Part("The embedded suite, end to end", cells, measure, table, 200, 200)
