"""Task vectors of a run folder, for those who have the folder alone."""

from __future__ import annotations

import os
import pathlib
from typing import Any

from orthoreg_jax.storage import load_tree, read_json

VECTOR = "vector.safetensors"


def task_folder(folder: pathlib.Path, method: str, seed: int, task: str) -> pathlib.Path:
    """Where a run folder has the files of one fine-tuned task."""
    return folder / method / f"seed{seed}" / task


def vector_path(folder: pathlib.Path, method: str, seed: int, task: str) -> pathlib.Path:
    """The file of a task vector; that it exists means that the task is finished."""
    return task_folder(folder, method, seed, task) / VECTOR


def load_task_vectors(
    workdir: str | os.PathLike[str], method: str, seed: int | None = None
) -> dict[str, Any]:
    """All task vectors that a run made by one method with one seed.

    Args:
      workdir: a run folder; its stage `finetune` is done.
      method: of the run, e.g. "full+orthoreg".
      seed: of the run; None: its first.

    Returns:
      By task, in the order of the run's config: trees `{"visual": ...}` of numpy arrays, which
      `apply_task_vector` adds to a whole CLIP's parameters.

    Raises:
      ValueError: no run folder, or one without these vectors.
      StorageError: a file that is damaged.
    """
    folder = pathlib.Path(workdir)
    if not (folder / "config.json").is_file():
        raise ValueError(f"{folder}: holds no config.json, so it is no run folder")
    config = read_json(folder / "config.json")
    if not isinstance(config, dict) or not (config.get("tasks") and config.get("seeds")):
        raise ValueError(f"{folder / 'config.json'}: is not the config of a run")
    seed = config["seeds"][0] if seed is None else seed
    paths = {task: vector_path(folder, method, seed, task) for task in config["tasks"]}
    missing = [task for task, path in paths.items() if not path.is_file()]
    if missing:
        there = sorted(
            {
                f"{path.parts[-4]} seed {path.parts[-3][4:]}"
                for path in folder.glob(f"*/*/*/{VECTOR}")
            }
        )
        raise ValueError(
            f"{folder}: has no task vector of {method} seed {seed} for {', '.join(missing)}; it "
            f"has some of {', '.join(there) or 'nothing: run the stage `finetune`'}"
        )
    return {task: load_tree(path) for task, path in paths.items()}
