r"""Kills every stage again and again, and compares the result with an undisturbed command.

    python experiments/kills/kill.py --workdir runs/kills --kills 10

Each command runs once undisturbed. It then runs again, and is killed with SIGKILL and restarted
until it is done: either at a random moment, or just as it writes a file. This repeats until the
number of kills is reached. The files must be identical, byte for byte, and there must be no others.
With two processes in a run, either is killed once they have found each other; the other must then
end by itself, with one line. The model is the embedded one cut to its first layers, so that each
run is short.

Writes experiments/results/kills.md and .json; fails at the first command with another result.
The commands' output is in WORKDIR/log and WORKDIR/said0, said1.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import pathlib
import random
import shutil
import sys
from collections.abc import Callable
from typing import Any

import jax
from lives import Command, Row, disturbed, undisturbed

from orthoreg_jax.clip.checkpoint import load_checkpoint, save_checkpoint
from orthoreg_jax.config import ORTHOREG
from orthoreg_jax.reporting.tables import markdown_rows
from orthoreg_jax.storage import SCRATCH, read_json, write_json, write_text
from orthoreg_jax.training.modes import MODES

RESULTS = pathlib.Path(__file__).parents[1] / "results"
METHOD = "full" + ORTHOREG
Words = Callable[[pathlib.Path], list[str]]  # folder -> arguments of `orthoreg`
OPTIONS = (
    "tasks=digits,emoji",
    "training.steps=12",
    "training.warmup=2",
    "training.batch_size=8",
    "training.checkpoint_every=2",
    "evaluation.max_val_images=32",
    "evaluation.max_test_images=32",
    "evaluation.refinements=1",
    "evaluation.relative_lengths=0.0,0.1,0.3",
    "evaluation.disentanglement_tasks=",
    "evaluation.feature_images=0",
)


def cut_model(folder: pathlib.Path, layers: int = 1) -> None:
    """Writes the embedded model with only the first layers of each tower."""
    whole = load_checkpoint("embedded")
    config = dataclasses.replace(
        whole.config,
        visual=dataclasses.replace(whole.config.visual, layers=layers),
        text=dataclasses.replace(whole.config.text, layers=layers),
    )
    params = jax.device_get(whole.params)
    for tower in ("visual", "text"):
        blocks = params[tower]["blocks"]
        params[tower] = {**params[tower], "blocks": jax.tree.map(lambda x: x[:layers], blocks)}
    save_checkpoint(folder, params, dataclasses.replace(whole, config=config))


def commands(workdir: pathlib.Path) -> dict[str, Command]:
    """All commands to kill, by name; each starts from the undisturbed results of earlier ones."""
    whole, model = workdir / "whole", workdir / "model"

    def stage(name: str, method: str = METHOD) -> Words:
        options = (*OPTIONS, f"model={model}", f"methods={method}")
        fixed = ["--config", "configs/embedded.py", *(f"--config.{text}" for text in options)]
        return lambda folder: [name, *fixed, "--workdir", str(folder)]

    def after(name: str) -> Callable[[pathlib.Path], Any]:
        return lambda folder: shutil.copytree(whole / name, folder, dirs_exist_ok=True)

    def model_of(*words: str) -> Words:
        chosen = ["--alpha", "0.1", "--overwrite"]
        return lambda folder: [*words, "--workdir", str(folder), "--method", METHOD, "--out",
                               str(folder / "out"), *chosen]  # fmt: skip

    trained, measured = f"finetune {METHOD}", "evaluate"
    found = [
        Command(trained, stage("finetune")),
        Command(measured, stage(measured), after(trained), first=trained),
        Command("report", lambda folder: ["report", "--workdir", str(folder)], after(measured),
                first=measured),
        Command("export", model_of("export"), after(measured), first=measured),
        Command("merge", model_of("merge", "--merger", "tsv_m"), after(measured), first=measured),
        Command("finetune, two processes", stage("finetune"), processes=2),
        *(Command(f"finetune {mode}{ORTHOREG}", stage("finetune", mode + ORTHOREG))
          for mode in MODES if mode + ORTHOREG != METHOD),
    ]  # fmt: skip
    return {command.name: command for command in found}


def files(folder: pathlib.Path) -> dict[str, str]:
    """Hashes of all files, by name; no command writes times."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def kill(command: Command, workdir: pathlib.Path, kills: int) -> Row:
    """Runs a command undisturbed, and then with at least `kills` kills."""
    # The folders have the same name, because a report shows it.
    whole, other = (workdir / name / command.name for name in ("whole", "killed"))
    log = workdir / "log"
    for _ in range(2):  # the first run compiles
        seconds, count = undisturbed(command, whole, log)
    row, expected = Row(command.name), files(whole)
    while row.kills < kills and not row.differing and not row.left:
        disturbed(command, other, log, seconds, count, row)
        found = files(other)
        row.differing = sorted(name for name in {*expected, *found}
                               if expected.get(name) != found.get(name))  # fmt: skip
        row.left = [str(path.relative_to(other)) for path in sorted(other.rglob(f"*{SCRATCH}"))]
    return row


def record(folder: pathlib.Path, row: Row) -> None:
    """Rewrites the table; rows of other commands stay."""
    path = folder / "kills.json"
    rows = read_json(path) if path.is_file() else []
    rows = [old for old in rows if old["command"] != row.command] + [dataclasses.asdict(row)]
    print(row, flush=True)
    cells = [
        [each["command"], str(each["runs"]), str(each["kills"]), str(each["writing"]),
         "none" if not each["differing"] else ", ".join(each["differing"]),
         "none" if not each["left"] else ", ".join(each["left"]),
         "" if each["alone"] is None else f"{each['alone']:.0f}"]
        for each in rows
    ]  # fmt: skip
    header = ["command", "runs", "kills", "of these while it wrote", "files that differ",
              "scratch left", "s until the other process ended, at most"]  # fmt: skip
    command = f"    python {' '.join(sys.argv)}\n"
    text = "\n".join(["# Killed and gone on with\n", command, markdown_rows(header, cells), ""])
    write_text(folder / "kills.md", text)
    write_json(path, rows)


def main() -> None:
    """Runs, kills, compares, and writes the table."""
    made = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    made.add_argument("--workdir", type=pathlib.Path, required=True)
    made.add_argument("--kills", type=int, default=10, help="at least so many for each command")
    made.add_argument("--commands", nargs="+", help="names of rows; all")
    made.add_argument("--seed", type=int, default=0, help="of the moments")
    made.add_argument("--results", type=pathlib.Path, default=RESULTS)
    arguments = made.parse_args()
    random.seed(arguments.seed)
    workdir = arguments.workdir.resolve()
    workdir.mkdir(parents=True, exist_ok=True)
    cut_model(workdir / "model") if not (workdir / "model").exists() else None
    known = commands(workdir)
    if unknown := [name for name in arguments.commands or () if name not in known]:
        made.error(f"--commands {', '.join(unknown)}: allowed: {', '.join(known)}")
    for name in arguments.commands or known:
        first = known[name].first
        if first and not (workdir / "whole" / first).is_dir():
            made.error(f"--commands {name}: starts from a finished `{first}`; name it before")
        row = kill(known[name], workdir, arguments.kills)
        record(arguments.results, row)
        if row.differing or row.left:
            sys.exit(f"{name}: ended otherwise than a command left alone")


if __name__ == "__main__":
    main()
