r"""Repeats merges by singular values next to a busy process, to check that none ever hangs.

    python experiments/repeat_merges.py --merges 200

Merges five vectors with the shapes of the embedded model, alternating TSV-M and Iso-CTS; with
--traced inside `jax.jit`, where XLA decomposes. Another process keeps a core busy all the time. A
merge that computes nothing for --patience seconds counts as stopped: its number is printed, and the
process exits with 1. `experiments/upstream/batched_svd_hang.py` explains what could stop it. Writes
experiments/results/repeat_merges.md and .json.
"""

from __future__ import annotations

import argparse
import functools
import os
import pathlib
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from orthoreg_jax.arithmetic.matrices import Matrix
from orthoreg_jax.merging import iso_cts, merge_task_vectors, tsv_m
from orthoreg_jax.reporting.tables import markdown_rows
from orthoreg_jax.storage import read_json, write_json, write_text

RULES = {"*": Matrix()}
RESULTS = pathlib.Path(__file__).parent / "results"


def vectors(width: int, tasks: int = 5, layers: int = 3) -> list[dict[str, jax.Array]]:
    """Task vectors of a tower with the given width and number of layers."""
    rng = np.random.default_rng(0)
    shapes = {"in_proj": (width, 3 * width), "out_proj": (width, width),
              "fc1": (width, 4 * width), "fc2": (4 * width, width)}  # fmt: skip
    return [
        {name: jnp.asarray(rng.normal(size=(layers, *shape)), jnp.float32)
         for name, shape in shapes.items()}
        for _ in range(tasks)
    ]  # fmt: skip


def watch(done: list[float], patience: float) -> None:
    """Ends the process once it has computed nothing for `patience` seconds."""
    spent, since = 0.0, time.monotonic()
    while True:
        time.sleep(1)
        if time.process_time() - spent > 0.1:
            spent, since = time.process_time(), time.monotonic()
        if time.monotonic() - since > patience:
            print(f"merge {len(done)} has stopped: no core is busy", flush=True)
            os._exit(1)


def main() -> None:
    """Merges until all are done or one has stopped."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--merges", type=int, default=200)
    parser.add_argument("--width", type=int, default=256, help="the embedded model's is 256")
    parser.add_argument("--patience", type=float, default=30.0)
    parser.add_argument("--traced", action="store_true")
    parser.add_argument("--results", type=pathlib.Path, default=RESULTS)
    options = parser.parse_args()
    trees = vectors(options.width)
    merges: list[Callable[..., Any]] = [
        functools.partial(merge_task_vectors, merger=merger, matrices=RULES)
        for merger in (tsv_m(), iso_cts())
    ]
    if options.traced:
        merges = [jax.jit(merge) for merge in merges]
    seconds: list[float] = []
    threading.Thread(target=watch, args=(seconds, options.patience), daemon=True).start()
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        for number in range(options.merges):
            began = time.monotonic()
            jax.block_until_ready(merges[number % 2](trees))
            seconds.append(time.monotonic() - began)
            if number == 0:
                print("the first is done", flush=True)
    finally:
        busy.kill()
        busy.wait()
    row = {
        "command": " ".join(["python", *sys.argv]),
        "merges": len(seconds),
        "cores": os.cpu_count(),
        "median": float(np.median(seconds)),
        "longest": max(seconds),
    }
    print(
        f"{row['merges']} merges in a row on {row['cores']} cores, seconds of one: median "
        f"{row['median']:.2f}, longest {row['longest']:.2f}"
    )
    record(options.results, row)


def record(folder: pathlib.Path, row: dict[str, Any]) -> None:
    """Rewrites the table; rows of other commands stay."""
    path = folder / "repeat_merges.json"
    rows = read_json(path) if path.is_file() else []
    rows = [old for old in rows if old["command"] != row["command"]] + [row]
    cells = [
        [f"`{each['command']}`", str(each["merges"]), "0", str(each["cores"]),
         f"{each['median']:.2f}", f"{each['longest']:.2f}"]
        for each in rows
    ]  # fmt: skip
    header = ["command", "merges", "that stopped", "cores", "median, s", "longest, s"]
    lines = [
        "# Merges by singular values beside a busy process",
        "Each row begins with the command that made it. Other programs computed at the same time,",
        "so that the seconds say how long one waits, not how long a merge takes.\n",
        markdown_rows(header, cells),
    ]
    write_text(folder / "repeat_merges.md", "\n".join(lines) + "\n")
    write_json(path, rows)


if __name__ == "__main__":
    main()
