"""Mergers that look at images, for the command line: the tasks' own, without their labels."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, UInt8

from orthoreg_jax.arithmetic.paths import flatten
from orthoreg_jax.arithmetic.rules import rules_for_part
from orthoreg_jax.arithmetic.task_vectors import apply_task_vector
from orthoreg_jax.arithmetic.types import TaskVector
from orthoreg_jax.clip.checkpoint import Checkpoint, image_encoder
from orthoreg_jax.clip.weights import VISUAL_MATRICES
from orthoreg_jax.clip.zeroshot import Head, zero_shot_head
from orthoreg_jax.merging import adamerging, diagonal_fisher, entropy, fisher, regmean
from orthoreg_jax.merging.norms import match_norms
from orthoreg_jax.merging.parameters import check_count, read_options
from orthoreg_jax.penalties.curvature import kronecker_factors
from orthoreg_jax.progress import say
from orthoreg_jax.tasks.batches import limited_rows
from orthoreg_jax.tasks.loading import load_images
from orthoreg_jax.tasks.task import Task

SPLIT = "val"
ADAMERGING_BATCH = 16  # images of each task at a step of AdaMerging, as published


class FittingData(NamedTuple):
    """What a merger is fitted on; vectors, images and heads are in the same order.

    Attributes:
      checkpoint: theta_0.
      vectors: of the image tower, or of a part of it.
      images: of each task, as the model's preprocessing cuts them.
      heads: of each task.
    """

    checkpoint: Checkpoint
    vectors: Sequence[Any]
    images: Sequence[UInt8[np.ndarray, "n h w 3"]]
    heads: Sequence[Head]

    def pixels(self, number: int) -> Array:
        """A task's images, normalised."""
        return self.checkpoint.preprocessing.normalize(jnp.asarray(self.images[number]))

    def finetuned(self, number: int) -> Any:
        """A task's own image tower."""
        return apply_task_vector(self.checkpoint.params["visual"], self.vectors[number])


def _adamerging(
    given: FittingData, steps: int = 500, learning_rate: float = 1e-3, initial: float = 0.3
) -> Any:
    apply, params0 = image_encoder(given.checkpoint.config), given.checkpoint.params["visual"]
    normalize = given.checkpoint.preprocessing.normalize
    size = min(ADAMERGING_BATCH, *(len(each) for each in given.images))
    count = min(len(each) for each in given.images) // size
    batches = [
        jnp.stack([each[number * size : (number + 1) * size] for each in given.images])
        for number in range(count)
    ]

    def loss(vector: Any, batch: Array) -> Array:
        params = apply_task_vector(params0, vector)
        terms = [
            entropy(head.logits(apply(params, normalize(images))))
            for head, images in zip(given.heads, batch, strict=True)
        ]
        return sum(terms[1:], start=terms[0])

    return adamerging(
        given.vectors, loss, batches, steps, learning_rate, initial, matrices=_rules(given)
    )


def _regmean(given: FittingData, alpha: float = 0.9) -> Any:
    tower, grams = given.checkpoint.tower, []
    kernels = [path for path in flatten(given.vectors[0]) if path.endswith("/kernel")]
    for number, images in enumerate(given.images):
        projections = jnp.ones((len(images), tower.projection))
        factors = kronecker_factors(
            tower, given.finetuned(number), given.pixels(number), projections
        )
        rows = {path: flatten(given.vectors[0])[path].shape[-2] for path in kernels}
        grams.append(
            {
                path: factors[path.removesuffix("/kernel")].inputs[..., : rows[path], : rows[path]]
                for path in kernels
            }
        )
    return regmean(given.vectors, grams, alpha, matrices=_rules(given))


def _fisher(given: FittingData) -> Any:
    apply, fishers = image_encoder(given.checkpoint.config), []
    for number, head in enumerate(given.heads):

        def chances(params: Any, image: Array, head: Head = head) -> Array:
            whole = apply_task_vector(given.checkpoint.params["visual"], params)
            return jax.nn.log_softmax(head.logits(apply(whole, image[None]))[0])

        # By the change of the weights: the same derivative as by the weights themselves.
        own = given.vectors[number]
        fishers.append(
            jax.jit(diagonal_fisher, static_argnums=0)(chances, own, given.pixels(number))
        )
    return fisher(given.vectors, fishers)


# By name, what fits a merger; its options are the function's, and `images`.
FITTED: dict[str, Callable[..., Any]] = {
    "adamerging": _adamerging,
    "regmean": _regmean,
    "fisher": _fisher,
}
MOST_IMAGES = 256


def read_fitted(name: str, options: Mapping[str, str]) -> tuple[dict[str, Any], int]:
    """Parameters of a fitted merger from texts, and how many images it takes of each task.

    Raises:
      ValueError: no such parameter, or a value that is none for it.
    """
    parameters = list(inspect.signature(FITTED[name]).parameters.values())[1:]
    known = {each.name: each.default for each in parameters} | {"images": MOST_IMAGES}
    values = read_options(name, known, options)
    count = values.pop("images", MOST_IMAGES)
    allowed = "images of each task, a whole number from 1"
    if check_count(name, "images", count, allowed) == 0:
        raise ValueError(f"{name}: images is 0; give {allowed}")
    return values, count


def fit_merger(
    name: str,
    options: Mapping[str, str],
    checkpoint: Checkpoint,
    vectors: Sequence[TaskVector],
    tasks: Sequence[Task],
    match: str = "",
) -> TaskVector:
    """Merges task vectors by a merger of `FITTED`, on validation images of each one's task.

    Args:
      name: of the merger.
      options: its parameters as texts.
      checkpoint: theta_0.
      vectors: `{"visual": ...}`, in memory.
      tasks: in the same order, with the split "val". No label is used.
      match: see `match_norms`; "": as they are.

    Raises:
      ValueError: bad parameters.
    """
    values, count = read_fitted(name, options)
    if match:
        vectors = match_norms(vectors, match)
    images, heads = [], []
    for task in tasks:
        data = task.splits[SPLIT]
        rows = limited_rows(len(data), count)
        images.append(load_images(data.images, rows, checkpoint.preprocessing))
        weights = zero_shot_head(checkpoint, task.classes, task.templates)
        heads.append(Head(jnp.asarray(weights), jnp.int32(len(weights))))
    numbers = ", ".join(str(len(each)) for each in images)
    say(f"{name}: fitting on validation images, without their labels: {numbers}")
    own = [jax.tree.map(jnp.asarray, vector["visual"]) for vector in vectors]
    with jax.numpy_dtype_promotion("standard"):  # Adam of optax promotes types by itself
        merged = FITTED[name](FittingData(checkpoint, own, images, heads), **values)
    return {"visual": jax.tree.map(np.asarray, merged)}


def _rules(given: FittingData) -> Any:
    return rules_for_part(given.vectors[0], VISUAL_MATRICES)
