"""Merged task vectors as Hugging Face CLIP directories, each with a card that says what it is."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any, NamedTuple

import jax

from orthoreg_jax.arithmetic.merging import Merger, make_merger
from orthoreg_jax.arithmetic.task_vectors import apply_task_vector
from orthoreg_jax.clip.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from orthoreg_jax.clip.weights import VISUAL_MATRICES
from orthoreg_jax.evaluation.results import Results, Run
from orthoreg_jax.experiment.merging import Measured, choose_alpha, merge_files
from orthoreg_jax.experiment.setup import reopen
from orthoreg_jax.experiment.vectors import vector_path
from orthoreg_jax.storage import StoredTree

from .export import card_front, check_request, find_run, load_pretrained
from .stage import damage_is_said, read_results_file
from .summary import run_strengths, strength_text
from .tables import markdown_rows, percent

CARD = """\
---
library_name: transformers
pipeline_tag: zero-shot-image-classification
tags:
- clip
- task-arithmetic
- model-merging
{front}---

# {title}

A CLIP whose image tower merges {count} task vectors:

    θ₀ + {alpha:g} · {merger}({names})

θ₀ are the weights of `{model}`; τ, a task vector, is what fine-tuning the image tower on one task
changed{made_by}.
The merger is `{merger}` with {options}. The text tower is the pre-trained one.

    from transformers import CLIPModel, CLIPProcessor
    model, processor = CLIPModel.from_pretrained("."), CLIPProcessor.from_pretrained(".")

## Measured

{measured}

## Made of

{origins}

Made by `orthoreg merge`; {versions}.
"""
PACKAGES = ("orthoreg-jax", "jax", "numpy")


class Choice(NamedTuple):
    """A merger by its name, its parameters as texts, and the seed that it draws by."""

    name: str
    options: Mapping[str, str]
    draw: int = 0

    def make(self) -> tuple[Merger, jax.Array | None]:
        """The merger, and its key if it draws."""
        merger = make_merger(self.name, self.options)
        return merger, jax.random.key(self.draw) if merger.random else None

    def describe(self) -> str:
        """Its parameters, in words."""
        texts = [f"{key} = {value}" for key, value in self.options.items()]
        if self.make()[0].random:
            texts.append(f"seed {self.draw}")
        return ", ".join(texts) or "its parameters as by default"


def merge_run(
    folder: pathlib.Path,
    out: pathlib.Path,
    method: str,
    merger: Choice,
    seed: int | None = None,
    tasks: Sequence[str] = (),
    alpha: float | None = None,
) -> pathlib.Path:
    """Merges task vectors of a run and writes the model.

    Args:
      folder: of the run.
      out: a new directory.
      method: of the run, e.g. "full+orthoreg".
      merger: how.
      seed: of the run; None: its first.
      tasks: whose vectors; none: all of the run.
      alpha: None chooses it from the config's grid on the run's validation data, and measures the
        model on test.

    Returns:
      `out`, which transformers' CLIPModel loads.

    Raises:
      ValueError: nothing of that name in the run, bad parameters, a linearised method, another
        pre-trained model or other data than the run's, or `out` is not empty.
      StorageError: a file of the run is missing or damaged, or `out` cannot be written.
    """
    made, key = merger.make()
    check_request(out, alpha)
    with damage_is_said(folder):
        results = read_results_file(folder)
        run, known = find_run(results, method, seed), results["tasks"]
        names = tuple(tasks) or tuple(known)
        checkpoint = load_pretrained(results)
    if unknown := [task for task in names if task not in known]:
        raise ValueError(f"--tasks {', '.join(unknown)}: the run has {', '.join(known)}")
    if len({*names}) < len(names):
        raise ValueError(f"--tasks {','.join(names)}: a task stands twice; give each once")
    experiment = reopen(folder) if alpha is None else None  # data are needed for the choice alone
    paths = [vector_path(folder, method, run["seed"], task) for task in names]
    merged = merge_files(paths, made, matrices=VISUAL_MATRICES, key=key)
    measured = None
    if experiment is not None:
        with jax.default_matmul_precision(experiment.config.matmul_precision):
            measured = choose_alpha(experiment, run, names, merged.vector)
    chosen = alpha if measured is None else measured.alpha
    assert chosen is not None
    penalty = f", λ {strength_text(run_strengths(run))}" if run["strength"] else ""
    made_by = f" ({run['label']}, seed {run['seed']}, learning rate {run['learning_rate']:g}"
    card = _card(
        checkpoint,
        str(results["config"]["model"]),
        merger,
        chosen,
        {
            f"{known[task]} (`{task}`)": (f"τ_{task}", content)
            for task, content in zip(names, merged.sha256, strict=True)
        },
        f"{made_by}{penalty})",
        _measured(results, run, measured),
    )
    return _save(checkpoint, merged.vector, chosen, out, card)


def merge_vectors(
    paths: Sequence[pathlib.Path],
    out: pathlib.Path,
    model: str,
    merger: Choice,
    alpha: float,
) -> pathlib.Path:
    """Merges task vectors from any files and writes the model.

    Args:
      paths: safetensors files whose leaves are those of the model, or of a part of it.
      out: a new directory.
      model: the pre-trained one; see `load_checkpoint`.
      merger: how.
      alpha: of theta_0 + alpha * tau.

    Raises:
      ValueError: bad parameters, vectors of another model or structure, or `out` is not empty.
      StorageError: a file is missing or damaged, or `out` cannot be written.
    """
    made, key = merger.make()
    check_request(out, alpha)
    checkpoint = load_checkpoint(model)
    for path in paths:
        made_on = str(StoredTree(path).about.get("pretrained_sha256", checkpoint.sha256))
        if made_on != checkpoint.sha256:
            raise ValueError(
                f"{path}: is the difference to other pre-trained weights (SHA-256 {made_on[:12]}) "
                f"than those of --model {model} ({checkpoint.sha256[:12]}); give the model that "
                "was fine-tuned"
            )
    merged = merge_files(paths, made, matrices=VISUAL_MATRICES, key=key)
    files = zip(paths, merged.sha256, strict=True)
    sources = {
        f"`{path}`": (f"τ_{number}", content) for number, (path, content) in enumerate(files, 1)
    }
    note = f"Nothing yet: `orthoreg measure --model {out}` does so."
    card = _card(checkpoint, model, merger, alpha, sources, "", note)
    return _save(checkpoint, merged.vector, alpha, out, card)


def _save(
    checkpoint: Checkpoint, vector: Any, alpha: float, out: pathlib.Path, card: str
) -> pathlib.Path:
    params = apply_task_vector(checkpoint.params, vector, alpha)
    return save_checkpoint(out, params, checkpoint, texts={"README.md": card})


def _measured(results: Results, run: Run, measured: Measured | None) -> str:
    if measured is None:
        return "Nothing: α was given by hand. `orthoreg measure --model .` measures this model."
    zero_shot, single = results["zero_shot"]["test"], run["single"]["test"]
    rows = [
        (results["tasks"][task], percent(zero_shot[task]), percent(single[task]), percent(value))
        for task, value in measured.test.items()
    ]
    header = ("Test accuracy, %", "zero-shot", "its own model", "this model")
    edge = (
        " It is the largest that was tried: a larger one might be better."
        if measured.at_edge
        else ""
    )
    note = f"α is the best on validation (mean of accuracies normalised by single-task ones).{edge}"
    return f"{markdown_rows(header, rows)}\n\n{note}"


def _card(
    checkpoint: Checkpoint,
    model: str,
    merger: Choice,
    alpha: float,
    sources: Mapping[str, tuple[str, str]],
    made_by: str,
    measured: str,
) -> str:
    origins = [f"- pre-trained weights: SHA-256 `{checkpoint.sha256}`"]
    origins += [
        f"- {name} of {source}: SHA-256 of its content `{content}`"
        for source, (name, content) in sources.items()
    ]
    return CARD.format(
        front=card_front(model),
        title=f"{model}, {len(sources)} tasks merged by {merger.name}",
        count=len(sources),
        alpha=alpha,
        merger=merger.name,
        names=", ".join(name for name, _ in sources.values()),
        model=model,
        made_by=made_by,
        options=merger.describe(),
        measured=measured,
        origins="\n".join(origins),
        versions=", ".join(f"{name} {metadata.version(name)}" for name in PACKAGES),
    )
