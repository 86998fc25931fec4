"""Predictions and accuracies of edited models; all tasks and splits share a compiled function."""

from __future__ import annotations

import collections
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Shaped

from orthoreg_jax.arithmetic.types import Apply, Params
from orthoreg_jax.clip.zeroshot import Head
from orthoreg_jax.tasks.batches import evaluation_batches
from orthoreg_jax.training.modes.mode import edited_outputs
from orthoreg_jax.training.sharding import Shardings

NO_CLASS = -1
WINDOW = 8  # batches in flight at once, for sets too large for the device


class EvaluationSet(NamedTuple):
    """One split of one task in batches of equal size, on the device or, if too large, the host."""

    head: Head
    batches: Sequence[Shaped[Array, "b ..."] | Shaped[np.ndarray, "b ..."]]
    labels: Int[np.ndarray, " n"]
    sharding: jax.sharding.Sharding | None = None  # of a batch; None if batches are on the device


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

    An edit is a row of coefficients, one for each of a few task vectors. The evaluator holds the
    compiled function and the pre-trained weights, so a sweep builds no model and moves no data.
    """

    def __init__(
        self,
        apply: Apply,
        params0: Params,
        normalize: Callable[[Any], Any],
        outputs: Callable[..., Any] = edited_outputs,
    ) -> None:
        """Defers compilation to the first prediction.

        Args:
          apply: (image tower's params, pixels) -> features.
          params0: pre-trained weights of the image tower.
          normalize: uint8 or float images on the scale 0 to 255 -> pixels.
          outputs: `outputs` of a `Mode`: how its task vectors act on the model.
        """
        self._params0 = params0
        self._classify = _compiled(outputs, apply, normalize)

    def predictions(
        self, vectors: Sequence[Any], coefficients: Float[np.ndarray, "g v"], data: EvaluationSet
    ) -> Int[np.ndarray, "g n"]:
        """The class that theta_0 + sum_v c_v tau_v predicts for each image, for g rows of c.

        It is `NO_CLASS` where a logit is not finite, and then wrong, whatever the label.
        """
        rows = jnp.asarray(coefficients, jnp.float32)
        answers, queued = [], collections.deque[Array]()
        for images in data.batches:
            here = jax.device_put(images, data.sharding) if data.sharding else images
            queued.append(self._classify(self._params0, list(vectors), rows, data.head, here))
            if len(queued) > WINDOW:  # keeps the device busy while the oldest result is fetched
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


@functools.cache
def _compiled(
    outputs: Callable[..., Any], apply: Apply, normalize: Callable[[Any], Any]
) -> Callable[..., Int[Array, "g b"]]:
    return jax.jit(functools.partial(_classify, outputs, apply, normalize))


def _classify(
    outputs: Callable[..., Any],
    apply: Apply,
    normalize: Callable[[Any], Any],
    params0: Params,
    vectors: Sequence[Any],
    coefficients: Float[Array, "g v"],
    head: Head,
    images: Shaped[Array, "b ..."],
) -> Int[Array, "g b"]:
    features = outputs(apply, params0, vectors, coefficients, normalize(images))
    logits = head.logits(features)
    # Padded classes have logit minus infinity; the largest logit is NaN if any is. Features whose
    # norm overflows become 0 when divided by it.
    squares = jnp.sum(jnp.square(features), axis=-1)
    finite = jnp.isfinite(jnp.max(logits, axis=-1)) & jnp.isfinite(squares)
    return jnp.where(finite, jnp.argmax(logits, axis=-1), NO_CLASS)
