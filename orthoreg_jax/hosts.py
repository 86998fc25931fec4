"""Several processes as one run: one on each host, each with the devices that it sees.

All of them train together; the first one writes. Evaluations are shared out, each to one process.
They meet in the run folder, which has to be one that all of them see.
"""

from __future__ import annotations

from typing import Any

import numpy as np


def connect(
    coordinator: str | None = None, processes: int | None = None, process: int | None = None
) -> None:
    """Joins the other processes; must come before anything else that JAX does.

    Args:
      coordinator: HOST:PORT of the first process; None finds the others by itself, on TPU pods,
        SLURM, Open MPI and Kubernetes.
      processes: how many there are.
      process: which one this is, from 0.

    Raises:
      ValueError: some arguments without the others, or nobody to join was found.
    """
    import jax

    given = [value is not None for value in (coordinator, processes, process)]
    if any(given) and not all(given):
        raise ValueError(
            "--coordinator HOST:PORT, --processes N and --process I belong together; give all "
            "three, or only --distributed where the cluster says them"
        )
    try:
        jax.distributed.initialize(coordinator, processes, process)
    except (ValueError, RuntimeError) as error:
        raise ValueError(
            f"cannot join the other processes ({error}); start the same command on every host, "
            "with --coordinator HOST:PORT --processes N --process I where the cluster does not "
            "say them"
        ) from error


def is_first() -> bool:
    """Whether this process writes what all of them made."""
    import jax

    return jax.process_index() == 0


def wait(place: str) -> None:
    """Goes on when all processes have come to the same place; `place` names it."""
    import jax

    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(place)


def fetch(tree: Any) -> Any:
    """Arrays of any placement as numpy arrays, whole, on every process."""
    import jax

    if jax.process_count() == 1:
        return jax.device_get(tree)
    from jax.experimental import multihost_utils

    return jax.tree.map(
        lambda leaf: np.asarray(multihost_utils.process_allgather(leaf, tiled=True)), tree
    )
