"""Exports a run's edited models as Hugging Face CLIP directories with model cards."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax

from orthoreg_jax.arithmetic.task_vectors import add_task_vectors
from orthoreg_jax.clip.checkpoint import Checkpoint, save_edited
from orthoreg_jax.evaluation.results import Results, Run
from orthoreg_jax.evaluation.results_file import read_results
from orthoreg_jax.reporting.summary import (
    control_name,
    control_shares,
    control_title,
    count_images,
    describe_validation,
)
from orthoreg_jax.reporting.tables import share_text
from orthoreg_jax.trees import load_tree

from .cards import AccuracyRow, Card, Shown, show_accuracies
from .finished_run import (
    check_request,
    describe_model,
    describe_training,
    find_run,
    load_pretrained,
    open_measured,
)


class Edit(NamedTuple):
    """theta_0 + alpha * sum of the tasks' vectors, or theta_0 - alpha * tau to forget."""

    tasks: tuple[str, ...]
    sign: str  # "+" or "-"
    alpha: float
    rows: tuple[AccuracyRow, ...]  # compared with zero-shot
    note: str

    @property
    def formula(self) -> str:
        """The formula, for example "θ₀ + 0.3 (τ_mnist + τ_emoji)"."""
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
    layout: str = "transformers",
) -> pathlib.Path:
    """Writes one edited model of a run.

    Args:
      folder: the run folder.
      out: a new directory.
      method: a method of the run, e.g. "full+orthoreg".
      seed: a seed of the run; None takes its first.
      tasks: tasks whose vectors are added; empty takes all of the run. A single task gives the
        model fine-tuned on it.
      forget: the task to subtract instead.
      alpha: None takes the one that the run chose on validation (1 for a single task).
      overwrite: take the place of a model that this or `merge_run` wrote to `out`.
      layout: see `save_checkpoint`.

    Returns:
      `out`, which transformers' CLIPModel loads.

    Raises:
      ValueError: the run has no such method, seed or task, or did not choose an alpha for this
        edit; the method is linearised; the pre-trained model is not the run's; or `out` is not
        empty.
      StorageError: a file of the run is missing or damaged, or `out` cannot be written.
    """
    check_request(out, alpha, overwrite, layout)
    results = read_results(folder)
    run = find_run(results, method, seed)
    edit = choose_edit(results, run, tuple(tasks), forget, alpha)
    checkpoint = load_pretrained(results)
    card = make_card(results, run, edit, checkpoint).format(layout)
    vectors = [load_tree(path) for path in open_measured(folder, run, edit.tasks)]
    scale = -edit.alpha if edit.sign == "-" else edit.alpha
    texts, total = {"README.md": card}, jax.device_get(add_task_vectors(vectors))
    return save_edited(out, checkpoint, total, scale, texts, overwrite, layout)


def choose_edit(
    results: Results, run: Run, tasks: tuple[str, ...], forget: str, alpha: float | None
) -> Edit:
    """The edit to make to the pre-trained weights, and what the run measured for it.

    Raises:
      ValueError: tasks are unknown or appear twice, both `tasks` and `forget` are given, or there
        are several but not all tasks, without alpha.
    """
    known = results["tasks"]
    unknown = [task for task in (*tasks, *([forget] if forget else [])) if task not in known]
    if unknown:
        raise ValueError(f"tasks {', '.join(unknown)}: the run has {', '.join(known)}")
    if len({*tasks}) < len(tasks):
        raise ValueError(f"--tasks {','.join(tasks)}: a task appears twice; give each once")
    if forget and tasks:
        raise ValueError("--tasks adds and --forget subtracts: give only one of them")
    names, rows, note = tasks or tuple(known), [], ""
    images, limited = count_images(results), describe_validation(results)

    def row(task: str, accuracy: float, title: str = "") -> AccuracyRow:
        zero_shot = results["zero_shot"]["test"][task]
        return AccuracyRow(title or known[task], images[task], (zero_shot,), accuracy)

    if forget:
        share = control_shares(results)[0]
        found, control = run["negation"][forget]["shares"][share], control_name(results)
        names, chosen = (forget,), found["alpha"]
        rows = [
            row(forget, found["target"]),
            row(control, found["control"], f"{control_title(results)} (control)"),
        ]
        note = (
            f"α gives the lowest validation accuracy on {known[forget]} that keeps "
            f"{share_text(share)} of the zero-shot accuracy on the control task. {limited}"
        )
    elif len(names) == 1:
        chosen = 1.0
        rows = [row(names[0], run["single"]["test"][names[0]])]
        note = "Fine-tuned on this task alone."
    elif set(names) == set(known):
        chosen = run["addition"]["alpha"]
        rows = [row(task, run["addition"]["test"][task]) for task in names]
        note = f"α is the best on validation, by mean normalised accuracy. {limited}"
    elif alpha is None:
        raise ValueError(
            f"--tasks {','.join(names)}: the run chose alpha for single tasks and for all "
            f"{len(known)} together only; give --alpha"
        )
    else:
        chosen = alpha
    if alpha is not None and (alpha != chosen or not rows):
        rows, note = [], "The run did not measure this edit: its α was given by hand."
    sign = "-" if forget else "+"
    return Edit(names, sign, chosen if alpha is None else alpha, tuple(rows), note.strip())


def make_card(results: Results, run: Run, edit: Edit, checkpoint: Checkpoint) -> Card:
    """Makes the model card."""
    config: Any = results["config"]
    provenance: Any = results["provenance"]
    measured = (
        show_accuracies(["zero-shot"], edit.rows, edit.note) if edit.rows else Shown(edit.note)
    )
    splits = provenance["inputs"]["tasks"]
    data = [
        f"{results['tasks'][task]} (`{task}`): {splits[task]['splits']['train']['images']} "
        f"training images, SHA-256 `{splits[task]['splits']['train']['sha256']}`"
        for task in edit.tasks
    ]
    if "models" in run:  # trained on other data, or on other parts of them
        data = [f"model of {results['tasks'][task]}: {describe_model(run, task)}"
                for task in edit.tasks]  # fmt: skip
    return Card(
        title=f"{config['model']} {edit.sign} {' + '.join(edit.tasks)}",
        model=config["model"],
        kind="edited by task arithmetic",
        formula=edit.formula,
        vector=f"the change of the image tower by fine-tuning on one task "
        f"({describe_training(run)})",
        text="The text tower is the pre-trained one.",
        measured=measured,
        origins=[f"pre-trained weights: SHA-256 `{checkpoint.sha256}`", *data],
        command="export",
        source=" from a run; its `config.json` lists every option, its `provenance.json` the "
        "hashes of its data",
        versions=[(name, provenance["versions"][name]) for name in ("orthoreg-jax", "jax", "flax")],
    )
