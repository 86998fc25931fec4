"""A run's edited models as Hugging Face CLIP directories, each with a card that says what it is."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from orthoreg_jax.arithmetic.task_vectors import add_task_vectors, apply_task_vector
from orthoreg_jax.clip.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from orthoreg_jax.clip.config import HUB_NAMES
from orthoreg_jax.config import default_config, split_method
from orthoreg_jax.evaluation.results import Results, Run
from orthoreg_jax.experiment.vectors import open_vector
from orthoreg_jax.reporting.report import damage_is_said, read_results_file
from orthoreg_jax.reporting.summary import (
    control_name,
    control_shares,
    control_title,
    run_strengths,
    strength_text,
)
from orthoreg_jax.reporting.tables import markdown_rows, percent, share_text
from orthoreg_jax.storage import StorageError
from orthoreg_jax.training.modes import MODES
from orthoreg_jax.training.modes.mode import edited_outputs
from orthoreg_jax.trees import load_tree

CARD = """\
---
{front}---

# {title}

A CLIP edited by task arithmetic:

    {formula}

θ₀ are the weights of `{model}`; τ, a task vector, is what fine-tuning the image tower on one task
changed ({label}, seed {seed}, learning rate {rate:g}{penalty}). The text tower is the pre-trained
one.

    from transformers import CLIPModel, CLIPProcessor
    model, processor = CLIPModel.from_pretrained("."), CLIPProcessor.from_pretrained(".")

## Measured

{measured}

## Made of

{origins}

Made by `orthoreg export` of a run whose every option, with the hashes of its data, is in that run's
`config.json` and `provenance.json`; {versions}.
"""

MADE_BY = "Made by `orthoreg "  # every card says so


LARGEST_ALPHA = 3.4e38  # of float32


class Edit(NamedTuple):
    """theta_0 + alpha * sum of the tasks' vectors, or theta_0 - alpha * tau to forget."""

    tasks: tuple[str, ...]
    sign: str  # "+" or "-"
    alpha: float
    rows: tuple[tuple[str, float, float], ...]  # title, zero-shot and own test accuracy
    note: str

    @property
    def formula(self) -> str:
        """As "θ₀ + 0.3 (τ_mnist + τ_emoji)"."""
        total = " + ".join(f"τ_{task}" for task in self.tasks)
        many = f"({total})" if len(self.tasks) > 1 else total
        return f"θ₀ {self.sign} {self.alpha:g} {many}"


def export_model(
    folder: pathlib.Path,
    out: pathlib.Path,
    method: str,
    seed: int | None = None,
    tasks: Sequence[str] = (),
    forget: str = "",
    alpha: float | None = None,
    overwrite: bool = False,
) -> pathlib.Path:
    """Writes one edited model of a run.

    Args:
      folder: of the run.
      out: a new directory.
      method: of the run, e.g. "full+orthoreg".
      seed: of the run; None: its first.
      tasks: whose vectors are added; none: all of the run. A single one gives the model fine-tuned
        on it.
      forget: the task to subtract instead.
      alpha: None takes the one that the run chose on validation (1 for a single task).
      overwrite: take the place of a model that this or `merge_run` wrote to `out`.

    Returns:
      `out`, which transformers' CLIPModel loads.

    Raises:
      ValueError: nothing of that name in the run, an edit whose alpha the run did not choose, a
        linearised method, another pre-trained model than the run's, or `out` is not empty.
      StorageError: a file of the run is missing or damaged, or `out` cannot be written.
    """
    check_request(out, alpha, overwrite)
    with damage_is_said(folder):
        results = read_results_file(folder)
        run = find_run(results, method, seed)
        edit = choose_edit(results, run, tuple(tasks), forget, alpha)
        checkpoint = load_pretrained(results)
        card = format_card(results, run, edit, checkpoint)
    vectors = [load_tree(path) for path in open_measured(folder, run, edit.tasks)]
    scale = -edit.alpha if edit.sign == "-" else edit.alpha
    params = apply_task_vector(checkpoint.params, add_task_vectors(vectors), scale)
    texts = {"README.md": card}
    return save_checkpoint(out, params, checkpoint, texts=texts, overwrite=overwrite)


def open_measured(folder: pathlib.Path, run: Run, tasks: Sequence[str]) -> list[pathlib.Path]:
    """Files of the task vectors that a run's numbers were measured on.

    Raises:
      StorageError: one is missing, not what its place says, or another than was measured.
    """
    files = [open_vector(folder, run["method"], run["seed"], task) for task in tasks]
    for task, file in zip(tasks, files, strict=True):
        if file.about["sha256"] != run["vectors"].get(task):
            raise StorageError(
                f"{file.path}: is another vector than the one that results.json was measured on "
                "(their hashes differ); run the stage `evaluate` again"
            )
    return [file.path for file in files]


def check_request(out: pathlib.Path, alpha: float | None, overwrite: bool) -> None:
    """What can be refused ahead of work.

    Raises:
      ValueError: `out` holds something that may not be replaced, or alpha is no number above 0.
    """
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out {out}: is a file; choose a new directory for the model")
    if out.is_dir() and any(out.iterdir()):
        card = out / "README.md"
        ours = card.is_file() and MADE_BY in card.read_text(encoding="utf-8", errors="replace")
        if not ours:
            raise ValueError(f"--out {out}: is not empty; choose a new directory for the model")
        if not overwrite:
            raise ValueError(
                f"--out {out}: holds a whole model that an earlier command made (its README.md "
                "says which); choose another directory, or give --overwrite to make it anew"
            )
    if alpha is not None and not 0 < alpha < float("inf"):
        raise ValueError(f"--alpha {alpha}: give a number above 0; to subtract, export --forget")
    if alpha is not None and alpha > LARGEST_ALPHA:
        raise ValueError(f"--alpha {alpha}: weights in float32 cannot be as large; give a smaller")


def load_pretrained(results: Results) -> Checkpoint:
    """The model that a run began with.

    Raises:
      ValueError: it cannot be read, or its files are others now.
    """
    config: Any = results["config"]
    checkpoint = load_checkpoint(config["model"])
    recorded: Any = results["provenance"]
    if checkpoint.hash_files() != recorded["inputs"]["model"]:
        raise ValueError(
            f"model {config['model']!r}: its files are not those that the run began with (their "
            "hashes differ); bring the old ones back"
        )
    return checkpoint


def find_run(results: Results, method: str, seed: int | None) -> Run:
    """The run of a method that is edited weights; `seed` None: its first.

    Raises:
      ValueError: nothing of that name, or a linearised method.
    """
    runs = [run for run in results["runs"] if run["method"] == method]
    chosen = [run for run in runs if seed in (None, run["seed"])]
    if not chosen:
        there = ", ".join(f"{run['method']} seed {run['seed']}" for run in results["runs"])
        asked = method if seed is None else f"{method} seed {seed}"
        raise ValueError(f"--method {asked}: the run has {there}")
    mode = MODES[split_method(method)[0]](default_config().lora)
    if mode.outputs is not edited_outputs:
        raise ValueError(
            f"--method {method}: its model, as f(x; θ₀) + α J τ of linearised fine-tuning, is no "
            "set of weights of a CLIP; export a method that is evaluated as edited weights, or use "
            "the task vectors in the run folder"
        )
    return chosen[0]


def choose_edit(
    results: Results, run: Run, tasks: tuple[str, ...], forget: str, alpha: float | None
) -> Edit:
    """What to do to the pre-trained weights, and what the run measured of it.

    Raises:
      ValueError: unknown tasks, one twice, both ways at once, or several but not all tasks
        without alpha.
    """
    known, zero_shot = results["tasks"], results["zero_shot"]["test"]
    unknown = [task for task in (*tasks, *([forget] if forget else [])) if task not in known]
    if unknown:
        raise ValueError(f"tasks {', '.join(unknown)}: the run has {', '.join(known)}")
    if len({*tasks}) < len(tasks):
        raise ValueError(f"--tasks {','.join(tasks)}: a task stands twice; give each once")
    if forget and tasks:
        raise ValueError("--tasks adds and --forget subtracts: give one of them")
    names, rows, note = tasks or tuple(known), [], ""
    if forget:
        share = control_shares(results)[0]
        found, control = run["negation"][forget]["shares"][share], control_name(results)
        names, chosen = (forget,), found["alpha"]
        rows = [
            (known[forget], zero_shot[forget], found["target"]),
            (f"{control_title(results)} (control)", zero_shot[control], found["control"]),
        ]
        note = (
            f"α is the one with the lowest validation accuracy on {known[forget]} that keeps "
            f"{share_text(share)} of the zero-shot accuracy on the control task."
        )
    elif len(names) == 1:
        chosen = 1.0
        rows = [(known[names[0]], zero_shot[names[0]], run["single"]["test"][names[0]])]
        note = "Fine-tuned on this task alone."
    elif set(names) == set(known):
        chosen = run["addition"]["alpha"]
        rows = [(known[task], zero_shot[task], run["addition"]["test"][task]) for task in names]
        note = "α is the best on validation (mean of accuracies normalised by single-task ones)."
    elif alpha is None:
        raise ValueError(
            f"--tasks {','.join(names)}: the run chose alpha for one task and for all "
            f"{len(known)} together; give --alpha for these"
        )
    else:
        chosen = alpha
    if alpha is not None and (alpha != chosen or not rows):
        rows, note = [], "This edit, with its α given by hand, was not measured by the run."
    sign = "-" if forget else "+"
    return Edit(names, sign, chosen if alpha is None else alpha, tuple(rows), note)


def card_front(
    model: str, title: str, accuracies: Sequence[tuple[str, float]], tags: Sequence[str] = ()
) -> str:
    """The head of a card, in the hub's own form of metadata, by which it shows and finds models.

    Args:
      model: the pre-trained one, named as the base if the hub has it.
      title: of the card.
      accuracies: on test, by the titles of tasks.
      tags: beside those of every edited CLIP.
    """
    from huggingface_hub import EvalResult, ModelCardData

    task = "zero-shot-image-classification"
    repository = HUB_NAMES.get(model, model).partition("@")[0]
    on_hub = repository.count("/") == 1 and not pathlib.Path(model).is_dir()
    results = [
        EvalResult(
            task_type=task,
            dataset_type=re.sub("[^a-z0-9]+", "-", name.lower()),
            dataset_name=name,
            dataset_split="test",
            metric_type="accuracy",
            metric_value=round(value, 4),
        )
        for name, value in accuracies
    ]
    data = ModelCardData(
        base_model=repository if on_hub else None,
        library_name="transformers",
        pipeline_tag=task,
        tags=["clip", "task-arithmetic", *tags],
        model_name=title,
        eval_results=results or None,
    )
    return f"{data.to_yaml()}\n"


def format_card(results: Results, run: Run, edit: Edit, checkpoint: Checkpoint) -> str:
    """The model card, in the hub's form."""
    config: Any = results["config"]
    provenance: Any = results["provenance"]
    cells = [(title, percent(before), percent(after)) for title, before, after in edit.rows]
    header = ("Test accuracy, %", "zero-shot", "this model")
    measured = f"{markdown_rows(header, cells)}\n\n{edit.note}" if cells else edit.note
    weights = [f"- pre-trained weights: SHA-256 `{checkpoint.sha256}`"]
    splits = provenance["inputs"]["tasks"]
    data = [
        f"- {results['tasks'][task]} (`{task}`): {splits[task]['splits']['train']['images']} "
        f"training images, SHA-256 `{splits[task]['splits']['train']['sha256']}`"
        for task in edit.tasks
    ]
    versions = provenance["versions"]
    title = f"{config['model']} {edit.sign} {' + '.join(edit.tasks)}"
    accuracies = [(name, after) for name, _, after in edit.rows]
    return CARD.format(
        front=card_front(config["model"], title, accuracies),
        title=title,
        formula=edit.formula,
        model=config["model"],
        label=run["label"],
        seed=run["seed"],
        rate=run["learning_rate"],
        penalty=f", λ {strength_text(run_strengths(run))}" if run["strength"] else "",
        measured=measured,
        origins="\n".join([*weights, *data]),
        versions=", ".join(f"{name} {versions[name]}" for name in ("orthoreg-jax", "jax", "flax")),
    )
