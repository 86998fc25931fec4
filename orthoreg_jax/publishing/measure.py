"""Measures any CLIP's accuracy on the tasks of any data, as a table for a terminal."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import jax

from orthoreg_jax.clip.checkpoint import load_checkpoint
from orthoreg_jax.evaluation.checkpoint_accuracy import measure_accuracies
from orthoreg_jax.progress import say
from orthoreg_jax.reporting.tables import Table, format_text, percent
from orthoreg_jax.tasks.table import read_table
from orthoreg_jax.tasks.task import Task, data_directory, load_each


def measure_model(model: str, data: str, names: Sequence[str], split: str, base: str = "") -> str:
    """A table of a model's accuracies and their mean; notes on model and data are printed.

    Args:
      model: see `load_checkpoint`; its own text tower makes the zero-shot heads.
      data: "embedded", or a folder; see `load_tasks`.
      names: task names; empty takes all in the folder's tasks.json.
      split: "train", "val" or "test".
      base: for a part of a model, the CLIP that it was fine-tuned from.

    Raises:
      ValueError: the model cannot be read; or tasks are missing, wrong or lack the split, and the
        error names all of them.
    """
    tasks = load_measured(data, names, (split,))
    checkpoint = load_checkpoint(model, base or None)
    for note in (*checkpoint.notes, *checkpoint.preprocessing.notes):
        say(note)
    with jax.default_matmul_precision("highest"):  # as in runs by default
        found = measure_accuracies(checkpoint, checkpoint.params, tasks, split)
    rows = [
        (task.title, name, str(len(task.splits[split])), percent(found[name]))
        for name, task in tasks.items()
    ]
    rows.append(("Mean", "", "", percent(statistics.fmean(found.values()))))
    header = ("Task", "name", "images", "accuracy, %")
    return format_text(Table(f"{model}, {split}", header, tuple(rows), left=2))


def load_measured(data: str, names: Sequence[str], splits: tuple[str, ...]) -> dict[str, Task]:
    """Loads tasks by name, with the split to measure.

    Raises:
      ValueError: tasks are missing, wrong or lack a split. The error names all of them.
    """
    directory = data_directory(data)
    table = read_table(data, directory)
    tasks = load_each(directory, table, dict.fromkeys(names or table, splits))
    if not tasks:
        raise ValueError(f"data {data!r}: has no tasks.json to list its tasks; give --tasks")
    for name, task in tasks.items():
        for remark in task.remarks():
            say(f"{name}: {remark}")
    return tasks
