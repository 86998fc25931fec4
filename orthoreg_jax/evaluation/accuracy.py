"""Accuracy on the device: one compiled function for all tasks, splits and edited weights."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from orthoreg_jax.arithmetic.task_vectors import apply_task_vector
from orthoreg_jax.clip.checkpoint import Checkpoint, image_encoder
from orthoreg_jax.clip.preprocessing import load_preprocessing
from orthoreg_jax.clip.zeroshot import Head, pad_heads, zero_shot_head
from orthoreg_jax.tasks.batches import Batch, evaluation_batches
from orthoreg_jax.tasks.task import Task
from orthoreg_jax.training.modes import Apply
from orthoreg_jax.training.sharding import Shardings


class EvaluationSet(NamedTuple):
    """One split of one task, on the device, with its head."""

    head: Head
    batches: list[Batch]
    size: int


def put_evaluation_set(
    head: Head, images: np.ndarray, labels: np.ndarray, batch_size: int, shardings: Shardings
) -> EvaluationSet:
    """Sends a split to the device once, cut into batches of one size."""
    batches = evaluation_batches(images, labels, batch_size)
    return EvaluationSet(head, jax.device_put(batches, shardings.batch), len(labels))


class Evaluator:
    """Counts right answers of edited weights.

    Holds the compiled functions and the pre-trained weights, so that a sweep over alphas builds
    no model and moves no data.
    """

    def __init__(self, apply: Apply, params0: Any, normalize: Callable[[Any], Any]) -> None:
        """Compiles nothing yet; `apply` maps (image tower's params, pixels) to features."""
        self._params0 = params0
        self._edit = jax.jit(apply_task_vector)
        self._count = jax.jit(functools.partial(_count_right, apply, normalize))

    def accuracies(
        self, vector: Any, alpha: float, sets: Sequence[EvaluationSet]
    ) -> Float[np.ndarray, " s"]:
        """Accuracy on each set of theta_0 + alpha * vector; without a vector, of theta_0."""
        params = (
            self._params0 if vector is None else self._edit(self._params0, vector, float(alpha))
        )
        # All batches are queued before the first result is waited for.
        counts = [[self._count(params, s.head, batch) for batch in s.batches] for s in sets]
        totals = [sum(float(count) for count in row) for row in jax.device_get(counts)]
        return np.array([total / s.size for total, s in zip(totals, sets, strict=True)])

    def sweep(
        self,
        vector: Any,
        alphas: Iterable[float],
        sets: Sequence[EvaluationSet],
        advance: Callable[[], None] = lambda: None,
    ) -> Float[np.ndarray, "a s"]:
        """Accuracies of theta_0 + alpha * vector by alpha; `advance` is called after each."""
        rows = []
        for alpha in alphas:
            rows.append(self.accuracies(vector, alpha, sets))
            advance()
        return np.stack(rows)


def measure_accuracy(
    checkpoint: Checkpoint, params: Any, task: Task, split: str = "test", batch_size: int = 256
) -> float:
    """Accuracy of a whole CLIP's parameters on one task, with the zero-shot head of `checkpoint`.

    For notebooks; a sweep over many edits is quicker with one `Evaluator`.

    Args:
      checkpoint: the pre-trained model: its text tower makes the head, its files the pixels.
      params: parameters like `checkpoint.params`, for example with task vectors added.
      task: from `load_tasks`.
      split: "train", "val" or "test".
      batch_size: images at a time.

    Returns:
      A share from 0 to 1.

    Raises:
      ValueError: the task has no such split.
    """
    if split not in task.splits:
        raise ValueError(f"task {task.name!r} has no split {split!r}, only {list(task.splits)}")
    data = task.splits[split]
    preprocessing = load_preprocessing(checkpoint.directory, checkpoint.config)
    head = pad_heads({task.name: zero_shot_head(checkpoint, task.classes, task.templates)})
    images = preprocessing.resize(data.rgb())
    evaluator = Evaluator(
        image_encoder(checkpoint.config), params["visual"], preprocessing.normalize
    )
    batches = evaluation_batches(images, data.labels, batch_size)
    return float(
        evaluator.accuracies(None, 0.0, [EvaluationSet(head[task.name], batches, len(data))])[0]
    )


def _count_right(
    apply: Apply, normalize: Callable[[Any], Any], params: Any, head: Head, batch: Batch
) -> Float[Array, ""]:
    logits = head.logits(apply(params, normalize(batch.images)))
    right = jnp.argmax(logits, axis=-1) == batch.labels
    return jnp.sum(right * batch.weights)
