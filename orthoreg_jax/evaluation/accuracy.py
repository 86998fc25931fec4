"""Predictions and accuracies of edited models: one compiled function for all tasks and splits."""

from __future__ import annotations

import collections
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Shaped

from orthoreg_jax.clip.checkpoint import Checkpoint, image_encoder
from orthoreg_jax.clip.preprocessing import load_preprocessing
from orthoreg_jax.clip.zeroshot import Head, pad_heads, zero_shot_head
from orthoreg_jax.tasks.batches import evaluation_batches
from orthoreg_jax.tasks.loading import load_images
from orthoreg_jax.tasks.task import Task
from orthoreg_jax.training.modes.mode import Apply, edited_outputs
from orthoreg_jax.training.sharding import Shardings

WINDOW = 8  # batches that are on their way at once, where a set is too large for the device


class EvaluationSet(NamedTuple):
    """One split of one task, in batches of one size, on the device or, if too large, beside it."""

    head: Head
    batches: Sequence[Shaped[Array, "b ..."] | Shaped[np.ndarray, "b ..."]]
    labels: Int[np.ndarray, " n"]
    sharding: jax.sharding.Sharding | None = None  # of a batch, for those that are not there yet


def put_evaluation_set(
    head: Head,
    images: np.ndarray,
    labels: np.ndarray,
    batch_size: int,
    shardings: Shardings,
    on_device: bool = True,
) -> EvaluationSet:
    """Cuts a split into batches of one size and sends them to the device, once if `on_device`."""
    batches = evaluation_batches(images, batch_size)
    if on_device:
        batches = jax.device_put(batches, shardings.batch)
    return EvaluationSet(head, batches, labels, shardings.batch)


class Evaluator:
    """Classifies images with many edits of one model.

    An edit is a row of coefficients, one for each of a few task vectors. Holds the compiled
    function and the pre-trained weights, so that a sweep builds no model and moves no data.
    """

    def __init__(
        self,
        apply: Apply,
        params0: Any,
        normalize: Callable[[Any], Any],
        outputs: Callable[..., Any] = edited_outputs,
    ) -> None:
        """Compiles nothing yet.

        Args:
          apply: (image tower's params, pixels) -> features.
          params0: pre-trained weights of the image tower.
          normalize: uint8 or float images on the scale 0 to 255 -> pixels.
          outputs: of a `Mode`: how its task vectors act on the model.
        """
        self._params0 = params0
        self._classify = jax.jit(functools.partial(_classify, outputs, apply, normalize))

    def predictions(
        self, vectors: Sequence[Any], coefficients: Float[np.ndarray, "g v"], data: EvaluationSet
    ) -> Int[np.ndarray, "g n"]:
        """The class that theta_0 + sum_v c_v tau_v gives each image, for g rows of c."""
        rows = jnp.asarray(coefficients, jnp.float32)
        answers, queued = [], collections.deque[Array]()
        for images in data.batches:
            here = jax.device_put(images, data.sharding) if data.sharding else images
            queued.append(self._classify(self._params0, list(vectors), rows, data.head, here))
            if len(queued) > WINDOW:  # work is always queued ahead of what is waited for
                answers.append(jax.device_get(queued.popleft()))
        answers += jax.device_get(list(queued))
        return np.concatenate(answers, axis=1)[:, : len(data.labels)]

    def accuracies(
        self,
        vectors: Sequence[Any],
        coefficients: Float[np.ndarray, "g v"],
        sets: Sequence[EvaluationSet],
        advance: Callable[[], None] = lambda: None,
    ) -> Float[np.ndarray, "g s"]:
        """Accuracy of each edit on each set; `advance` is called after each set."""
        columns = []
        for data in sets:
            predictions = self.predictions(vectors, coefficients, data)
            columns.append(np.mean(predictions == data.labels, axis=1))
            advance()
        return np.stack(columns, axis=1)

    def zero_shot(self, sets: Sequence[EvaluationSet]) -> Float[np.ndarray, " s"]:
        """Accuracy of the pre-trained weights on each set."""
        return self.accuracies([], np.zeros((1, 0)), sets)[0]


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
    return measure_accuracies(checkpoint, params, {task.name: task}, split, batch_size)[task.name]


def measure_accuracies(
    checkpoint: Checkpoint,
    params: Any,
    tasks: Mapping[str, Task],
    split: str = "test",
    batch_size: int = 256,
) -> dict[str, float]:
    """Accuracy of a whole CLIP's parameters on each of several tasks; see `measure_accuracy`.

    Raises:
      ValueError: a task has no such split.
    """
    for task in tasks.values():
        if split not in task.splits:
            raise ValueError(f"task {task.name!r} has no split {split!r}, only {list(task.splits)}")
    preprocessing = load_preprocessing(checkpoint.directory, checkpoint.config)
    heads = pad_heads(
        {
            name: zero_shot_head(checkpoint, task.classes, task.templates)
            for name, task in tasks.items()
        }
    )
    evaluator = Evaluator(
        image_encoder(checkpoint.config), params["visual"], preprocessing.normalize
    )
    accuracies = {}
    for name, task in tasks.items():
        data = task.splits[split]
        images = load_images(data.images, np.arange(len(data)), preprocessing)
        batches = [jnp.asarray(batch) for batch in evaluation_batches(images, batch_size)]
        one = EvaluationSet(heads[name], batches, data.labels)
        accuracies[name] = float(evaluator.zero_shot([one])[0])
    return accuracies


def _classify(
    outputs: Callable[..., Any],
    apply: Apply,
    normalize: Callable[[Any], Any],
    params0: Any,
    vectors: Sequence[Any],
    coefficients: Float[Array, "g v"],
    head: Head,
    images: Shaped[Array, "b ..."],
) -> Int[Array, "g b"]:
    features = outputs(apply, params0, vectors, coefficients, normalize(images))
    return jnp.argmax(head.logits(features), axis=-1)
