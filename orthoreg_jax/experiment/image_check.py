"""Decodes the images of a run before its first step, so that a damaged one is found then."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from orthoreg_jax.config import GIVEN
from orthoreg_jax.progress import say
from orthoreg_jax.tasks.split import Split
from orthoreg_jax.tasks.task import unreadable_images
from orthoreg_jax.words import counted

from .experiment import Experiment

MOST_DECODED = 20_000  # photographs take one core about a minute


def check_images(experiment: Experiment, stages: Sequence[str], most: int = MOST_DECODED) -> None:
    """Decodes every image of the splits that this run or a later stage of it reads.

    `load_tasks` reads headers only; an image cut off behind its header is found here. What an
    earlier run or `check_tasks` decoded is not decoded again where the user has a cache folder.

    Args:
      experiment: from `prepare`.
      stages: the stages to run; training images are left out if nothing is to be trained.
      most: with more images than this to decode, none is, and a note says so.

    Raises:
      ValueError: images are damaged. The error names them by task.
    """
    trains = "finetune" in stages and _lacks_vectors(experiment)
    found = {
        (name, split): (data, rows)
        for name, task in experiment.tasks.items()
        for split, data in task.splits.items()
        if (split != "train" or trains) and len(rows := _not_decoded(data))
    }
    count, start = sum(len(rows) for _, rows in found.values()), time.monotonic()
    if count > most:
        say(
            f"{count} images are not decoded before the run begins (more than {most}): a damaged "
            "one would stop it when it is read; `orthoreg data check` decodes them all"
        )
        return
    problems = []
    for (name, split), (data, rows) in found.items():
        if damage := unreadable_images(data.images.inspect(rows, whole=True)):
            problems.append(f"task {name!r}, {split}: {damage}")
    if problems:
        raise ValueError("data: " + "\n  ".join(problems))
    if count:
        seconds = time.monotonic() - start
        images = counted(count, "image")
        say(f"decoded {images} before the run begins, none is damaged ({seconds:.1f} s)")


def _lacks_vectors(experiment: Experiment) -> bool:
    """Whether a task vector is still to be trained."""
    config = experiment.config
    every = itertools.product(config.methods, config.seeds, config.tasks)
    return any(
        method != GIVEN and not experiment.vector_path(method, seed, task).is_file()
        for method, seed, task in every
    )


def _not_decoded(data: Split) -> Int[np.ndarray, " n"]:
    """Rows of the images of which only the header has been read."""
    return np.array([row for row, facts in enumerate(data.inspect()) if not facts.whole], np.int64)
