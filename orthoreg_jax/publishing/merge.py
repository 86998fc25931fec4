"""Writes merged models as Hugging Face CLIP directories with model cards."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax

from orthoreg_jax.arithmetic.paths import unflatten
from orthoreg_jax.clip.checkpoint import Checkpoint, load_checkpoint, save_edited
from orthoreg_jax.clip.differences import ModelVector, base_problem
from orthoreg_jax.clip.weights import VISUAL_MATRICES
from orthoreg_jax.evaluation.results_file import read_results
from orthoreg_jax.experiment.setup import reopen
from orthoreg_jax.merging.files import Merged, Source, check_alike, merge_files
from orthoreg_jax.progress import say
from orthoreg_jax.reporting.summary import ImageCount
from orthoreg_jax.tasks.task import Task
from orthoreg_jax.trees import StoredTree

from .alpha import choose_alpha, compare_merged
from .cards import AccuracyRow, Shown
from .finished_run import (
    check_request,
    describe_model,
    describe_training,
    find_run,
    load_pretrained,
    open_measured,
)
from .fitting import fit_merger
from .measure import load_measured
from .merge_card import accuracy_table, describe_source, merge_card, run_accuracies
from .merger_choice import MergerChoice


def merge_run(
    folder: pathlib.Path,
    out: pathlib.Path,
    method: str,
    merger: MergerChoice,
    seed: int | None = None,
    tasks: Sequence[str] = (),
    alpha: float | None = None,
    overwrite: bool = False,
    layout: str = "transformers",
) -> pathlib.Path:
    """Merges task vectors of a run and writes the model.

    Args:
      folder: the run folder.
      out: a new directory.
      method: a method of the run, e.g. "full+orthoreg".
      merger: the merger and its parameters.
      seed: a seed of the run; None takes its first.
      tasks: tasks whose vectors are merged; empty takes all of the run.
      alpha: None chooses it from the config's grid on the run's validation data, and measures the
        model on test.
      overwrite: take the place of a model that this or `export_model` wrote to `out`.
      layout: see `save_checkpoint`.

    Returns:
      `out`, which transformers' CLIPModel loads.

    Raises:
      ValueError: the run has no such method, seed or task; parameters are bad; the method is
        linearised; model or data are not the run's; or `out` is not empty.
      StorageError: a file of the run is missing or damaged, or `out` cannot be written.
    """
    merger.check()
    check_request(out, alpha, overwrite, layout)
    results = read_results(folder)
    run, known = find_run(results, method, seed), results["tasks"]
    names = tuple(tasks) or tuple(known)
    checkpoint = load_pretrained(results)
    inputs: Any = results["provenance"]["inputs"]
    if unknown := [task for task in names if task not in known]:
        raise ValueError(f"--tasks {', '.join(unknown)}: the run has {', '.join(known)}")
    if len({*names}) < len(names):
        raise ValueError(f"--tasks {','.join(names)}: a task appears twice; give each once")
    paths = open_measured(folder, run, names)
    experiment = None
    if alpha is None or merger.fitted:
        experiment = reopen(folder, results["config"])
        if experiment.inputs != inputs:
            raise ValueError(
                f"{folder}: its images or prompts have changed since results.json was measured; "
                "run the stage `evaluate` again" + ("" if merger.fitted else ", or give --alpha")
            )
    sources = [StoredTree(path) for path in paths]
    own = [] if experiment is None else [experiment.tasks[name] for name in names]
    merged = _merge_sources(merger, sources, checkpoint, own)
    measured = None
    if experiment is not None and alpha is None:
        with jax.default_matmul_precision(experiment.config.matmul_precision):
            measured = choose_alpha(experiment, run, names, merged.vector)
    chosen = alpha if measured is None else measured.alpha
    assert chosen is not None
    models = [f"model of {known[task]}: {model}" for task in names
              if (model := describe_model(run, task))]  # fmt: skip
    card = merge_card(
        checkpoint,
        str(results["config"]["model"]),
        merger,
        chosen,
        {
            f"{known[task]} (`{task}`)": (f"τ_{task}", content)
            for task, content in zip(names, merged.sha256, strict=True)
        },
        f" ({describe_training(run)})",
        run_accuracies(results, run, measured),
        notes=models,
    )
    texts = {"README.md": card.format(layout)}
    return save_edited(out, checkpoint, merged.vector, chosen, texts, overwrite, layout)


class Data(NamedTuple):
    """The data to choose alpha on: a folder, and one task per source in the same order."""

    data: str
    tasks: Sequence[str]


def merge_vectors(
    paths: Sequence[pathlib.Path],
    out: pathlib.Path,
    base: str,
    merger: MergerChoice,
    alpha: float | None,
    data: Data | None = None,
    any_base: bool = False,
    overwrite: bool = False,
    layout: str = "transformers",
) -> pathlib.Path:
    """Merges task vectors from any files and writes the model.

    Args:
      paths: safetensors files with the leaves of the model, or of a part of it.
      out: a new directory.
      base: the pre-trained model; see `load_checkpoint`.
      merger: how.
      alpha: of theta_0 + alpha * tau; None chooses it on `data`.
      data: with a task for each vector.
      any_base: also accept vectors made from another base, or without a record of their base.
      overwrite: see `merge_run`.
      layout: see `save_checkpoint`.

    Raises:
      ValueError: parameters are bad, vectors belong to another model or differ in structure, or
        `out` is not empty.
      StorageError: a file is missing or damaged, or `out` cannot be written.
    """
    tasks = _check(merger, out, alpha, data, len(paths), overwrite, layout)
    checkpoint = load_checkpoint(base)
    notes: list[str] = []
    files = [StoredTree(path) for path in paths]
    for file in files:
        if problem := base_problem(file.about, checkpoint):
            if not any_base:
                raise ValueError(f"{file.path}: {problem}; or merge it anyway with --any-base")
            notes.append(f"{file.path}: {problem.partition(';')[0]}; merged anyway")
    return _merge(files, out, checkpoint, base, merger, alpha, tasks, notes, overwrite, layout)


def merge_models(
    models: Sequence[str],
    out: pathlib.Path,
    base: str,
    merger: MergerChoice,
    alpha: float | None,
    data: Data | None = None,
    visual_only: bool = False,
    overwrite: bool = False,
    layout: str = "transformers",
) -> pathlib.Path:
    """Merges fine-tuned models, or parts of them, and writes the model.

    Args:
      models: anything that `load_checkpoint` reads with a base.
      out: a new directory.
      base: the CLIP that they were fine-tuned from.
      merger: how.
      alpha: of theta_0 + alpha * tau; None chooses it on `data`.
      data: with a task for each model.
      visual_only: ignore changes to the text tower.
      overwrite: see `merge_run`.
      layout: see `save_checkpoint`.

    Raises:
      ValueError: parameters are bad, a model's size or preprocessing differs from the base's, or
        `out` is not empty.
      StorageError: `out` cannot be written.
    """
    tasks = _check(merger, out, alpha, data, len(models), overwrite, layout)
    checkpoint = load_checkpoint(base)
    notes: list[str] = []
    sources = [ModelVector(model, checkpoint) for model in models]
    changed = [source.path for source in sources if source.both_towers]
    for source in sources:
        notes += source.notes
        if problem := source.preprocessing_problem():
            raise ValueError(problem)
        if visual_only:
            source.drop_text()
        elif changed:
            source.hold_text()
    if changed and visual_only:
        notes.append(f"{', '.join(changed)}: changes to the text tower are ignored")
    elif changed:
        notes.append(f"{', '.join(changed)}: the text tower changed, too; merging both towers")
    return _merge(sources, out, checkpoint, base, merger, alpha, tasks, notes, overwrite, layout)


def _check(
    merger: MergerChoice,
    out: pathlib.Path,
    alpha: float | None,
    data: Data | None,
    count: int,
    overwrite: bool,
    layout: str,
) -> dict[str, Task]:
    """Refuses bad options before reading models; returns the tasks to choose alpha on."""
    merger.check()
    check_request(out, alpha, overwrite, layout)
    if alpha is not None and not merger.fitted:
        return {}
    if merger.fitted and (data is None or not data.tasks):
        raise ValueError(
            f"--tasks: {merger.name} looks at images; give --data and --tasks, one task for each "
            "model or vector in the same order"
        )
    if data is None or not data.tasks:
        raise ValueError(
            "--alpha: give a value; or give --data and --tasks, one task for each model or vector "
            "in the same order, and it is chosen on their validation images"
        )
    if len(data.tasks) != count or len({*data.tasks}) < count:
        raise ValueError(
            f"--tasks {','.join(data.tasks)}: give {count} different tasks, one for each model "
            "or vector in the same order"
        )
    return load_measured(data.data, data.tasks, ("val", "test"))


def _merge(
    sources: Sequence[Source],
    out: pathlib.Path,
    checkpoint: Checkpoint,
    base: str,
    merger: MergerChoice,
    alpha: float | None,
    tasks: dict[str, Task],
    notes: Sequence[str],
    overwrite: bool,
    layout: str,
) -> pathlib.Path:
    for note in (*notes, *checkpoint.notes, *checkpoint.preprocessing.notes):
        say(note)
    beyond = [path for path in sources[0].shapes if not path.startswith("visual/")]
    if beyond and merger.fitted:
        raise ValueError(
            f"--merger {merger.name}: these vectors change the text tower, and it fits the image "
            "tower alone (see --visual-only for models)"
        )
    if beyond and alpha is None:
        raise ValueError(
            "--alpha: give a value; these vectors change the text tower, so the heads change with "
            "alpha, and it can only be chosen for the image tower (see --visual-only for models)"
        )
    merged = _merge_sources(merger, sources, checkpoint, list(tasks.values()))
    measured = Shown(f"Not measured yet; run `orthoreg measure --model {out}`.")
    if alpha is None:
        with jax.default_matmul_precision("highest"):  # as runs have by default
            found = compare_merged(checkpoint, merged.vector, sources, tasks)
        alpha = found.alpha
        rows = []
        for name, task in tasks.items():
            images = ImageCount(len(task.splits["test"]), len(task.splits["test"]))
            compared = found.zero_shot[name], found.single[name]
            rows.append(AccuracyRow(task.title, images, compared, found.test[name]))
        measured = accuracy_table(rows, found.at_edge)
    names = [f"τ_{name}" for name in tasks] or [f"τ_{n}" for n in range(1, len(sources) + 1)]
    files = zip(sources, names, merged.sha256, strict=True)
    described = {describe_source(source): (name, content) for source, name, content in files}
    card = merge_card(checkpoint, base, merger, alpha, described, "", measured, beyond, notes)
    texts = {"README.md": card.format(layout)}
    return save_edited(out, checkpoint, merged.vector, alpha, texts, overwrite, layout)


def _merge_sources(
    merger: MergerChoice, sources: Sequence[Source], checkpoint: Checkpoint, tasks: Sequence[Task]
) -> Merged:
    """Merges; by a fitted merger on the tasks' images, for which all vectors are in memory."""
    if not merger.fitted:
        made, key = merger.make()
        return merge_files(sources, made, matrices=VISUAL_MATRICES, key=key, match=merger.match)
    check_alike(sources)
    sha256 = tuple(source.check() for source in sources)
    rows = [unflatten({name: source.read(name) for name in source.shapes}) for source in sources]
    with jax.default_matmul_precision("highest"):
        found = fit_merger(merger.name, merger.options, checkpoint, rows, tasks, merger.match)
    return Merged(found, sha256)
