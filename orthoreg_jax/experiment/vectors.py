"""Opens and loads a run folder's task vectors, without its model and data."""

from __future__ import annotations

import os
import pathlib
from typing import Any

from orthoreg_jax.storage import StorageError, read_json
from orthoreg_jax.trees import StoredTree, load_tree

VECTOR = "vector.safetensors"


def task_folder(folder: pathlib.Path, method: str, seed: int, task: str) -> pathlib.Path:
    """The folder with the files of one fine-tuned task."""
    return folder / method / f"seed{seed}" / task


def vector_path(folder: pathlib.Path, method: str, seed: int, task: str) -> pathlib.Path:
    """The file of a task vector; its existence means that the task is finished."""
    return task_folder(folder, method, seed, task) / VECTOR


def vector_facts(method: str, seed: int, task: str, base: str) -> dict[str, str]:
    """The metadata of a task vector's file; `base` is the hash of the pre-trained weights."""
    return {"task": task, "method": method, "seed": str(seed), "pretrained_sha256": base}


def open_vector(
    folder: pathlib.Path, method: str, seed: int, task: str, base: str | None = None
) -> StoredTree:
    """Opens a task vector's file and checks its header against the arguments.

    Args:
      folder: the run folder.
      method: a method of the run.
      seed: a seed of the run.
      task: a task of the run.
      base: hash of the pre-trained weights; None takes the one that the run recorded.

    Raises:
      StorageError: the file is missing or damaged, or belongs to another task, method, seed or
        model.
    """
    stored = StoredTree(vector_path(folder, method, seed, task))
    wanted = vector_facts(method, seed, task, base or _recorded_base(folder))
    others = [
        f"{name} is {stored.about.get(name, 'not said')!r}, expected {value!r}"
        for name, value in wanted.items()
        if stored.about.get(name) != value
    ]
    if others or "sha256" not in stored.about:
        raise StorageError(
            f"{stored.path}: is not the vector that the run made here "
            f"({'; '.join(others) or 'it has no hash of its content'}); restore it, or delete "
            "this file and run the stage `finetune` to make it again"
        )
    return stored


def _recorded_base(folder: pathlib.Path) -> str:
    """Hash of the pre-trained weights, from the run's record of its inputs."""
    path = folder / "provenance.json"
    facts = read_json(path)
    try:
        return str(facts["inputs"]["weights"]["sha256"])
    except (LookupError, TypeError) as error:
        raise StorageError(
            f"{path}: does not record which pre-trained weights the run started from; restore "
            "the file, or run the stage `evaluate`, which writes it"
        ) from error


def load_task_vectors(
    workdir: str | os.PathLike[str], method: str, seed: int | None = None
) -> dict[str, Any]:
    """Loads all task vectors of one method and seed of a run.

    Args:
      workdir: a run folder whose stage `finetune` is done.
      method: a method of the run, e.g. "full+orthoreg".
      seed: a seed of the run; None takes the config's first seed that the method was trained with.

    Returns:
      Task vectors by task, in the order of the run's config: trees `{"visual": ...}` of NumPy
      arrays, which `apply_task_vector` adds to a whole CLIP's parameters.

    Raises:
      ValueError: no run folder, or one without these vectors.
      StorageError: a file that is damaged, or not the vector that the run made there.

    Examples:
      >>> vectors = oj.load_task_vectors("runs/mine", "full")
      >>> vectors.keys(), oj.cosine_matrix(vectors).shape
      (dict_keys(['first', 'second']), (2, 2))
    """
    folder = pathlib.Path(workdir)
    if not (folder / "config.json").is_file():
        raise ValueError(f"{folder}: has no config.json, so it is not a run folder")
    config = read_json(folder / "config.json")
    if not isinstance(config, dict) or not (config.get("tasks") and config.get("seeds")):
        raise ValueError(f"{folder / 'config.json'}: is not the config of a run")
    if seed is None:
        seeds = [one for one in config["seeds"] if (folder / method / f"seed{one}").is_dir()]
        seed = (seeds or config["seeds"])[0]
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
            f"has {', '.join(there) or 'none: run the stage `finetune`'}"
        )
    base = _recorded_base(folder)
    for task in paths:
        open_vector(folder, method, seed, task, base)
    return {task: load_tree(path) for task, path in paths.items()}
