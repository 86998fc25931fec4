"""Runs trials of experiments/regime that do not exist yet.

Trials are kept in regime_trials.tar.xz, which is read from the results folder or from
experiments/results, and written to the results folder after every phase, finished or not. Unpack it
into `runs/` for experiments/regime/page.py, which makes the page.
"""

from __future__ import annotations

import os
import pathlib
import tarfile
import tempfile
from typing import Any

from measuring import RESULTS

from orthoreg_jax.reporting.tables import markdown_rows
from orthoreg_jax.storage import replacing

from .part import Cell, Part, Parts, Row, done, number, results_folder, run_program

ARCHIVE = "regime_trials.tar.xz"
PHASES = (
    "--phases strengths --modes linearized",  # with the penalty
    "--phases course --lengths 600",
    "--phases forms",  # the paper's form
    "--phases course --lengths 120 1200",
)
KEPT = ("--phases rates --modes lora",)  # all trials of this phase are in the archive


def cells(dry: bool) -> list[Cell]:
    """One cell for each phase; phases whose trials are all kept run none."""
    return [{"phase": phase} for phase in (KEPT if dry else PHASES)]


def measure(cell: Cell, _: Any) -> list[Row]:
    """Runs the missing trials of a phase, and keeps them."""
    target = results_folder() / ARCHIVE
    with tempfile.TemporaryDirectory() as scratch:
        trials = pathlib.Path(scratch) / "regime"
        source = target if target.is_file() else RESULTS / ARCHIVE
        if source.is_file():
            with tarfile.open(source) as archive:
                archive.extractall(scratch, filter="data")
        before = set(trials.rglob("*.json"))
        command = ["experiments/regime/run.py", "--workdir", str(trials), *cell["phase"].split()]
        try:
            seconds, ended = run_program([*command, "--workers", str(os.cpu_count() or 1)])
        finally:
            made = set(trials.rglob("*.json")) - before
            if made:
                with replacing(target) as part, tarfile.open(part, "w:xz") as archive:
                    archive.add(trials, "regime")
    if not ended and not made:
        raise TimeoutError(f"no trial came to its end in {seconds:.0f} s")
    return [cell | {"trials": len(made), "seconds": seconds, "ended": ended}]


def table(parts: Parts) -> list[str]:
    """The phases that were run."""
    lines = [
        [
            f"`{row['phase']}`",
            str(row["trials"]),
            number(row["seconds"], ".0f"),
            "yes" if row["ended"] else "no: run it again",
        ]
        for row in done(parts, "regime")
    ]
    return [
        "Phases of `experiments/regime/run.py`; the trials are in `regime_trials.tar.xz`, and the "
        "page that `experiments/regime/page.py` makes of them has the numbers.",
        markdown_rows(("phase", "new trials", "seconds", "complete"), lines, left=1),
    ]


PART = Part("Trials of the regime", cells, measure, table, 480, 300)
