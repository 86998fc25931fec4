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
import math
import pathlib
import platform
from importlib import metadata
from operator import getitem
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from orthoreg_jax.clip.checkpoint import Checkpoint, image_encoder, load_checkpoint
from orthoreg_jax.clip.modules import Gather
from orthoreg_jax.clip.preprocessing import Preprocessing, load_preprocessing
from orthoreg_jax.clip.zeroshot import Head, pad_heads, zero_shot_head
from orthoreg_jax.config import PLUS, default_config, flatten_config, split_method, validate
from orthoreg_jax.hosts import is_first
from orthoreg_jax.storage import StorageError, read_json, save_tree, write_json
from orthoreg_jax.tasks.batches import limited_rows
from orthoreg_jax.tasks.catalogue import KNOWN
from orthoreg_jax.tasks.loading import Feed, load_images
from orthoreg_jax.tasks.task import Task, load_tasks
from orthoreg_jax.training.events import check_events
from orthoreg_jax.training.modes import MODES
from orthoreg_jax.training.modes.mode import Apply, Mode
from orthoreg_jax.training.penalties import PENALTIES
from orthoreg_jax.training.penalties.penalty import Penalty
from orthoreg_jax.training.sharding import Shardings, make_shardings

from .vectors import VECTOR

PACKAGES = ("orthoreg-jax", "jax", "jaxlib", "flax", "optax", "transformers", "numpy")


@dataclasses.dataclass(frozen=True)
class Method:
    """A way to fine-tune, with its penalties by name."""

    name: str
    mode: Mode
    penalties: dict[str, Penalty]
    learning_rate: float

    @property
    def label(self) -> str:
        """Its name in tables."""
        return " + ".join([self.mode.label, *(PENALTIES[name].label for name in self.penalties)])

    @property
    def strengths(self) -> dict[str, float]:
        """Lambda of each penalty."""
        return {name: penalty.strength for name, penalty in self.penalties.items()}


@dataclasses.dataclass(frozen=True)
class Experiment:
    """Everything a stage needs; `heads` are `zero_shot_heads` padded, on the devices."""

    config: ConfigDict
    folder: pathlib.Path
    checkpoint: Checkpoint
    preprocessing: Preprocessing
    tasks: dict[str, Task]
    zero_shot_heads: dict[str, np.ndarray]
    heads: dict[str, Head]
    shardings: Shardings  # of all processes, to train
    local: Shardings  # of this process, to evaluate

    @property
    def methods(self) -> list[Method]:
        """The methods of the config, in its order."""
        return [self._method(name) for name in self.config.methods]

    def _method(self, name: str) -> Method:
        mode, names = split_method(name)
        own, penalties = self.config.per_method, {}
        for each in names:
            row = PENALTIES[each]
            options = functools.reduce(getitem, row.options.split("."), self.config)
            strength = own[mode + PLUS + each].strength or options.strength
            penalties[each] = row.make(options, strength)
        rate = own[name if name in own else mode].learning_rate
        rate = rate or self.config.training.learning_rate
        return Method(name, MODES[mode](self.config.lora), penalties, rate)

    @functools.cached_property
    def apply(self) -> Apply:
        """The image tower: (its params, pixels) -> features."""
        return self._encoder(None)

    @functools.cached_property
    def sharded_apply(self) -> Apply:
        """The same on params that `shardings` has split."""
        return self._encoder(self.shardings.gather)

    def _encoder(self, gather: Gather | None) -> Apply:
        training = self.config.training
        dtype = jnp.dtype(training.dtype)
        return image_encoder(self.checkpoint.config, dtype, training.remat, gather)

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
        """The pre-trained image tower, for evaluation, on every device of this process."""
        return jax.device_put(self.checkpoint.params["visual"], self.local.replicated)

    def task_folder(self, method: str, seed: int, task: str) -> pathlib.Path:
        """Where a fine-tuned task's files are."""
        return self.folder / method / f"seed{seed}" / task

    def vector_path(self, method: str, seed: int, task: str) -> pathlib.Path:
        """The file of a task vector; that it exists means that the task is finished."""
        return self.task_folder(method, seed, task) / VECTOR

    def evaluation_path(self, method: str, seed: int) -> pathlib.Path:
        """The numbers measured on one method's task vectors."""
        return self.folder / method / f"seed{seed}" / "evaluation.json"

    def steps(self, task: str) -> int:
        """Optimiser steps for a task."""
        options = self.config.training
        if options.epochs == 0:
            return int(options.steps)
        epochs = KNOWN[task].epochs if options.epochs < 0 else options.epochs
        return math.ceil(epochs * len(self.tasks[task].splits["train"]) / options.batch_size)

    def feed(self, task: str, seed: int, batch_size: int) -> Feed:
        """Training batches of a task, this process's part of them."""
        return Feed(
            self.tasks[task].splits["train"],
            self.preprocessing,
            batch_size,
            seed,
            self.config.training.crop_scale,
            jax.process_index(),
            jax.process_count(),
        )

    def images(self, task: str, split: str, limit: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Images (n, size, size, 3), resized for the model, and labels of a split.

        At most `limit` of them, chosen by a fixed seed; 0: all.
        """
        data = self.tasks[task].splits[split]
        rows = limited_rows(len(data), limit)
        return load_images(data.images, rows, self.preprocessing), data.labels[rows]


def prepare(config: ConfigDict, folder: pathlib.Path) -> Experiment:
    """Reads and checks config, model, data and run folder; writes nothing.

    Raises:
      ValueError: something in them is wrong or does not fit.
      StorageError: a file of the run folder cannot be read.
    """
    validate(config)
    check_folder(config, folder)
    training = config.training
    if training.tensorboard:
        check_events()
    at_once = training.batch_size // training.accumulate
    penalties = {name for method in config.methods for name in split_method(method)[1]}
    beside = [config.penalty.taujp.batch_size] if "taujp" in penalties else []
    shardings = make_shardings(at_once, *beside, fsdp=training.fsdp)
    local = make_shardings(config.evaluation.batch_size, local=True)
    tasks = load_tasks(config.data, config.tasks, config.control)
    checkpoint = load_checkpoint(config.model)
    preprocessing = load_preprocessing(checkpoint.directory, checkpoint.config)
    heads = {}
    for name, task in tasks.items():
        try:
            heads[name] = zero_shot_head(checkpoint, task.classes, task.templates)
        except ValueError as error:
            raise ValueError(f"task {name!r}: {error}") from error
    experiment = Experiment(
        config,
        folder,
        checkpoint,
        preprocessing,
        tasks,
        heads,
        jax.device_put(pad_heads(heads), local.replicated),
        shardings,
        local,
    )
    _check_steps(experiment)
    _check_inputs(experiment)
    return experiment


def reopen(folder: pathlib.Path) -> Experiment:
    """The experiment of a run folder, by the config that is in it; writes nothing.

    Options that the run's version did not have yet are as they are by default.

    Raises:
      ValueError: as `prepare`; data or model are no longer those that the run began with.
      StorageError: the folder holds no run, or cannot be read.
    """
    config, known = default_config(), flatten_config(default_config())
    path = folder / "config.json"
    try:
        for key, value in read_json(path).items():
            if key in known:
                *parents, name = key.split(".")
                node = config
                for parent in parents:
                    node = node[parent]
                node[name] = tuple(value) if isinstance(value, list) else value
    except (AttributeError, TypeError) as error:  # no dict, or a value of another type
        raise StorageError(f"{path}: is not the config of a run ({error})") from error
    return prepare(config, folder)


def open_folder(experiment: Experiment) -> None:
    """Writes what the run folder says of its config, inputs and machines.

    Raises:
      StorageError: the folder cannot be written.
    """
    folder = experiment.folder
    if not is_first():
        return
    write_json(folder / "config.json", flatten_config(experiment.config))
    save_tree(folder / "heads.safetensors", experiment.zero_shot_heads)
    path, machine = folder / "provenance.json", _machine()
    facts = {**machine, "inputs": _inputs(experiment), "continued_with": []}
    if path.is_file():
        facts = _read_provenance(path)
        known = [{key: facts[key] for key in machine}, *facts["continued_with"]]
        if machine in known:
            return
        # What was made before was made by other versions or devices: keep both.
        facts["continued_with"].append(machine)
    write_json(path, facts)


# Options that change neither weights (but for rounding) nor what is measured on them, or whose
# change is noticed where it matters (evaluation.json holds the options that it was made with).
FREE_OPTIONS = (
    "evaluation.",
    "training.log_every",
    "training.tensorboard",
    "training.checkpoint_every",
    "training.keep_checkpoints",
    "training.fsdp",
    "training.accumulate",
    "training.remat",
    "methods",
    "seeds",
)


def check_folder(config: ConfigDict, folder: pathlib.Path) -> None:
    """The weights of a run folder belong to one config."""
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
    if not isinstance(old, dict):
        raise ValueError(f"{path}: is not the config of a run; choose another --workdir")
    # An option that the version which began the run did not have is as it is by default.
    old = json.loads(json.dumps(flatten_config(default_config()))) | old
    differing = [
        f"{key} was {old.get(key)!r}, is {new.get(key)!r}"
        for key in {**old, **new}
        if old.get(key) != new.get(key) and not key.startswith(FREE_OPTIONS)
    ]
    if differing:
        raise ValueError(
            f"--workdir {folder}: holds a run with another config ({'; '.join(differing)}); "
            "choose another folder, or delete this one to start anew"
        )


def _check_steps(experiment: Experiment) -> None:
    """Every task has a number of steps, and one that is longer than the warm-up."""
    options = experiment.config.training
    unknown = [task for task in experiment.config.tasks if task not in KNOWN]
    if options.epochs < 0 and unknown:
        raise ValueError(
            f"training.epochs is -1, but {', '.join(unknown)} are none of the field's tasks; give "
            "a number of epochs, or training.steps"
        )
    short = {task: steps for task in experiment.config.tasks
             if (steps := experiment.steps(task)) <= options.warmup_steps}  # fmt: skip
    if short:
        raise ValueError(
            f"training.warmup_steps is {options.warmup_steps}, but some tasks have no more steps "
            f"in all ({', '.join(f'{task}: {steps}' for task, steps in short.items())}); choose "
            "fewer warm-up steps, or more epochs"
        )


def _check_inputs(experiment: Experiment) -> None:
    """A run folder belongs to one set of weights and data."""
    path = experiment.folder / "provenance.json"
    if not path.is_file():
        return
    old, new = _read_provenance(path)["inputs"], _inputs(experiment)
    if old != new:
        differing = [
            f"{kind} {name}"
            for kind, now in new.items()
            for name in now
            if old.get(kind, {}).get(name) != now[name]
        ]
        raise ValueError(
            f"{path}: this run was begun with other files ({', '.join(differing)}: their hashes "
            "differ); choose another --workdir, or bring the old files back"
        )


def _read_provenance(path: pathlib.Path) -> dict[str, Any]:
    """What `open_folder` wrote.

    Raises:
      StorageError: it is damaged.
    """
    facts = read_json(path)
    kinds = {"versions": dict, "devices": list, "inputs": dict, "continued_with": list}
    sound = isinstance(facts, dict) and all(
        isinstance(facts.get(key), kind) for key, kind in kinds.items()
    )
    if not sound or not all(isinstance(known, dict) for known in facts["inputs"].values()):
        raise StorageError(
            f"{path}: is not what a run says of its inputs and machines; bring the file back, or "
            "choose another --workdir"
        )
    checked: dict[str, Any] = facts
    return checked


def _inputs(experiment: Experiment) -> dict[str, Any]:
    """Hashes of all that the numbers depend on."""
    tasks = {
        name: {
            "prompts_sha256": task.prompts_sha256,
            "splits": {
                split: {"images": len(data), "sha256": data.sha256}
                for split, data in task.splits.items()
            },
        }
        for name, task in experiment.tasks.items()
    }
    return {"model": experiment.checkpoint.hash_files(), "tasks": tasks}


def _machine() -> dict[str, Any]:
    versions = {name: metadata.version(name) for name in PACKAGES}
    return {
        "versions": versions | {"python": platform.python_version()},
        "devices": [f"{device.platform}: {device.device_kind}" for device in jax.devices()],
    }
