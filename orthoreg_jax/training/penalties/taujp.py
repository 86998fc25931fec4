"""tauJp: little movement of the linearised features of other tasks' images."""

from __future__ import annotations

from ml_collections import ConfigDict

from orthoreg_jax.arithmetic.jacobian import tau_jacobian_penalty
from orthoreg_jax.tasks.loading import Rotation

from .penalty import Context, Others, Penalty


def taujp(options: ConfigDict, strength: float) -> Penalty:
    """Sees a batch of one other task at each step, the tasks in turn; option: `batch_size`."""

    def prepare(others: Others) -> Context:
        return Context(rotation=Rotation(others.feeds(options.batch_size)))

    return Penalty(strength, tau_jacobian_penalty, prepare)
