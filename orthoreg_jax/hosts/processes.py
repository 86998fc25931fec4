"""Lets processes find each other, check that they agree, and wait for one another."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from orthoreg_jax.arithmetic.types import PyTree

from . import interruption
from .agreement import Agreement
from .watch import Watch

HEARTBEAT_SECONDS = 15  # silence after which a process is considered dead
_watch: Watch | None = None
_saving: Agreement | None = None


def connect(
    coordinator: str | None = None, processes: int | None = None, process: int | None = None
) -> None:
    """Joins the other processes; must come before any other use of JAX.

    From then on, this process ends when another one ends too early.

    Args:
      coordinator: HOST:PORT of the first process; None finds the others automatically, on TPU pods,
        SLURM, Open MPI and Kubernetes.
      processes: number of processes.
      process: index of this process, from 0.

    Raises:
      ValueError: some arguments are given without the others, or there is no process to join.
    """
    import jax

    global _watch, _saving
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
    from jax._src.distributed import global_state  # JAX has no public access to it

    _watch = Watch(global_state.client, global_state.process_id, global_state.num_processes)
    _watch.start()
    interruption.agree_by(_watch)
    _saving = Agreement(_watch, "save")


def leave(code: int, reason: str = "") -> None:
    """Ends this process if it is one of several; otherwise does nothing.

    Args:
      code: exit code. With 0, the process waits for the others; with any other code, they end,
        too.
      reason: what the other processes report.
    """
    if _watch is None:
        return
    if code == 0:
        _watch.finish()
    else:
        _watch.fail(code, reason)


def blame() -> None:
    """Waits to learn whether another process ended first and so caused this one's error.

    When a process dies, collective operations with it fail at once, but its death is only noticed
    some seconds later. If one has died, this call does not return.
    """
    if _watch is not None:
        time.sleep(1.5 * HEARTBEAT_SECONDS)


def compare(facts: Mapping[str, Any]) -> None:
    """Checks that all processes are about to do the same work.

    Args:
      facts: what determines the work, by name; JSON values.

    Raises:
      ValueError: facts differ between processes; the message names them.
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


def agree_to_save(wanted: bool) -> bool:
    """Whether all processes save a state after this step, as one of them wanted to.

    All processes call this after every step, and meet when they save.
    """
    if _saving is None:
        return wanted
    if wanted:
        _saving.ask()
    due = _saving.pass_step()
    if due:
        _saving.renew()
    return due


def wait(place: str) -> None:
    """Waits until all processes have reached the same point, named by `place`."""
    import jax

    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(place)


def fetch(tree: PyTree) -> PyTree:
    """Arrays with any placement, as complete numpy arrays on every process."""
    import jax

    if jax.process_count() == 1:
        return jax.device_get(tree)
    from jax.experimental import multihost_utils

    return jax.tree.map(
        lambda leaf: np.asarray(multihost_utils.process_allgather(leaf, tiled=True)), tree
    )
