"""Checks and inputs that export and merge share for a finished run."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import Any

from orthoreg_jax.clip.checkpoint import Checkpoint, load_checkpoint
from orthoreg_jax.clip.saving import check_output
from orthoreg_jax.config import default_config, split_method
from orthoreg_jax.evaluation.results import Results, Run
from orthoreg_jax.experiment.vectors import open_vector
from orthoreg_jax.reporting.summary import run_strengths, strength_text
from orthoreg_jax.storage import StorageError
from orthoreg_jax.training.modes import make_mode
from orthoreg_jax.training.modes.mode import edited_outputs

from .cards import MADE_BY

LARGEST_ALPHA = 3.4e38  # the largest float32


def check_request(out: pathlib.Path, alpha: float | None, overwrite: bool, layout: str) -> None:
    """Refuses a bad output directory, layout or alpha before any work.

    Raises:
      ValueError: `out` contains something that may not be replaced, or alpha is not above 0.
    """
    check_output(layout, {})
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out {out}: is a file; choose a new directory for the model")
    if out.is_dir() and any(out.iterdir()):
        card = out / "README.md"
        ours = card.is_file() and MADE_BY in card.read_text(encoding="utf-8", errors="replace")
        if not ours:
            raise ValueError(f"--out {out}: is not empty; choose a new directory for the model")
        if not overwrite:
            raise ValueError(
                f"--out {out}: contains a complete model from an earlier command (see its "
                "README.md); choose another directory, or give --overwrite to replace it"
            )
    if alpha is not None and not 0 < alpha < float("inf"):
        raise ValueError(f"--alpha {alpha}: give a number above 0; to subtract, export --forget")
    if alpha is not None and alpha > LARGEST_ALPHA:
        raise ValueError(f"--alpha {alpha}: too large for float32 weights; give a smaller one")


def load_pretrained(results: Results) -> Checkpoint:
    """Loads the model that a run started from.

    Raises:
      ValueError: it cannot be read, or its files have changed.
    """
    config: Any = results["config"]
    checkpoint = load_checkpoint(config["model"])
    recorded: Any = results["provenance"]
    if checkpoint.hash_files() != recorded["inputs"]["model"]:
        raise ValueError(
            f"model {config['model']!r}: its files have changed since the run started (their "
            "hashes differ); restore the old ones"
        )
    return checkpoint


def find_run(results: Results, method: str, seed: int | None) -> Run:
    """The run of a method that is evaluated as edited weights; `seed` None takes its first.

    Raises:
      ValueError: there is no such run, or the method is linearised.
    """
    runs = [run for run in results["runs"] if run["method"] == method]
    chosen = [run for run in runs if seed in (None, run["seed"])]
    if not chosen:
        there = ", ".join(f"{run['method']} seed {run['seed']}" for run in results["runs"])
        asked = method if seed is None else f"{method} seed {seed}"
        raise ValueError(f"--method {asked}: the run has {there}")
    mode = make_mode(split_method(method)[0], default_config())
    if mode.outputs is not edited_outputs:
        raise ValueError(
            f"--method {method}: linearised fine-tuning gives f(x; θ₀) + α J τ, which cannot be "
            "written as the weights of a CLIP; export a method that is evaluated as edited "
            "weights, or use the task vectors in the run folder"
        )
    return chosen[0]


def describe_training(run: Run) -> str:
    """How a run's vectors were trained, for cards: "Non-linear FT, seed 0, learning rate 1e-05"."""
    if "models" in run:
        return "of models that were fine-tuned elsewhere"
    penalty = f", λ {strength_text(run_strengths(run))}" if run["strength"] else ""
    return f"{run['label']}, seed {run['seed']}, learning rate {run['learning_rate']:g}{penalty}"


def describe_model(run: Run, task: str) -> str:
    """The model that a task's vector was read from; empty if the run trained it."""
    if "models" not in run:
        return ""
    model = run["models"][task]
    at = f" at revision `{model['revision']}`" if model["revision"] else ""
    return f"`{model['name']}`{at}, SHA-256 `{model['sha256']}`"


def open_measured(folder: pathlib.Path, run: Run, tasks: Sequence[str]) -> list[pathlib.Path]:
    """Opens the task vectors that a run's numbers were measured on.

    Raises:
      StorageError: one is missing, does not match its path, or is not the vector measured.
    """
    files = [open_vector(folder, run["method"], run["seed"], task) for task in tasks]
    for task, file in zip(tasks, files, strict=True):
        if file.about["sha256"] != run["vectors"].get(task):
            raise StorageError(
                f"{file.path}: is not the vector that results.json was measured on (their hashes "
                "differ); run the stage `evaluate` again"
            )
    return [file.path for file in files]
