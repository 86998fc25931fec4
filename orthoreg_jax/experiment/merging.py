"""Task vectors merged from their files, and the alpha of a merged one chosen on validation."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from orthoreg_jax.arithmetic.paths import flatten, unflatten
from orthoreg_jax.arithmetic.rules import Rules
from orthoreg_jax.arithmetic.task_vectors import check_same, norm
from orthoreg_jax.clip.checkpoint import Checkpoint
from orthoreg_jax.clip.differences import ModelVector
from orthoreg_jax.config import default_config
from orthoreg_jax.evaluation.accuracy import open_evaluation
from orthoreg_jax.evaluation.results import Run
from orthoreg_jax.evaluation.search import search_addition
from orthoreg_jax.merging import Merger
from orthoreg_jax.merging.merger import (
    check_key,
    find_cutoff,
    is_on_host,
    merge_slice,
    plan,
    stack_cutoffs,
)
from orthoreg_jax.progress import Progress
from orthoreg_jax.tasks.task import Task
from orthoreg_jax.trees import StoredTree

from .edits import first_alphas
from .evaluation import make_evaluator, put_sets
from .experiment import Experiment

Source = StoredTree | ModelVector  # of one task vector, read leaf by leaf


class Merged(NamedTuple):
    """A merged task vector, and the content hash of each file that it was made of."""

    vector: dict[str, Any]
    sha256: tuple[str, ...]


def merge_files(
    paths: Sequence[pathlib.Path | Source],
    merger: Merger,
    *,
    matrices: Rules | None = None,
    key: jax.Array | None = None,
) -> Merged:
    """`merge_task_vectors` of files, for more of them than memory holds; equal to it.

    Reads one layer of one leaf of all files at a time: a slice of the first axis where a leaf is
    stacked, else the whole leaf. Memory holds that, and the merged vector: of 64 files of ViT-B/32
    (335 MiB each, of which the largest slice has 9) less than four of the files take. Ahead of it
    every file is read leaf by leaf, to check its hash; and for mergers with a cutoff over the whole
    vector (`ties(over="vector")`) once more, a vector at a time.

    Args:
      paths: safetensors files of task vectors, as a run writes them; or models beside their base.
      merger: see `merge_task_vectors`, as `matrices` and `key`.
      matrices: rules.
      key: for mergers that draw.

    Raises:
      ValueError: as `merge_task_vectors`; files of different structure or shapes are named.
      StorageError: a file is missing or damaged.
    """
    if not paths:
        raise ValueError("no task vector to merge; give at least one")
    check_key(merger, key)
    files = [StoredTree(each) if isinstance(each, pathlib.Path) else each for each in paths]
    shapes = unflatten(files[0].shapes)
    for file in files[1:]:
        check_same(unflatten(file.shapes), shapes, (str(file.path), str(files[0].path)))
    pieces = plan(shapes, merger, matrices)
    sha256 = tuple(file.check() for file in files)
    cutoffs = None
    if jax.eval_shape(find_cutoff, merger, jax.tree.leaves(shapes)) is not None:
        vectors = ([file.read(name) for name in file.shapes] for file in files)
        # Waiting for each keeps the next vector from being read before this one is let go.
        found = [jax.block_until_ready(find_cutoff(merger, vector)) for vector in vectors]
        cutoffs = stack_cutoffs(found)
    on_host = is_on_host(merger, ())
    values: Any
    merged = {}
    for path, shape in flatten(shapes).items():
        leaf = merged[path] = np.empty(shape.shape, shape.dtype)
        piece = pieces[path]
        for place in range(len(leaf)) if piece.stacked else [None]:
            index = ... if place is None else slice(place, place + 1)
            if on_host:
                values = np.empty((len(files), *leaf[index].shape), leaf.dtype)
                for number, file in enumerate(files):
                    values[number] = file.read(path, place)
                leaf[index] = merge_slice(values, cutoffs, key, place or 0, merger, piece)
            else:
                values = _read_all(files, path, place)
                leaf[index] = _merge_slice(values, cutoffs, key, place or 0, merger, piece)
            del values  # ahead of the next ones
    return Merged(unflatten(merged), sha256)


_merge_slice = jax.jit(merge_slice, static_argnames=("merger", "piece"))


def _read_all(files: Sequence[Source], path: str, place: int | None) -> jax.Array:
    """Of all files in one array, filled in place: on the host there is one file's at a time."""
    leaf = files[0].shapes[path]
    shape = leaf.shape if place is None else (1, *leaf.shape[1:])
    values = jnp.zeros((len(files), *shape), leaf.dtype)
    for number, file in enumerate(files):
        values = _fill(values, file.read(path, place), number)
    return values


_fill = jax.jit(lambda values, value, number: values.at[number].set(value), donate_argnums=0)


class Measured(NamedTuple):
    """A merged model of a run, with the alpha that its validation data chose.

    Attributes:
      alpha: with the best validation mean of normalised accuracy.
      at_edge: it is the largest that was tried; a larger one might be better.
      test: accuracy by task.
    """

    alpha: float
    at_edge: bool
    test: dict[str, float]


def choose_alpha(experiment: Experiment, run: Run, tasks: Sequence[str], vector: Any) -> Measured:
    """Alpha of theta_0 + alpha * tau, searched as the config says, and what it gives on test.

    Args:
      experiment: of the run.
      run: the method's numbers, for its single-task accuracies.
      tasks: those whose vectors were merged.
      vector: the merged one.

    Raises:
      ValueError: a task whose own model is never right.
    """
    config = experiment.config.evaluation
    evaluator = make_evaluator(experiment, experiment.method(run["method"]).mode.outputs)
    sets = {split: list(each.values()) for split, each in put_sets(experiment, tasks).items()}
    tower = jax.device_put(vector["visual"], experiment.local.replicated)
    _, alphas, rounds = first_alphas(config, tower, float(norm(experiment.params0)))
    single = np.array([run["single"]["val"][task] for task in tasks])
    with Progress("choose alpha on validation", len(tasks) * (1 + rounds) + 1) as progress:

        def measure(tried: np.ndarray) -> np.ndarray:
            rows = tried[:, None]
            return evaluator.accuracies([tower], rows, sets["val"], progress.update)

        best = search_addition(measure, alphas, single, rounds).choice
        test = evaluator.accuracies([tower], np.full((1, 1), best.alpha), sets["test"])[0]
        progress.update()
    return Measured(best.alpha, best.at_edge, dict(zip(tasks, test.tolist(), strict=True)))


class Compared(NamedTuple):
    """A merged model of any vectors, beside what it was made of: accuracies by task.

    Attributes:
      alpha: with the best validation mean of normalised accuracy.
      at_edge: it is the largest that was tried; a larger one might be better.
      zero_shot: of the base, on test.
      single: of each task's own model, on test.
      test: of the merged model.
    """

    alpha: float
    at_edge: bool
    zero_shot: dict[str, float]
    single: dict[str, float]
    test: dict[str, float]


def compare_merged(
    base: Checkpoint, vector: Any, sources: Sequence[Source], tasks: Mapping[str, Task]
) -> Compared:
    """Alpha of theta_0 + alpha * tau, searched on validation as a run does by default, and test.

    Args:
      base: theta_0; its text tower makes the heads.
      vector: the merged one, of the image tower alone.
      sources: what was merged, of which the nth belongs to the nth task.
      tasks: with the splits "val" and "test".

    Raises:
      ValueError: a task that lacks a split, or whose own model is never right.
    """
    options = default_config().evaluation
    size, params0 = options.batch_size, base.params["visual"]
    splits = ("val", "test")
    with Progress("choose alpha on validation", 2 * len(tasks) + 2) as progress:
        opened = {
            split: open_evaluation(base, params0, tasks, split, batch_size=size) for split in splits
        }
        single: dict[str, list[float]] = {split: [] for split in splits}
        for number, source in enumerate(sources):
            own = unflatten({name: source.read(name) for name in source.shapes})["visual"]
            for split, (evaluator, sets) in opened.items():
                found = evaluator.accuracies([own], np.ones((1, 1)), [sets[number]])
                single[split].append(float(found[0, 0]))
                progress.update()
        tower = vector["visual"]
        _, alphas, rounds = first_alphas(options, tower, float(norm(params0)))

        def measure(tried: np.ndarray) -> np.ndarray:
            evaluator, sets = opened["val"]
            return evaluator.accuracies([tower], tried[:, None], sets)

        best = search_addition(measure, alphas, np.array(single["val"]), rounds).choice
        progress.update()
        evaluator, sets = opened["test"]
        rows = evaluator.accuracies([tower], np.array([[0.0], [best.alpha]]), sets).tolist()
        progress.update()
    zero_shot, own_test, test = (
        dict(zip(tasks, row, strict=True)) for row in (rows[0], single["test"], rows[1])
    )
    return Compared(best.alpha, best.at_edge, zero_shot, own_test, test)
