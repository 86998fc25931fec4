"""Accuracies of a checkpoint on loaded tasks: unchanged, with other weights, over alphas."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from orthoreg_jax.arithmetic.checks import check_vector
from orthoreg_jax.arithmetic.paths import briefly, check_finite, flatten, not_a_tree
from orthoreg_jax.arithmetic.task_vectors import check_same
from orthoreg_jax.arithmetic.types import Params, TaskVector
from orthoreg_jax.clip.checkpoint import Checkpoint, check_checkpoint, image_encoder
from orthoreg_jax.clip.zeroshot import pad_heads, zero_shot_head
from orthoreg_jax.tasks.batches import limited_rows
from orthoreg_jax.tasks.loading import load_images
from orthoreg_jax.tasks.task import Task
from orthoreg_jax.training.modes.mode import Outputs, edited_outputs
from orthoreg_jax.training.sharding import make_shardings

from .accuracy import EvaluationSet, Evaluator, put_evaluation_set
from .checks import check_task, check_whole, read_alphas, read_tasks


def measure_accuracy(
    checkpoint: Checkpoint, params: Params, task: Task, split: str = "test", batch_size: int = 256
) -> float:
    """Accuracy of a whole CLIP's parameters on one task, as `orthoreg measure` reports it.

    Args:
      checkpoint: the model that gives sizes, tokenizer and preprocessing.
      params: parameters like `checkpoint.params`, for example with task vectors added. Their text
        tower makes the zero-shot head.
      task: a task from `load_tasks`.
      split: "train", "val" or "test".
      batch_size: number of images computed at once.

    Returns:
      Accuracy from 0 to 1. An image whose logits are not finite counts as wrong.

    Raises:
      ValueError: the task has no such split or is not a `Task`; the parameters are not those of a
        model: a task vector, another structure, numbers that are not finite; the batch size is no
        whole number from 1.

    Examples:
      >>> clip = oj.load_checkpoint("embedded")
      >>> task = oj.load_tasks("embedded", ["weather"])["weather"]
      >>> print(f"{oj.measure_accuracy(clip, clip.params, task, 'val'):.0%}")
      93%
    """
    check_task(task)
    return measure_accuracies(checkpoint, params, {task.name: task}, split, batch_size)[task.name]


def measure_accuracies(
    checkpoint: Checkpoint,
    params: Params,
    tasks: Mapping[str, Task],
    split: str = "test",
    batch_size: int = 256,
) -> dict[str, float]:
    """Accuracy of a whole CLIP's parameters on each of several tasks.

    Args:
      checkpoint: see `measure_accuracy`.
      params: see `measure_accuracy`.
      tasks: tasks from `load_tasks`, by any names.
      split: "train", "val" or "test".
      batch_size: number of images computed at once.

    Returns:
      Accuracies from 0 to 1, by the same names.

    Raises:
      ValueError: no task, or one that has no such split; others as for `measure_accuracy`.

    Examples:
      >>> clip = oj.load_checkpoint("embedded")
      >>> tasks = oj.load_tasks("embedded", ["weather"])
      >>> oj.measure_accuracies(clip, clip.params, tasks, "val").keys()
      dict_keys(['weather'])
    """
    if not isinstance(tasks, Mapping):
        raise ValueError(
            f"tasks is a {type(tasks).__name__}; give tasks by name: oj.load_tasks(source, names)"
        )
    read_tasks(tasks, split)
    check_checkpoint(checkpoint)
    _check_weights(checkpoint, params)
    whole = dataclasses.replace(checkpoint, params=params)
    evaluator, sets = open_evaluation(whole, params["visual"], tasks, split, batch_size=batch_size)
    return dict(zip(tasks, evaluator.zero_shot(sets).tolist(), strict=True))


def sweep_accuracy(
    checkpoint: Checkpoint,
    vector: TaskVector,
    tasks: Mapping[str, Task] | Sequence[Task],
    alphas: Sequence[float] | Float[np.ndarray, " a"],
    *,
    split: str = "val",
    outputs: Outputs = edited_outputs,
    limit: int = 0,
    batch_size: int = 256,
) -> Float[np.ndarray, "a t"]:
    """Accuracies of theta_0 + alpha * tau over a grid of alphas, in one compiled function.

    Args:
      checkpoint: the pre-trained model.
      vector: tau, `{"visual": ...}` as runs save it, or a sum of several; alphas below 0 forget it.
      tasks: the tasks to measure, from `load_tasks`; or a list of them.
      alphas: the grid.
      split: choose alpha on "val", and report accuracies on "test".
      outputs: how the vector acts on the model. For linearised fine-tuning, `linearized_outputs`,
        f(x) + alpha J(x) tau; the whole grid then costs one pass.
      limit: number of images of each task, chosen by a fixed seed; 0 uses all.
      batch_size: number of images computed at once.

    Returns:
      Accuracies from 0 to 1: a row for each alpha, a column for each task.

    Raises:
      ValueError: a task without such a split or of another type, a vector that is not of an image
        tower, alphas that are no list of finite numbers, another number that is not finite, a limit
        or batch size that is no whole number.

    Examples:
      >>> clip = oj.load_checkpoint("embedded")
      >>> tasks = oj.load_tasks("embedded", ["weather"])
      >>> vector = {"visual": jax.tree.map(np.zeros_like, clip.params["visual"])}
      >>> oj.sweep_accuracy(clip, vector, tasks, [0, 0.5, 1], limit=8).shape
      (3, 1)
    """
    check_checkpoint(checkpoint)
    grid = read_alphas(alphas)
    (tower,) = visual_parts([vector])
    evaluator, sets = open_evaluation(
        checkpoint,
        checkpoint.params["visual"],
        tasks,
        split,
        outputs=outputs,
        limit=limit,
        batch_size=batch_size,
    )
    return evaluator.accuracies([tower], grid[:, None], sets)


def open_evaluation(
    checkpoint: Checkpoint,
    params0: Params,
    tasks: Mapping[str, Task] | Sequence[Task],
    split: str,
    *,
    outputs: Outputs = edited_outputs,
    limit: int = 0,
    batch_size: int = 256,
) -> tuple[Evaluator, list[EvaluationSet]]:
    """An evaluator for edits of `params0`, an image tower, with one split of each task.

    Raises:
      ValueError: there is no task, or one has no such split; a limit or batch size that is
        no whole number.
    """
    tasks = read_tasks(tasks, split)
    check_whole("limit", limit, 0)
    check_whole("batch_size", batch_size, 1)
    counts = [len(task.splits[split]) for task in tasks]
    most = max(min(count, limit or count) for count in counts)
    batch_size = min(batch_size, most)  # less padding if all images fit into one batch
    batch_size += -batch_size % jax.local_device_count()
    shardings = make_shardings(batch_size, local=True)
    preprocessing = checkpoint.preprocessing
    evaluator = Evaluator(
        _encoder(checkpoint.config),
        jax.device_put(params0, shardings.replicated),
        preprocessing.normalize,
        outputs,
    )
    # By position, because two tasks may have the same name.
    heads = pad_heads(
        {
            str(number): zero_shot_head(checkpoint, task.classes, task.templates)
            for number, task in enumerate(tasks)
        }
    )
    sets = []
    for task, head in zip(tasks, heads.values(), strict=True):
        data = task.splits[split]
        rows = limited_rows(len(data), limit)
        images = load_images(data.images, rows, preprocessing)
        sets.append(
            put_evaluation_set(head, images, data.labels[rows], batch_size, shardings, False)
        )
    return evaluator, sets


def visual_parts(vectors: Sequence[Any]) -> list[Any]:
    """The image tower's part of task vectors as runs save them, `{"visual": ...}`.

    Raises:
      ValueError: a vector is not that of an image tower alone, has leaves that are not floating
        point or not finite, or is a model's.
    """
    for vector in vectors:
        if not isinstance(vector, Mapping) or list(vector) != ["visual"]:
            found = briefly(list(vector)) if isinstance(vector, Mapping) else briefly(vector)
            raise ValueError(
                f"a task vector contains {found}; expected {{'visual': ...}}, as runs save it: the "
                "text tower makes the heads and is never edited"
            )
    for number, vector in enumerate(vectors):
        check_vector(vector, f"task vector {number}")
        check_finite(vector, f"task vector {number}", "its accuracies would mean nothing")
    return [vector["visual"] for vector in vectors]


def _check_weights(checkpoint: Checkpoint, params: Params) -> None:
    """Refuses trees that cannot be a model's weights, task vectors in particular."""
    if not isinstance(params, Mapping):
        raise not_a_tree(params, "params")
    remedy = "give oj.apply_task_vector(checkpoint.params, vector, alpha) to measure a task vector"
    if "blocks" in params:
        remedy = "give {**checkpoint.params, 'visual': tower} to measure an image tower"
    missing = [name for name in checkpoint.params if name not in params]
    if missing:
        raise ValueError(
            f"params contain {', '.join(params) or 'nothing'} but no {', '.join(missing)}, so "
            f"they are not the weights of a whole model; {remedy}"
        )
    check_same(params["visual"], checkpoint.params["visual"], ("params", "checkpoint.params"))
    check_finite(params, "params", "such a model has no accuracy")
    # Layer-norm scales are near 1 in every model, and near 0 in a task vector.
    sizes = [_mean_scale(tree["visual"]) for tree in (params, checkpoint.params)]
    if sizes[0] < 0.1 * sizes[1]:
        raise ValueError(
            f"params: the mean layer-norm scale is {sizes[0]:.2g}, the checkpoint's is "
            f"{sizes[1]:.2g}, so they are a difference of weights, not a model; {remedy}"
        )


def _mean_scale(tower: Any) -> float:
    scales = [leaf for path, leaf in flatten(tower).items() if path.endswith("/scale")]
    return float(np.mean([np.abs(np.asarray(leaf)).mean() for leaf in scales]))


# Cached, so that a second call in a notebook does not compile again.
_encoder = functools.cache(image_encoder)
