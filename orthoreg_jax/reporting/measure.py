"""Accuracies of any CLIP on the tasks of any data, as a table for a terminal."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence

import jax

from orthoreg_jax.clip.checkpoint import load_checkpoint
from orthoreg_jax.evaluation.accuracy import measure_accuracies
from orthoreg_jax.tasks.table import read_table
from orthoreg_jax.tasks.task import data_directory, load_each

from .tables import Table, format_text, percent


def measure_model(model: str, data: str, names: Sequence[str], split: str) -> str:
    """A table of a model's accuracies, and their mean; what is to be said of the data is printed.

    Args:
      model: see `load_checkpoint`; its own text tower makes the zero-shot heads.
      data: "embedded", or a folder; see `load_tasks`.
      names: of the tasks; none: all that the folder's tasks.json has.
      split: "train", "val" or "test".

    Raises:
      ValueError: the model cannot be read; a task is missing or wrong, or has no such split; all of
        these tasks are named.
    """
    directory = data_directory(data)
    table = read_table(data, directory)
    tasks = load_each(directory, table, dict.fromkeys(names or table, (split,)))
    if not tasks:
        raise ValueError(f"data {data!r}: has no tasks.json that lists its tasks; give --tasks")
    for name, task in tasks.items():
        for remark in task.remarks():
            print(f"{name}: {remark}", file=sys.stderr)
    checkpoint = load_checkpoint(model)
    with jax.default_matmul_precision("highest"):  # as runs have by default
        found = measure_accuracies(checkpoint, checkpoint.params, tasks, split)
    rows = [
        (task.title, name, str(len(task.splits[split])), percent(found[name]))
        for name, task in tasks.items()
    ]
    rows.append(("Mean", "", "", percent(statistics.fmean(found.values()))))
    header = ("Task", "name", "images", "accuracy, %")
    return format_text(Table(f"{model}, {split}", header, tuple(rows), left=2))
