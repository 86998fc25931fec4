"""What a run folder says of its config, inputs and machines; it belongs to one of each.

RUN/config.json           every option, resolved
RUN/provenance.json       versions, devices, hashes of the weights and of every split
RUN/heads.safetensors     zero-shot heads, one (classes, features) array per task
RUN/METHOD/seedN/TASK/    vector.safetensors, metrics.jsonl; state/ while training
RUN/METHOD/seedN/evaluation.json, correct.safetensors
RUN/results.json, RUN/report.html, RUN/plots/
"""

from __future__ import annotations

import json
import pathlib
import platform
from importlib import metadata
from typing import Any

import jax
from ml_collections import ConfigDict

from orthoreg_jax.config import default_config, flatten_config
from orthoreg_jax.hosts import is_first
from orthoreg_jax.storage import StorageError, read_json, save_tree, write_json

from .experiment import Experiment

PACKAGES = ("orthoreg-jax", "jax", "jaxlib", "flax", "optax", "transformers", "numpy")


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
    if not path.is_file():
        facts = {**machine, "inputs": _inputs(experiment), "continued_with": []}
    else:
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
    """The weights of a run folder belong to one config.

    Raises:
      ValueError: they belong to another; or the folder is no run's.
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


def check_inputs(experiment: Experiment) -> None:
    """A run folder belongs to one set of weights and data.

    Raises:
      ValueError: it was begun with others.
      StorageError: what it says of them is damaged.
    """
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
