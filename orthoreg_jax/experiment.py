"""An experiment, read and checked in full before any work starts, and its run folder.

RUN/config.json           every option, resolved
RUN/provenance.json       versions, devices, hashes of the weights and of every split
RUN/heads.safetensors     zero-shot heads, one (classes, features) array per task
RUN/METHOD/seedN/TASK/    vector.safetensors, metrics.jsonl; state/ while training
RUN/METHOD/seedN/evaluation.json
RUN/results.json, RUN/report.html, RUN/plots/
"""

from __future__ import annotations

import dataclasses
import functools
import json
import pathlib
from importlib import metadata
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from .clip.checkpoint import Checkpoint, image_encoder, load_checkpoint
from .clip.preprocessing import Preprocessing, load_preprocessing
from .clip.zeroshot import Head, pad_heads, zero_shot_head
from .config import ORTHOREG, flatten_config, validate
from .storage import read_json, save_tree, write_json
from .tasks.batches import limited_rows
from .tasks.task import Task, load_tasks
from .training.modes import MODES, Apply, Mode
from .training.sharding import Shardings, make_shardings

PACKAGES = ("orthoreg-jax", "jax", "jaxlib", "flax", "optax", "transformers", "numpy")


@dataclasses.dataclass(frozen=True)
class Method:
    """A way to fine-tune, with or without the penalty."""

    name: str
    mode: Mode
    strength: float  # lambda; 0 without the penalty

    @property
    def label(self) -> str:
        """Its name in tables."""
        return self.mode.label + (" + OrthoReg" if self.strength else "")


@dataclasses.dataclass(frozen=True)
class Experiment:
    """Everything a stage needs."""

    config: ConfigDict
    folder: pathlib.Path
    checkpoint: Checkpoint
    preprocessing: Preprocessing
    tasks: dict[str, Task]
    heads: dict[str, Head]
    shardings: Shardings

    @property
    def methods(self) -> list[Method]:
        """The methods of the config, in its order."""
        methods = []
        for name in self.config.methods:
            mode, plus, _ = name.partition(ORTHOREG)
            strength = self.config.penalty.strength if plus else 0.0
            methods.append(Method(name, MODES[mode], strength))
        return methods

    @property
    def apply(self) -> Apply:
        """The image tower: (its params, pixels) -> features."""
        training = self.config.training
        return image_encoder(self.checkpoint.config, jnp.dtype(training.dtype), training.remat)

    def describe(self) -> str:
        """What is about to run, in one line."""
        config, count = self.config, sum(map(np.size, jax.tree.leaves(self.checkpoint.params)))
        device = jax.devices()[0].device_kind
        return (
            f"model {config.model} ({count / 1e6:.1f} M parameters), {len(config.tasks)} tasks and "
            f"control {config.control}, methods {', '.join(config.methods)}, seeds "
            f"{', '.join(map(str, config.seeds))}, on {jax.device_count()} x {device}, in "
            f"{self.folder}"
        )

    @functools.cached_property
    def params0(self) -> Any:
        """The pre-trained image tower, on every device."""
        return jax.device_put(self.checkpoint.params["visual"], self.shardings.replicated)

    def task_folder(self, method: str, seed: int, task: str) -> pathlib.Path:
        """Where a fine-tuned task's files are."""
        return self.folder / method / f"seed{seed}" / task

    def vector_path(self, method: str, seed: int, task: str) -> pathlib.Path:
        """The file of a task vector; that it exists means that the task is finished."""
        return self.task_folder(method, seed, task) / "vector.safetensors"

    def evaluation_path(self, method: str, seed: int) -> pathlib.Path:
        """The numbers measured on one method's task vectors."""
        return self.folder / method / f"seed{seed}" / "evaluation.json"

    def images(self, task: str, split: str) -> tuple[np.ndarray, np.ndarray]:
        """Images (n, size, size, 3), resized for the model, and labels of a split.

        Validation and test splits are cut to the config's limits.
        """
        data, limits = self.tasks[task].splits[split], self.config.evaluation
        limit = {"train": 0, "val": limits.max_val_images, "test": limits.max_test_images}[split]
        rows = limited_rows(len(data), limit)
        return self.preprocessing.resize(data.rgb()[rows]), data.labels[rows]


def prepare(config: ConfigDict, folder: pathlib.Path) -> Experiment:
    """Checks config, model, data and run folder, then opens the folder.

    Raises:
      ValueError: something in them is wrong or does not fit; nothing has been written.
      StorageError: the folder cannot be written.
    """
    validate(config)
    _check_folder(config, folder)
    shardings = make_shardings(config.training.batch_size, config.evaluation.batch_size)
    tasks = load_tasks(config.data, config.tasks, config.control)
    checkpoint = load_checkpoint(config.model)
    preprocessing = load_preprocessing(checkpoint.directory, checkpoint.config)
    facts = _provenance(checkpoint, tasks)
    _check_inputs(facts["inputs"], folder / "provenance.json")
    heads = {
        name: zero_shot_head(checkpoint, task.classes, task.templates)
        for name, task in tasks.items()
    }
    write_json(folder / "config.json", flatten_config(config))
    write_json(folder / "provenance.json", facts)
    save_tree(folder / "heads.safetensors", heads)
    padded = jax.device_put(pad_heads(heads), shardings.replicated)
    return Experiment(config, folder, checkpoint, preprocessing, tasks, padded, shardings)


def _check_folder(config: ConfigDict, folder: pathlib.Path) -> None:
    """A run folder belongs to one config."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ValueError(f"--workdir {folder}: is a file; give a folder, new or of this config")
    path = folder / "config.json"
    if not path.is_file():
        if any(item for item in folder.iterdir() if not item.name.startswith(".")):
            raise ValueError(
                f"--workdir {folder}: holds files but no config.json, so it is no run folder; "
                "choose a new one"
            )
        return
    old, new = read_json(path), json.loads(json.dumps(flatten_config(config)))
    differing = [
        f"{key} was {old.get(key)!r}, is {new.get(key)!r}"
        for key in {**old, **new}
        if old.get(key) != new.get(key)
    ]
    if differing:
        raise ValueError(
            f"--workdir {folder}: holds a run with another config ({'; '.join(differing)}); "
            "choose another folder, or delete this one to start anew"
        )


def _check_inputs(inputs: dict[str, Any], path: pathlib.Path) -> None:
    """A run folder belongs to one set of weights and data."""
    if path.is_file() and read_json(path)["inputs"] != inputs:
        raise ValueError(
            f"{path}: the weights or data of this run were others (their hashes differ); choose "
            "another --workdir, or bring the old files back"
        )


def _provenance(checkpoint: Checkpoint, tasks: dict[str, Task]) -> dict[str, Any]:
    import platform

    return {
        "versions": {name: metadata.version(name) for name in PACKAGES}
        | {"python": platform.python_version()},
        "devices": [f"{device.platform}: {device.device_kind}" for device in jax.devices()],
        "inputs": {
            "weights_sha256": checkpoint.sha256,
            "tasks": {
                name: {
                    split: {"images": len(data), "sha256": data.sha256}
                    for split, data in task.splits.items()
                }
                for name, task in tasks.items()
            },
        },
    }
