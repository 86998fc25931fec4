"""Many fine-tunings at once: the ordinary train step, mapped over tasks, seeds, rates and lambdas.

A small model leaves a GPU idle between its kernels. A fleet stacks the states of many fine-tunings
and takes all their steps in one program, batches included, so that 200 of them take little longer
than one. Each uses the same batches, crops and initial adapters as in its own run, so the task
vectors equal those of `orthoreg finetune` up to rounding.
"""

from __future__ import annotations

import concurrent.futures
import functools
import multiprocessing
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from orthoreg_jax.arithmetic.low_rank import dense
from orthoreg_jax.clip.weights import VISUAL_MATRICES
from orthoreg_jax.experiment.experiment import Experiment
from orthoreg_jax.progress import Progress
from orthoreg_jax.training.modes import make_mode
from orthoreg_jax.training.penalties import orthogonality
from orthoreg_jax.training.step import init_state, make_optimizer, make_train_step

SEGMENT = 50  # steps between progress reports


class Replica(NamedTuple):
    """One fine-tuning of a fleet."""

    task: str
    seed: int
    learning_rate: float
    strength: float  # lambda of OrthoReg; 0: no penalty


def finetune_fleet(
    experiment: Experiment,
    mode: str,
    replicas: Sequence[Replica],
    *,
    steps: int,
    warmup: int,
    form: str = "released",
    workers: int = 1,
) -> list[Any]:
    """Task vector of each replica, on the host; None where training diverged.

    Args:
      experiment: provides the model, the tasks and all other training options.
      mode: mode of all replicas.
      replicas: what differs between the fine-tunings.
      steps: number of updates in each.
      warmup: number of warm-up steps among them.
      form: form of the penalty.
      workers: processes that make batches.
    """
    options, made = experiment.config.training, make_mode(mode, experiment.config)
    params0 = jax.tree.map(jnp.asarray, experiment.checkpoint.params["visual"])
    pairs = sorted({(replica.task, replica.seed) for replica in replicas})
    images, labels = _batches(experiment, pairs, steps, workers)
    places = jnp.array([pairs.index((each.task, each.seed)) for each in replicas])
    heads = _stack([jax.device_get(experiment.heads[each.task]) for each in replicas])
    rates = jnp.array([each.learning_rate for each in replicas], jnp.float32)
    strengths = jnp.array([each.strength for each in replicas], jnp.float32)
    keys = jnp.stack([jax.random.key(each.seed) for each in replicas])
    penalised = any(each.strength for each in replicas)
    numbers = (warmup, steps, options.weight_decay, options.clip_norm)

    @jax.jit
    @functools.partial(jax.vmap, in_axes=(0, 0, None))
    def begin(rate: Any, key: Any, params0: Any) -> Any:
        return init_state(made, make_optimizer(rate, *numbers), params0, key)

    # Rates are part of the state, so any number will do here.
    optimizer = make_optimizer(0.0, *numbers)

    def one(strength: Any, state: Any, head: Any, images: Any, labels: Any, params0: Any) -> Any:
        penalty = orthogonality(1.0, form, VISUAL_MATRICES, experiment.config.penalty.precision)
        # Lambda differs between replicas, so it multiplies the value, and thereby its gradient.
        own = penalty._replace(value=lambda *given: strength * penalty.value(*given))
        step = make_train_step(
            made,
            experiment.apply,
            optimizer,
            experiment.preprocessing.normalize,
            (own,) if penalised else (),
        )
        return step(state, params0, head, images, labels)[0]

    every = jax.vmap(one, in_axes=(0, 0, 0, 0, 0, None))

    @functools.partial(jax.jit, donate_argnums=0)
    def segment(states: Any, images: Any, labels: Any, params0: Any) -> Any:
        def advance(states: Any, batch: Any) -> tuple[Any, None]:
            pixels, classes = (array[places] for array in batch)
            return every(strengths, states, heads, pixels, classes, params0), None

        return jax.lax.scan(advance, states, (images, labels))[0]

    states = begin(rates, keys, params0)
    with Progress(f"{len(replicas)} fine-tunings of {mode}", steps) as progress:
        for start in range(0, steps, SEGMENT):
            part = slice(start, start + SEGMENT)
            states = segment(states, images[part], labels[part], params0)
            finite = jax.device_get(states.finite)
            progress.update(len(images[part]), diverged=float(np.sum(~finite)))
    deltas = jax.jit(jax.vmap(lambda held: dense(made.delta(held, params0))))(states.trainable)
    deltas = jax.device_get(deltas)
    return [
        jax.tree.map(lambda leaf, place=place: leaf[place], deltas) if finite[place] else None
        for place in range(len(replicas))
    ]


def _stack(trees: Sequence[Any]) -> Any:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def _batches(
    experiment: Experiment, pairs: Sequence[tuple[str, int]], steps: int, workers: int
) -> tuple[Any, Any]:
    """All batches of each task and seed: (steps, pairs, b, h, w, 3) and (steps, pairs, b)."""
    size = experiment.config.training.batch_size
    feeds = [experiment.feed(task, seed, size) for task, seed in pairs]
    if workers == 1:
        made = [_all_batches(feed, steps) for feed in feeds]
    else:
        context = multiprocessing.get_context("spawn")
        with concurrent.futures.ProcessPoolExecutor(workers, context) as pool:
            made = list(pool.map(_all_batches, feeds, [steps] * len(feeds)))
    images, labels = (np.stack(arrays, axis=1) for arrays in zip(*made, strict=True))
    return jnp.asarray(images), jnp.asarray(labels)


def _all_batches(feed: Any, steps: int) -> tuple[np.ndarray, np.ndarray]:
    images, labels = zip(*(feed.batch(step) for step in range(steps)), strict=True)
    return np.stack(images), np.stack(labels)
