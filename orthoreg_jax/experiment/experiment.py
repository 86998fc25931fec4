"""The `Experiment`: everything its stages need, checked, and the paths of their files."""

from __future__ import annotations

import dataclasses
import functools
import math
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from orthoreg_jax.arithmetic.types import Apply, Params
from orthoreg_jax.clip.checkpoint import Checkpoint, image_encoder
from orthoreg_jax.clip.modules import Gather
from orthoreg_jax.clip.preprocessing import Preprocessing
from orthoreg_jax.clip.zeroshot import Head
from orthoreg_jax.config import GIVEN, PLUS, flatten_config, split_method
from orthoreg_jax.storage import json_sha256
from orthoreg_jax.tasks.batches import limited_rows
from orthoreg_jax.tasks.catalogue import KNOWN, other_training_set
from orthoreg_jax.tasks.loading import Feed, load_images
from orthoreg_jax.tasks.notes import Note
from orthoreg_jax.tasks.task import Task
from orthoreg_jax.training.modes import make_mode
from orthoreg_jax.training.modes.mode import Mode
from orthoreg_jax.training.penalties import PENALTIES, Penalty, penalty_options
from orthoreg_jax.training.sharding import Shardings
from orthoreg_jax.versions import PACKAGES, version
from orthoreg_jax.words import counted, plural

from .given import Given, open_given
from .vectors import task_folder, vector_path


@dataclasses.dataclass(frozen=True)
class Method:
    """A way to fine-tune and the names of its penalties."""

    name: str
    mode: Mode
    penalties: dict[str, Penalty]
    learning_rate: float
    text_tensors: bool = False  # whether to train the authors' text tensors as well

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
        return [self.method(name) for name in self.config.methods]

    def method(self, name: str) -> Method:
        """Builds one method from the config's options."""
        mode, names = split_method(name)
        if mode == GIVEN:
            return Method(name, make_mode(mode, self.config), {}, 0.0)
        own, penalties = self.config.per_method, {}
        for each in names:
            options = penalty_options(each, self.config)
            strength = own[mode + PLUS + each].strength or options.strength
            penalties[each] = PENALTIES[each].make(options, strength)
        rate = own[name if name in own else mode].learning_rate
        rate = rate or self.config.training.learning_rate
        made = make_mode(mode, self.config)
        text = self.config.penalty.text_tensors and "orthoreg" in penalties and made.whole
        return Method(name, made, penalties, rate, text)

    @functools.cached_property
    def apply(self) -> Apply:
        """The image tower: (params, pixels) -> features."""
        return self._encoder(None)

    @functools.cached_property
    def sharded_apply(self) -> Apply:
        """The same, for params split by `shardings`."""
        return self._encoder(self.shardings.gather)

    def _encoder(self, gather: Gather | None) -> Apply:
        training = self.config.training
        dtype = jnp.dtype(training.dtype)
        return image_encoder(self.checkpoint.config, dtype, training.remat, gather)

    def describe(self) -> str:
        """A line that describes the run, and one for each task that is trained unlike others."""
        config, count = self.config, sum(map(np.size, jax.tree.leaves(self.checkpoint.params)))
        device = jax.devices()[0].device_kind
        lines = [*self._others_epochs().items(), *self._repeated().items()]
        said = "".join(f"\n{name}: {text}" for name, text in lines)
        return (
            f"model {config.model} ({count / 1e6:.1f} M parameters), "
            f"{counted(len(config.tasks), 'task')} and control {config.control}, "
            f"{plural(len(config.methods), 'method')} {', '.join(config.methods)}, "
            f"{plural(len(config.seeds), 'seed')} {', '.join(map(str, config.seeds))}, on "
            f"{jax.device_count()} x {device}, in {self.folder}{said}"
        )

    def _others_epochs(self) -> dict[str, Note]:
        """Notes on tasks that take the recipe's epochs but not its images.

        Tasks whose own notes already say so are left out.
        """
        if self.config.training.epochs >= 0:
            return {}
        counts = {name: len(self.tasks[name].splits["train"]) for name in self.config.tasks}
        notes = {
            name: Note(count, other_training_set(name, count)) for name, count in counts.items()
        }
        return {name: note for name, note in notes.items()
                if note.what and note not in self.tasks[name].notes}  # fmt: skip

    def _repeated(self) -> dict[str, str]:
        """Notes on trained tasks that have fewer images than a batch."""
        if all(method == GIVEN for method in self.config.methods):
            return {}
        size = self.config.training.batch_size
        counts = {name: len(self.tasks[name].splits["train"]) for name in self.config.tasks}
        return {
            name: f"its {count} training images are fewer than training.batch_size, {size}, so "
            "every batch has some of them more than once"
            for name, count in counts.items()
            if count < size
        }

    def facts(self, stages: Sequence[str]) -> dict[str, Any]:
        """Facts that all processes must agree on, by name."""
        options = {f"config.{key}": value for key, value in flatten_config(self.config).items()}
        versions = {f"version of {name}": version(name) for name in PACKAGES}
        tasks = {f"data of task {name}": json_sha256(facts)[:12]
                 for name, facts in self.inputs["tasks"].items()}  # fmt: skip
        model = {"model's files": json_sha256(self.inputs["model"])[:12]}
        return {"stages": list(stages), **options, **versions, **tasks, **model}

    @functools.cached_property
    def params0(self) -> Params:
        """The pre-trained image tower, for evaluation, on every device of this process."""
        return jax.device_put(self.checkpoint.params["visual"], self.local.replicated)

    def task_folder(self, method: str, seed: int, task: str) -> pathlib.Path:
        """The folder with a fine-tuned task's files."""
        return task_folder(self.folder, method, seed, task)

    def vector_path(self, method: str, seed: int, task: str) -> pathlib.Path:
        """The file of a task vector; its existence means that the task is finished."""
        return vector_path(self.folder, method, seed, task)

    def evaluation_path(self, method: str, seed: int) -> pathlib.Path:
        """The file with the numbers measured on one method's task vectors."""
        return self.folder / method / f"seed{seed}" / "evaluation.json"

    @functools.cached_property
    def inputs(self) -> dict[str, Any]:
        """Hashes of everything the numbers depend on: the model's files, prompts and images."""
        tasks = {
            name: {
                "prompts_sha256": task.prompts_sha256,
                "splits": {
                    split: {"images": len(data), "sha256": data.sha256}
                    for split, data in task.splits.items()
                },
            }
            for name, task in self.tasks.items()
        }
        weights = {"sha256": self.checkpoint.sha256}  # as task vectors name them
        return {"model": self.checkpoint.hash_files(), "weights": weights, "tasks": tasks}

    @functools.cached_property
    def given(self) -> dict[str, Given]:
        """The models of `given`, by task, opened and checked."""
        return open_given(self.config.given, self.config.tasks, self.checkpoint)

    @property
    def lacks_given(self) -> bool:
        """Whether a task vector of the method "given" is still to be made."""
        return any(
            not self.vector_path(GIVEN, seed, task).is_file()
            for method in self.config.methods
            if method == GIVEN
            for seed in self.config.seeds
            for task in self.config.tasks
        )

    def steps(self, task: str) -> int:
        """Optimiser steps for a task."""
        options = self.config.training
        if options.epochs == 0:
            return int(options.steps)
        epochs = KNOWN[task].epochs if options.epochs < 0 else options.epochs
        return math.ceil(epochs * len(self.tasks[task].splits["train"]) / options.batch_size)

    def feed(self, task: str, seed: int, batch_size: int) -> Feed:
        """This process's part of a task's training batches."""
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

        At most `limit` images, chosen by a fixed seed; 0 gives all.
        """
        data = self.tasks[task].splits[split]
        rows = limited_rows(len(data), limit)
        return load_images(data.images, rows, self.preprocessing), data.labels[rows]
