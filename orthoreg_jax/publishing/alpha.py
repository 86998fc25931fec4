"""Chooses the alpha of a merged task vector on validation data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np

from orthoreg_jax.arithmetic.paths import unflatten
from orthoreg_jax.arithmetic.task_vectors import norm
from orthoreg_jax.arithmetic.types import TaskVector
from orthoreg_jax.clip.checkpoint import Checkpoint
from orthoreg_jax.config import default_config
from orthoreg_jax.evaluation.checkpoint_accuracy import open_evaluation
from orthoreg_jax.evaluation.edited_models import first_alphas
from orthoreg_jax.evaluation.results import Run
from orthoreg_jax.evaluation.search import search_addition
from orthoreg_jax.experiment.evaluation import make_evaluator, put_sets
from orthoreg_jax.experiment.experiment import Experiment
from orthoreg_jax.merging.files import Source
from orthoreg_jax.progress import Progress
from orthoreg_jax.tasks.task import Task


class Measured(NamedTuple):
    """A merged model of a run, with alpha chosen on validation data.

    Attributes:
      alpha: the alpha with the best mean normalised accuracy on validation.
      at_edge: whether it is the largest alpha tried, so a larger one might be better.
      test: test accuracy by task.
    """

    alpha: float
    at_edge: bool
    test: dict[str, float]


def choose_alpha(
    experiment: Experiment, run: Run, tasks: Sequence[str], vector: TaskVector
) -> Measured:
    """Searches alpha of theta_0 + alpha * tau as the config says, and measures it on test data.

    Args:
      experiment: the run's experiment.
      run: the method's numbers, for its single-task accuracies.
      tasks: the tasks whose vectors were merged.
      vector: the merged vector.

    Raises:
      ValueError: a task's own model has accuracy 0.
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
    """Accuracies by task of a merged model, its base and its sources.

    Attributes:
      alpha: the alpha with the best mean normalised accuracy on validation.
      at_edge: whether it is the largest alpha tried, so a larger one might be better.
      zero_shot: test accuracy of the base.
      single: test accuracy of each task's own model.
      test: test accuracy of the merged model.
    """

    alpha: float
    at_edge: bool
    zero_shot: dict[str, float]
    single: dict[str, float]
    test: dict[str, float]


def compare_merged(
    base: Checkpoint, vector: TaskVector, sources: Sequence[Source], tasks: Mapping[str, Task]
) -> Compared:
    """Searches alpha on validation as a run does by default, and compares the models on test.

    Args:
      base: theta_0; its text tower makes the heads.
      vector: the merged vector, of the image tower only.
      sources: the merged vectors; the nth source belongs to the nth task.
      tasks: tasks with the splits "val" and "test".

    Raises:
      ValueError: a task lacks a split, or its own model has accuracy 0.
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
