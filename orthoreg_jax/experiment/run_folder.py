"""The records of a run folder: its config, inputs and machines, and the checks against them.

RUN/config.json           every option, resolved; methods and seeds of all commands
RUN/provenance.json       versions, devices, CPUs, hashes of the weights and of every split
RUN/heads.safetensors     zero-shot heads, one (classes, features) array per task
RUN/METHOD/seedN/TASK/    vector.safetensors, metrics.jsonl; state/ while training;
                          METHOD "given": the vector alone, whose header names the model
RUN/METHOD/seedN/evaluation.json, correct.safetensors
RUN/results.json, RUN/samples.json, RUN/report.html, RUN/plots/
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import platform
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from ml_collections import ConfigDict

from orthoreg_jax.config import GIVEN, default_config, flatten_config, split_method
from orthoreg_jax.hosts import is_first
from orthoreg_jax.storage import StorageError, only_one, read_json, remove_scratch, write_json
from orthoreg_jax.training.penalties import PENALTIES
from orthoreg_jax.training.schedule import count_warmup
from orthoreg_jax.trees import save_tree
from orthoreg_jax.versions import PACKAGES, version

from .experiment import Experiment
from .vectors import VECTOR


def open_folder(experiment: Experiment) -> None:
    """Writes the run folder's record of its config, inputs and machines.

    Several commands may fine-tune different methods in one folder, at once or one after another;
    the folder's config lists the methods and seeds of all of them.

    Raises:
      StorageError: the folder cannot be written.
    """
    if not is_first():
        return
    folder = experiment.folder
    with sharing(folder):
        remove_scratch(folder)
        path = folder / "config.json"
        old = read_json(path) if path.is_file() else {}
        new = flatten_config(experiment.config)
        lists = {key: list(dict.fromkeys([*old.get(key, ()), *new[key]])) for key in LISTS}
        write_json(path, new | lists)
        save_tree(folder / "heads.safetensors", experiment.zero_shot_heads)
        _write_provenance(experiment)


def sharing(folder: pathlib.Path) -> contextlib.AbstractContextManager[None]:
    """Makes other commands wait while this one writes files that all methods share."""
    return only_one(folder, patience=60)


def _write_provenance(experiment: Experiment) -> None:
    path, machine = experiment.folder / "provenance.json", _machine()
    if not path.is_file():
        facts = {**machine, "inputs": experiment.inputs, "continued_with": []}
        write_json(path, facts)
        return
    facts = _read_provenance(path)
    before = json.dumps(facts)
    known = [{key: facts.get(key) for key in machine}, *facts["continued_with"]]
    if machine not in known:
        # Earlier files come from other versions or devices: record both machines.
        facts["continued_with"].append(machine)
        print(
            f"{experiment.folder}: resumes with {_name_differences(known[-1], machine)}; new "
            "results match the earlier machine's up to rounding, not bit for bit",
            file=sys.stderr,
        )
    if changed := _name_changed(facts["inputs"], experiment.inputs):
        trains = any(name != GIVEN for name in experiment.config.methods)
        retrained = _to_retrain(experiment, facts["inputs"]) if trains else []
        kept = "vectors of other tasks are kept" if retrained else "task vectors are kept"
        trained = f"{', '.join(retrained)} will be trained on them, " if retrained else ""
        print(
            f"{experiment.folder}: {', '.join(changed)} changed; {trained}{kept}, and the stage "
            "`evaluate` measures again",
            file=sys.stderr,
        )
    facts["inputs"] = experiment.inputs
    if json.dumps(facts) != before:
        write_json(path, facts)


def _name_differences(old: dict[str, Any], new: dict[str, Any]) -> str:
    """Formats differences as "1 CPU (before: 2)"; versions are named by package."""

    def name(machine: dict[str, Any]) -> dict[str, str]:
        kinds = Counter(machine["devices"])
        devices = ", ".join(f"{count} x {kind}" for kind, count in kinds.items())
        versions = {f"{package} ": version for package, version in machine["versions"].items()}
        return {"CPUs ": str(machine.get("cpus", "not recorded")), "": devices, **versions}

    before, now = name(old), name(new)
    return "; ".join(
        f"{key}{value} (before: {before.get(key, 'none')})"
        for key, value in now.items()
        if before.get(key) != value
    )


# Options that change neither weights (beyond rounding) nor what is measured on them, or whose
# changes are noticed elsewhere (evaluation.json records the options it was made with).
FREE_OPTIONS = (
    "evaluation.",
    "training.log_every",
    "training.tensorboard",
    "training.on_metrics",
    "training.checkpoint_",
    "training.keep_checkpoints",
    "training.fsdp",
    "training.accumulate",
    "training.remat",
    "methods",
    "seeds",
)
# For these, the folder records the union over all commands.
LISTS = ("methods", "seeds")


def check_folder(config: ConfigDict, folder: pathlib.Path) -> None:
    """Checks that the run folder's weights belong to this config.

    Raises:
      ValueError: they belong to another config, or the folder is not a run folder.
      StorageError: its config cannot be read.
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ValueError(f"--workdir {folder}: is a file; give a folder, new or of this config")
    path = folder / "config.json"
    if not path.is_file():
        if any(item for item in folder.iterdir() if not item.name.startswith(".")):
            raise ValueError(
                f"--workdir {folder}: contains files but no config.json, so it is not a run "
                "folder; choose a new one"
            )
        return
    old, new = read_json(path), json.loads(json.dumps(flatten_config(config)))
    if not isinstance(old, dict) or not all(
        isinstance(old.get(key, []), list)
        and all(isinstance(item, str | int) for item in old.get(key, []))
        for key in LISTS
    ):
        raise ValueError(f"{path}: is not the config of a run; choose another --workdir")
    # An option that did not exist when the run started had its default value.
    old = json.loads(json.dumps(flatten_config(default_config()))) | translate_options(old)
    if _warmup(old) == _warmup(new):
        old["training.warmup"] = new["training.warmup"]
    differing = [
        f"{key} was {old.get(key)!r}, is {new.get(key)!r}"
        for key in {**old, **new}
        if old.get(key) != new.get(key) and not key.startswith(FREE_OPTIONS)
    ]
    if differing:
        raise ValueError(
            f"--workdir {folder}: contains a run with another config ({'; '.join(differing)}); "
            "choose another folder, or delete this one to start over"
        )


def translate_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a run's config.json, by their current names."""
    names = {"training.warmup_steps": "training.warmup"}
    return {names.get(key, key): value for key, value in options.items()}


def _warmup(options: Mapping[str, Any]) -> Any:
    """Warm-up in steps if all tasks have the same number: an equal fraction is then no change."""
    warmup, steps = options["training.warmup"], options["training.steps"]
    equal = options["training.epochs"] == 0 and isinstance(steps, int) and steps > 0
    number = isinstance(warmup, int | float) and 0 <= warmup < 2**31
    return count_warmup(warmup, steps) if equal and number else warmup


def check_inputs(experiment: Experiment) -> None:
    """Checks that a run's task vectors were made from these weights and training data.

    Validation and test images, and tasks that nothing was trained on yet, may change: `open_folder`
    reports it, and numbers measured on the old ones are measured again.

    Raises:
      ValueError: the data or weights behind the task vectors have changed.
      StorageError: the folder's record of its inputs is damaged.
    """
    path = experiment.folder / "provenance.json"
    if not path.is_file():
        return
    old, new = _read_provenance(path)["inputs"], experiment.inputs
    model = [f"model {name}" for name in {**old.get("model", {}), **new["model"]}
             if old.get("model", {}).get(name) != new["model"].get(name)]  # fmt: skip
    tasks = _to_retrain(experiment, old)
    made = [path for path in _begun(experiment.folder) if model or _depends(path, tasks)]
    if model or made:
        differing = [*model, *(f"training images or prompts of task {task}" for task in tasks)]
        folders = ", ".join(str(each.relative_to(experiment.folder)) for each in made[:5])
        remedy = f", or delete {folders}{' ...' if len(made) > 5 else ''} to train again"
        redrawn = [text for task in tasks if (text := _redrawn(experiment, old, task))]
        raise ValueError(
            f"{path}: this run started with other files ({', '.join(differing)}: their hashes "
            f"differ){''.join(redrawn)}; choose another --workdir, or restore the old files"
            f"{remedy if not model else ''}"
        )


def _to_retrain(experiment: Experiment, old: dict[str, Any]) -> list[str]:
    """Tasks whose training inputs differ from the old ones."""
    new = experiment.inputs
    return [
        task
        for task in experiment.config.tasks
        if _training_inputs(old, task) != _training_inputs(new, task)
    ]


def _redrawn(experiment: Experiment, old: dict[str, Any], task: str) -> str:
    """Says that a validation split was drawn anew because the number of images changed."""
    before, now = (
        sum(facts.get("splits", {}).get(split, {}).get("images", 0) for split in ("train", "val"))
        for facts in (old.get("tasks", {}).get(task, {}), experiment.inputs["tasks"][task])
    )
    if not experiment.tasks[task].holds_out or before == now:
        return ""
    return (
        f"; {task} had {before} images in train, now {now}: its validation images are held out of "
        "train, and drawn anew when an image is added or removed"
    )


def _training_inputs(inputs: dict[str, Any], task: str) -> Any:
    """The inputs of a task that its vector depends on."""
    facts = inputs.get("tasks", {}).get(task, {})
    return facts.get("prompts_sha256"), facts.get("splits", {}).get("train")


def _begun(folder: pathlib.Path) -> list[pathlib.Path]:
    """Folders METHOD/seedN/TASK that contain a vector or a saved state."""
    found = [*folder.glob(f"*/seed*/*/{VECTOR}"), *folder.glob("*/seed*/*/state")]
    return sorted({path.parent for path in found})


def _depends(path: pathlib.Path, tasks: Sequence[str]) -> bool:
    """Whether METHOD/seedN/TASK was made from the data of one of the tasks."""
    mode, penalties = split_method(path.parts[-3])
    if mode == GIVEN:  # made of no data here
        return False
    others = any(name in PENALTIES and PENALTIES[name].others for name in penalties)
    return bool(tasks) and (others or path.name in tasks)


def _name_changed(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Names the splits and prompts that have changed."""
    changed = []
    for task, facts in new["tasks"].items():
        before = old.get("tasks", {}).get(task, {})
        if before.get("prompts_sha256") != facts["prompts_sha256"]:
            changed.append(f"prompts of {task}")
        changed += [
            f"{split} images of {task}"
            for split, each in facts["splits"].items()
            if before.get("splits", {}).get(split) != each
        ]
    return changed


def _read_provenance(path: pathlib.Path) -> dict[str, Any]:
    """Reads what `open_folder` wrote.

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
            f"{path}: is not a run's record of its inputs and machines; restore the file, or "
            "choose another --workdir"
        )
    checked: dict[str, Any] = facts
    return checked


def _machine() -> dict[str, Any]:
    """Facts that affect the last bits of results; XLA splits sums among the CPUs it finds."""
    affinity = getattr(os, "sched_getaffinity", None)  # Linux
    versions = {name: version(name) for name in PACKAGES}
    return {
        "versions": versions | {"python": platform.python_version()},
        "devices": [f"{device.platform}: {device.device_kind}" for device in jax.devices()],
        "cpus": len(affinity(0)) if affinity else os.cpu_count(),
    }
