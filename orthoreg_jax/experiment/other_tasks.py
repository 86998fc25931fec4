"""What penalties may see beside the task itself: the other tasks of a run, and the control."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from orthoreg_jax.penalties.curvature import kronecker_factors
from orthoreg_jax.penalties.tak import Factors
from orthoreg_jax.tasks.loading import Feed

from .experiment import Experiment


@dataclasses.dataclass(frozen=True)
class OtherTasks:
    """All tasks of the run except the one being fine-tuned."""

    experiment: Experiment
    task: str
    seed: int
    curvature: Callable[[str, int, bool], Factors]  # of a task, see `measure_curvature`

    @property
    def names(self) -> list[str]:
        """The other tasks' names, in the order of the config."""
        return [name for name in self.experiment.config.tasks if name != self.task]

    def feeds(self, batch_size: int) -> tuple[Feed, ...]:
        """Training batches of every other task, augmented as in that task's own training."""
        return tuple(self.experiment.feed(name, self.seed, batch_size) for name in self.names)

    def factors(self, images: int, normalized: bool = False) -> list[Factors]:
        """Kronecker factors of each other task, from training images without augmentation."""
        return [self.curvature(name, images, normalized) for name in self.names]

    def general(self, images: int, normalized: bool = False) -> Factors:
        """Kronecker factors of the control task."""
        return self.curvature(self.experiment.config.control, images, normalized)


def measure_curvature(
    experiment: Experiment, task: str, images: int, normalized: bool = False
) -> Factors:
    """Kronecker factors of a task at the pre-trained weights; the same in every process.

    From training images; of the control task, which has none, from validation images.
    """
    tower = experiment.checkpoint.tower
    split = "val" if task == experiment.config.control else "train"
    chosen, _ = experiment.images(task, split, images)
    return kronecker_factors(
        tower,
        experiment.params0,
        experiment.preprocessing.normalize(jnp.asarray(chosen)),
        jax.random.normal(jax.random.key(0), (len(chosen), tower.projection)),
        normalized=normalized,
    )
