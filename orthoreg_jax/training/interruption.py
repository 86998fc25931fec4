"""Being asked to stop: by a cluster that takes the machine back, or by a person."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

import jax


class StoppedError(Exception):
    """The run was asked to stop (SIGTERM) and did."""


class Interruption:
    """While it is open, SIGTERM is noted instead of ending the process."""

    def __init__(self) -> None:
        """Not open yet."""
        self._requested = False
        self._before: Any = None

    def requested(self, step: int) -> bool:
        """Whether to stop after this step; several processes agree on the same step."""
        if jax.process_count() > 1:  # JAX listens itself there, and tells all processes
            from jax.experimental import multihost_utils

            return multihost_utils.reached_preemption_sync_point(step)
        return self._requested

    def __enter__(self) -> Interruption:
        """Begins to listen; only the main thread can."""
        main = threading.current_thread() is threading.main_thread()
        if main and jax.process_count() == 1:
            self._before = signal.signal(signal.SIGTERM, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        """Gives the signal back to whoever had it."""
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._requested = True
