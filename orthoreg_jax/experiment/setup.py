"""Reads and checks an experiment in full before any work starts."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
from ml_collections import ConfigDict

from orthoreg_jax.clip.checkpoint import load_checkpoint
from orthoreg_jax.clip.zeroshot import pad_heads, zero_shot_head
from orthoreg_jax.config import GIVEN, default_config, flatten_config, split_method, validate
from orthoreg_jax.progress import say
from orthoreg_jax.storage import StorageError, read_json
from orthoreg_jax.tasks.catalogue import KNOWN
from orthoreg_jax.tasks.task import load_tasks
from orthoreg_jax.training.events import check_events
from orthoreg_jax.training.penalties import PENALTIES, penalty_options
from orthoreg_jax.training.sharding import make_shardings
from orthoreg_jax.training.tracking import find_function

from .experiment import Experiment
from .run_folder import check_folder, check_inputs, translate_options


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
    if training.on_metrics:
        find_function(training.on_metrics)
    at_once = training.batch_size // training.accumulate
    penalties = {name for method in config.methods for name in split_method(method)[1]}
    beside = [
        penalty_options(name, config)[row.batch]
        for name, row in PENALTIES.items()
        if name in penalties and row.batch
    ]
    shardings = make_shardings(at_once, *beside, fsdp=training.fsdp)
    local = make_shardings(config.evaluation.batch_size, local=True)
    tasks = load_tasks(config.data, config.tasks, config.control)
    checkpoint = load_checkpoint(config.model)
    preprocessing = checkpoint.preprocessing
    for note in (*checkpoint.notes, *preprocessing.notes):
        say(note)
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
    if any(method != GIVEN for method in config.methods):
        _check_steps(experiment)
    _check_memory(experiment)
    check_inputs(experiment)
    if experiment.lacks_given:
        notes = [note for each in experiment.given.values() for note in each.notes]
        for note in dict.fromkeys(notes):
            say(note)
    return experiment


def reopen(folder: pathlib.Path, options: Mapping[str, Any] | None = None) -> Experiment:
    """Reopens the experiment of a run folder; writes nothing.

    Options that did not exist in the run's version take their defaults.

    Args:
      folder: the run folder.
      options: options by dotted name, as in config.json; None reads config.json. The options of
        finished measurements are in results.json.

    Raises:
      ValueError: as `prepare`; data or model have changed since the run began.
      StorageError: the folder contains no run, or cannot be read.
    """
    config, known = default_config(), flatten_config(default_config())
    path = folder / "config.json"
    try:
        for key, value in translate_options(
            read_json(path) if options is None else options
        ).items():
            if key in known:
                *parents, name = key.split(".")
                node = config
                for parent in parents:
                    node = node[parent]
                node[name] = tuple(value) if isinstance(value, list) else value
    except (AttributeError, TypeError) as error:  # not a dict, or a value has another type
        raise StorageError(f"{path}: is not the config of a run ({error})") from error
    return prepare(config, folder)


def _check_memory(experiment: Experiment) -> None:
    """Checks that the images of a batch, as bytes, fit into this machine's memory."""
    config, size = experiment.config, 3 * experiment.preprocessing.size**2
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # this system does not report its memory
        return
    batches = {
        "training.batch_size": config.training.batch_size // jax.process_count(),
        "evaluation.batch_size": config.evaluation.batch_size,
    }
    for key, images in batches.items():
        if images * size > memory:
            raise ValueError(
                f"{key}: {images} images of {size} bytes each exceed this machine's memory, "
                f"{memory / 2**30:.0f} GiB; choose a smaller value"
            )


def _check_steps(experiment: Experiment) -> None:
    """Checks that every task has a number of steps, and more than the warm-up."""
    options = experiment.config.training
    unknown = [task for task in experiment.config.tasks if task not in KNOWN]
    if options.epochs < 0 and unknown:
        raise ValueError(
            f"training.epochs is -1, but {', '.join(unknown)} are not among the field's tasks; "
            "give a number of epochs, or training.steps"
        )
    short = {task: steps for task in experiment.config.tasks
             if (steps := experiment.steps(task)) <= options.warmup}  # fmt: skip
    if short:
        raise ValueError(
            f"training.warmup is {options.warmup}, but some tasks train for no more "
            f"steps than that ({', '.join(f'{task}: {steps}' for task, steps in short.items())}); "
            "choose fewer warm-up steps, a share below 1, or more epochs"
        )
