"""Fine-tuning one task: the loop around the train step."""

from __future__ import annotations

import collections
import contextlib
import json
import math
import pathlib
import shutil
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax

from orthoreg_jax.clip.zeroshot import Head
from orthoreg_jax.hosts import agree_to_save, interruption, is_first
from orthoreg_jax.progress import Progress
from orthoreg_jax.storage import StorageError, write_text
from orthoreg_jax.tasks.loading import Feed
from orthoreg_jax.time_left import Plan

from .events import Events
from .penalties import Context
from .saved_states import StateFolder
from .sharding import Shardings
from .step import Metrics, TrainState, TrainStep
from .tracking import track

# Steps handed to the device before the first of them has finished: enough to keep it busy, and few
# enough to stop soon.
AHEAD = 4


class DivergedError(Exception):
    """The loss or its gradient was not finite."""


class Job(NamedTuple):
    """One task to fine-tune on, with one seed.

    Attributes:
      label: the job's name in progress and errors.
      folder: where `metrics.jsonl` goes, and `state/` while training.
      params0: pre-trained weights of the image tower.
      head: the task's zero-shot head.
      feed: the task's batches; its seed fixes batches and augmentation.
      steps: number of updates, including those before a restored state.
      contexts: one for each penalty of the step; their batches depend on the step alone, too.
      log_every: updates between two lines of metrics.
      checkpoint_every: updates between two saved states; 0 turns this off.
      checkpoint_minutes: minutes between two saved states; 0 turns this off. With both off, a
        state is saved only when training is stopped.
      keep_checkpoints: number of saved states to keep, the newest ones.
      tensorboard: also write the metrics to `events/`, for TensorBoard.
      on_metrics: "module:function" that also gets the metrics, or "".
      plan: the run's plan, for the time left.
    """

    label: str
    folder: pathlib.Path
    params0: Any
    head: Head
    feed: Feed
    steps: int
    contexts: Sequence[Context] = ()
    log_every: int = 10
    checkpoint_every: int = 0
    checkpoint_minutes: float = 0.0
    keep_checkpoints: int = 2
    tensorboard: bool = False
    on_metrics: str = ""
    plan: Plan | None = None


def finetune(job: Job, step: TrainStep, state: TrainState, shardings: Shardings) -> TrainState:
    """Trains up to `job.steps` updates and returns the last state.

    Batches and augmentation depend on the seed and the step alone, so a run that resumes from a
    saved state ends with the same weights as an uninterrupted one.

    Args:
      job: the task, its data, and where its files go.
      step: from `make_train_step`.
      state: from `init_state`; donated.
      shardings: placement of batches.

    Raises:
      DivergedError: a loss or gradient is not finite; the last good state is in `last_good/`.
      StoppedError: SIGTERM or Ctrl-C came before the last update; the state is saved.
    """
    with contextlib.ExitStack() as stack:
        saved, states = None, job.folder / "state"
        if job.checkpoint_every or states.is_dir():
            saved = stack.enter_context(StateFolder(states, job.keep_checkpoints))
            state = saved.restore(state)
        first = int(state.step)
        log = _MetricsLog(job, first)
        events = None
        if job.tensorboard and is_first():
            events = stack.enter_context(Events(job.folder / "events", first))
        outcome = "the steps under way are finished, then the state is saved"
        stack.enter_context(interruption.leading_to(outcome))
        progress = stack.enter_context(Progress(job.label, job.steps, plan=job.plan, done=first))
        moving = {
            place: context.rotation.batches(first, job.steps)
            for place, context in enumerate(job.contexts)
            if context.rotation is not None
        }
        saved_at = time.monotonic()
        known = [context.constant for context in job.contexts]
        for number, raw in enumerate(job.feed.batches(first, job.steps), first):
            images, labels = shardings.put_batch(raw)
            for place, others in moving.items():
                known[place] = shardings.put_batch(next(others))
            state, metrics = step(state, job.params0, job.head, images, labels, tuple(known))
            log.add(number, metrics)
            # After the last update the task vector is saved, not the state.
            stopping = interruption.pass_step() and number + 1 < job.steps
            due = job.checkpoint_every > 0 and (number + 1) % job.checkpoint_every == 0
            late = 0 < 60 * job.checkpoint_minutes <= time.monotonic() - saved_at
            due |= agree_to_save(late) and number + 1 < job.steps
            save = stopping or due
            lines = log.fetch(everything=save or number + 1 == job.steps)
            if events is not None:
                events.add(lines)
            if job.on_metrics and lines and is_first():
                track(job.on_metrics, lines, job.folder)
            for line in lines:
                if not line["finite"]:
                    log.write()
                    raise _diverged(state, job, line)
                progress.update(0, loss=line["loss"], penalty=line["penalty"])
            progress.update(log.count_finished())
            if save:
                log.write()  # before the state: a resume drops lines after the saved state
                if saved is None:
                    saved = stack.enter_context(StateFolder(states, job.keep_checkpoints))
                saved.save(state)
                saved_at = time.monotonic()
            if stopping:
                interruption.stop(f"{job.label}: saved and stopped after {number + 1} updates")
        log.write()
    return state


def has_states(folder: pathlib.Path) -> bool:
    """Whether a task has saved states."""
    return (folder / "state").exists()


def remove_states(folder: pathlib.Path) -> None:
    """Deletes the saved states of a finished task."""
    shutil.rmtree(folder / "state", ignore_errors=True)


def _diverged(state: TrainState, job: Job, line: dict[str, Any]) -> DivergedError:
    with StateFolder(job.folder / "last_good") as saved:
        saved.save(state._replace(finite=jax.numpy.array(True)))  # the last good weights are
    names = {"loss": "loss", "penalty": "penalty", "gradient_norm": "gradient norm"}
    numbers = ", ".join(
        f"{name} {'not finite' if line[key] is None else format(line[key], '.4g')}"
        for key, name in names.items()
    )
    return DivergedError(
        f"{job.label}: loss or gradient is not finite at step {line['step']} ({numbers}). "
        f"The last good weights, after {int(state.step)} updates, are in "
        f"{job.folder / 'last_good'}. Lower "
        "training.learning_rate or penalty.strength, or lengthen training.warmup, and run "
        "again in a new --workdir"
    )


class _MetricsLog:
    """Fetches metrics from the device a few steps late, so that training never waits for them."""

    def __init__(self, job: Job, first: int) -> None:
        self._path = job.folder / "metrics.jsonl"
        self._steps, self._every = job.steps, job.log_every
        self._pending: list[tuple[int, Metrics]] = []
        self._running: collections.deque[Any] = collections.deque()  # a number of each step
        self._lines = _lines_before(self._path, first)

    def add(self, number: int, metrics: Metrics) -> None:
        """Takes the metrics of a step, which may still be computing."""
        self._pending.append((number, metrics))
        self._running.append(metrics.loss)

    def count_finished(self) -> int:
        """Steps that have finished since the last call; waits until few are under way."""
        count = 0
        while self._running and (len(self._running) > AHEAD or self._running[0].is_ready()):
            jax.block_until_ready(self._running.popleft())
            count += 1
        return count

    def fetch(self, everything: bool) -> list[dict[str, Any]]:
        """New lines of the log: those due at `log_every`, or all; and any that is not finite."""
        if not everything and len(self._pending) < self._every + min(self._every, AHEAD):
            return []
        ready = len(self._pending) if everything else self._every
        fetched = jax.device_get(self._pending[:ready])
        self._pending = self._pending[ready:]
        new = []
        for number, metrics in fetched:
            values = {key: value.item() for key, value in metrics._asdict().items()}
            # JSON has no NaN or infinity.
            line = {"step": number} | {
                key: value if math.isfinite(value) else None for key, value in values.items()
            }
            due = number % self._every == 0 or number + 1 == self._steps
            if due or not line["finite"]:
                new.append(line)
        self._lines += [json.dumps(line) for line in new]
        return new

    def write(self) -> None:
        """Writes all lines so far; only the first process does."""
        if is_first():
            write_text(self._path, "".join(f"{line}\n" for line in self._lines))


def _lines_before(path: pathlib.Path, first: int) -> list[str]:
    """Lines of an earlier run, up to the step from which it resumes."""
    if first == 0 or not path.is_file():
        return []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        return [line for line in lines if json.loads(line)["step"] < first]
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise StorageError(
            f"{path}: cannot be read ({error}); delete it to continue without its lines"
        ) from error
