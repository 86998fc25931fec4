r"""Kills fine-tuning again and again, and compares what it ends with to a run left alone.

    python experiments/kills.py --workdir runs/kills --kills 20

Every method is fine-tuned undisturbed, and by the same command started anew each time that SIGKILL
has ended it at a random moment: while it starts, trains, or saves; as many runs as it takes for so
many kills. The task vectors have to be the same files, byte for byte. Writes
experiments/results/kills.md and .json; fails if a file differs. What the runs say is in
WORKDIR/log.
"""

from __future__ import annotations

import argparse
import pathlib
import random
import shutil
import subprocess
import sys
import time
from typing import Any

from orthoreg_jax.config import ORTHOREG
from orthoreg_jax.reporting.tables import markdown_rows
from orthoreg_jax.storage import read_json, write_json, write_text
from orthoreg_jax.training.modes import MODES

RESULTS = pathlib.Path(__file__).parent / "results"
OPTIONS = ("tasks=mnist,emoji", "training.steps=60", "training.checkpoint_every=3")


def start(arguments: argparse.Namespace, method: str, folder: pathlib.Path) -> subprocess.Popen:
    """`orthoreg finetune` of one method; what was compiled is kept, so that starts are quick."""
    overrides = [f"--config.{text}" for text in (*arguments.set, f"methods={method}")]
    command = [sys.executable, "-m", "orthoreg_jax.cli", "finetune", "--config", arguments.config]
    with (arguments.workdir / "log").open("a") as log:
        return subprocess.Popen(
            [*command, "--workdir", str(folder), *overrides],
            stderr=log,
        )


def vectors(folder: pathlib.Path) -> dict[str, bytes]:
    """The files that a run is for."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("vector.safetensors"))
    }


def progress(folder: pathlib.Path) -> set[str]:
    """Saved states and finished tasks."""
    return {str(path) for name in ("vector.safetensors", "_CHECKPOINT_METADATA")
            for path in folder.rglob(name)}  # fmt: skip


def undisturbed(
    arguments: argparse.Namespace, method: str, folder: pathlib.Path
) -> tuple[float, float]:
    """Runs to the end; seconds until the first state was saved, and after it."""
    begun, first = time.monotonic(), None
    process = start(arguments, method, folder)
    while process.poll() is None:
        if first is None and list(folder.rglob("state/*/_CHECKPOINT_METADATA")):
            first = time.monotonic()
        time.sleep(0.02)
    if process.returncode or first is None:
        sys.exit(f"{method}: failed, or saved no state: see {arguments.workdir / 'log'}")
    return first - begun, time.monotonic() - first


def killed(
    arguments: argparse.Namespace, method: str, folder: pathlib.Path, startup: float, rest: float
) -> int:
    """Runs to the end, killed on the way; returns how often."""
    kills, before, longest = 0, progress(folder), startup + 1.5 * rest / arguments.kills
    while True:
        process = start(arguments, method, folder)
        try:
            process.wait(timeout=random.uniform(0.8 * startup, longest))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills += 1
            # A machine that has become slower since `startup` was measured needs longer lives.
            longest *= 1.2 if progress(folder) == before else 1.0
            before = progress(folder)
            continue
        if process.returncode:
            sys.exit(f"{method}: failed after {kills} kills: see {arguments.workdir / 'log'}")
        return kills


def main() -> None:
    """Runs, kills, compares, and writes the table."""
    made = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    made.add_argument("--config", default="configs/embedded.py")
    made.add_argument("--workdir", type=pathlib.Path, required=True)
    made.add_argument("--methods", nargs="+", default=[mode + ORTHOREG for mode in MODES])
    made.add_argument("--kills", type=int, default=20, help="at least so many for each method")
    made.add_argument("--seed", type=int, default=0, help="of the moments")
    made.add_argument("--set", nargs="*", default=OPTIONS, metavar="NAME=VALUE", help="options")
    made.add_argument("--results", type=pathlib.Path, default=RESULTS)
    arguments = made.parse_args()
    random.seed(arguments.seed)
    arguments.workdir.mkdir(parents=True, exist_ok=True)
    for method in arguments.methods:
        whole, other = (arguments.workdir / name / method for name in ("whole", "killed"))
        for _ in range(2):  # the first time compiles
            shutil.rmtree(whole, ignore_errors=True)
            startup, rest = undisturbed(arguments, method, whole)
        runs, kills, same = 0, 0, True
        while kills < arguments.kills:
            shutil.rmtree(other, ignore_errors=True)
            kills += killed(arguments, method, other, startup, rest)
            same = same and vectors(whole) == vectors(other) != {}
            runs += 1
        record(arguments.results, {"method": method, "runs": runs, "kills": kills, "same": same})
        if not same:
            sys.exit(f"{method}: a task vector differs from that of the undisturbed run")


def record(folder: pathlib.Path, row: dict[str, Any]) -> None:
    """Writes the table anew; rows of other methods, of an earlier command, stay."""
    path = folder / "kills.json"
    rows = (
        [old for old in read_json(path) if old["method"] != row["method"]] if path.is_file() else []
    )
    rows.append(row)
    print(row, flush=True)
    cells = [[str(value) for value in one.values()] for one in rows]
    header = ["method", "runs", "kills", "same bytes as undisturbed"]
    command = f"    python {' '.join(sys.argv)}\n"
    text = "\n".join(["# Killed and gone on with\n", command, markdown_rows(header, cells), ""])
    write_text(folder / "kills.md", text)
    write_json(path, rows)


if __name__ == "__main__":
    main()
