"""Lets processes find each other, check that they agree, and wait for one another."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from orthoreg_jax.arithmetic.types import PyTree

from . import interruption
from .decisions import Decisions
from .watch import Watch

HEARTBEAT_SECONDS = 15  # of silence, after which a process is taken for dead
_watch: Watch | None = None
_decisions: Decisions | None = None


def connect(
    coordinator: str | None = None, processes: int | None = None, process: int | None = None
) -> None:
    """Joins the other processes; must come before any other use of JAX.

    From then on this process ends when another one does so too early.

    Args:
      coordinator: HOST:PORT of the first process; None finds the others by itself, on TPU pods,
        SLURM, Open MPI and Kubernetes.
      processes: how many there are.
      process: which one this is, from 0.

    Raises:
      ValueError: some arguments without the others, or nobody to join was found.
    """
    import jax

    global _watch, _decisions
    given = [value is not None for value in (coordinator, processes, process)]
    if any(given) and not all(given):
        raise ValueError(
            "--coordinator HOST:PORT, --processes N and --process I belong together; give all "
            "three, or --distributed alone if the cluster announces them"
        )
    try:
        jax.distributed.initialize(
            coordinator, processes, process, heartbeat_timeout_seconds=HEARTBEAT_SECONDS
        )
    except (ValueError, RuntimeError) as error:
        raise ValueError(
            f"cannot join the other processes ({error}); start the same command on every host, "
            "with --coordinator HOST:PORT --processes N --process I if the cluster does not "
            "announce them"
        ) from error
    from jax._src.distributed import global_state  # which JAX shows nowhere else

    _watch = Watch(global_state.client, global_state.process_id, global_state.num_processes)
    _watch.start()
    interruption.agree_by(_watch)
    _decisions = Decisions(_watch)


def leave(code: int, reason: str = "") -> None:
    """Ends this process where it is one of several; else it does nothing.

    Args:
      code: that the process exits with. With 0 it waits for the others; with any other they end,
        too.
      reason: what the others are to say.
    """
    if _watch is None:
        return
    if code == 0:
        _watch.finish()
    else:
        _watch.fail(code, reason)


def blame() -> None:
    """Waits to learn whether another process ended first and so caused this one's error.

    When a process dies, products that the others make with it fail at once; that it is dead shows
    some seconds later. If one is, this does not return.
    """
    if _watch is not None:
        time.sleep(1.5 * HEARTBEAT_SECONDS)


def compare(facts: Mapping[str, Any]) -> None:
    """Checks that all processes are about to do the same.

    Args:
      facts: what decides on the work, by name; JSON values.

    Raises:
      ValueError: some are not the same in all processes; they are named.
    """
    if _watch is None:
        return
    _watch.post("facts", json.dumps(facts, sort_keys=True))
    found = {
        process: json.loads(text) for process, text in sorted(_watch.wait_for("facts").items())
    }
    differing = []
    for name in dict.fromkeys(name for each in found.values() for name in each):
        values = [each.get(name) for each in found.values()]
        if any(value != values[0] for value in values):
            other = next(i for i, value in enumerate(values) if value != values[0])
            differing.append(f"{name}: {values[0]!r} in process 0, {values[other]!r} in {other}")
    if differing:
        more = f"; and {len(differing) - 5} more" if len(differing) > 5 else ""
        raise ValueError(
            f"the processes differ ({'; '.join(differing[:5])}{more}); start the same command, "
            "with the same version and the same files, on every host"
        )


def is_first() -> bool:
    """Whether this is the process that writes files."""
    import jax

    return jax.process_index() == 0


def first_decides(answer: bool) -> bool:
    """The first process's answer; all processes call it equally often, at the same points."""
    return answer if _decisions is None else _decisions.ask(answer)


def wait(place: str) -> None:
    """Waits until all processes have reached the same point, named by `place`."""
    import jax

    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(place)


def fetch(tree: PyTree) -> PyTree:
    """Arrays of any placement as numpy arrays, whole, on every process."""
    import jax

    if jax.process_count() == 1:
        return jax.device_get(tree)
    from jax.experimental import multihost_utils

    return jax.tree.map(
        lambda leaf: np.asarray(multihost_utils.process_allgather(leaf, tiled=True)), tree
    )
