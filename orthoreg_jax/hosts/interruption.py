"""Stops a run on request, when a cluster takes the machine back or the user presses Ctrl-C.

SIGTERM and Ctrl-C are recorded, and acted on at the next point where nothing is lost. An exception
raised directly by a signal could come anywhere, and is lost if it comes while foreign code calls
Python. A second signal does raise one.

Processes that train together must stop after the same step. Each counts the steps it has passed.
When one is asked to stop, all post their counts and go on. The step after the largest of these
counts is one that no process has passed yet, so all stop there.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any, NoReturn

from .watch import Watch

SIGNAL_NAMES = {signal.SIGTERM: "SIGTERM", signal.SIGINT: "Ctrl-C"}


class StoppedError(Exception):
    """The run was asked to stop and did; `number` is the signal's."""

    def __init__(self, text: str, number: int) -> None:
        """Creates the error; the text says what was saved."""
        super().__init__(text)
        self.number = number


class _Interruption:
    """This process's state; there is one, because signals are per process."""

    def __init__(self) -> None:
        self.number: int | None = None  # first signal, in this or another process
        self.watch: Watch | None = None
        self._lock = threading.Lock()
        self._passed = 0
        self._counted = False  # whether this process's count is on the board
        self._last: int | None = None  # the step after which all stop

    def note(self, number: int, frame: FrameType | None = None) -> None:
        """Handles a signal."""
        if self.number is not None:
            raise KeyboardInterrupt
        self.number = number
        name = SIGNAL_NAMES[signal.Signals(number)]
        with contextlib.suppress(OSError, RuntimeError):  # a signal may interrupt another write
            text = f"orthoreg: {name}: stopping after this step (repeat to stop at once)"
            print(text, file=sys.stderr, flush=True)

    def pass_step(self) -> bool:
        """Counts a step, and returns whether to stop after it."""
        if self.watch is None:
            return self.number is not None
        with self._lock:
            self._passed += 1
            counted = self._counted
        while counted and self._last is None:  # the other counts arrive within a second
            time.sleep(0.02)
        return self.due()

    def due(self) -> bool:
        """Whether the agreed step has passed."""
        if self.watch is None:
            return self.number is not None
        return self._last is not None and self._passed >= self._last

    def read(self, board: dict[str, dict[int, str]]) -> None:
        """Takes part in the agreement; called by the watch thread."""
        assert self.watch is not None
        if self.number is not None and self.watch.process not in board.get("stop", {}):
            self.watch.post("stop", str(self.number))
        if "stop" in board and not self._counted:
            self.number = self.number or int(next(iter(board["stop"].values())))
            with self._lock:
                self._counted = True
                self.watch.post("passed", str(self._passed))
        counts = board.get("passed", {})
        if len(counts) == self.watch.processes:
            self._last = max(map(int, counts.values())) + 1


_state = _Interruption()


def agree_by(watch: Watch) -> None:
    """Lets several processes agree on the step to stop after.

    With several processes JAX handles SIGTERM itself; this call takes it over.
    """
    _state.watch = watch
    watch.on_poll.append(_state.read)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _state.note)


@contextlib.contextmanager
def listening() -> Iterator[None]:
    """Records SIGTERM and Ctrl-C while open; only the main thread can."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, _state.note) for number in SIGNAL_NAMES}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if _state.watch is None:
            _state.number = None


@contextlib.contextmanager
def undivided() -> Iterator[None]:
    """Delays Ctrl-C until the end of the block, for threads that would not survive it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    pressed: list[Any] = []
    before = signal.signal(signal.SIGINT, lambda *arguments: pressed.append(arguments))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if pressed and callable(before):
        before(*pressed[0])


def pass_step() -> bool:
    """Whether to stop after this step; all processes call this and get the same answer."""
    return _state.pass_step()


def stop_if_due() -> None:
    """Stops if asked to, at points between steps that all processes reach.

    Raises:
      StoppedError: the run was asked to stop.
    """
    if _state.due():
        stop("stopped; finished work is kept")


def stop_if_asked() -> None:
    """Stops if asked to, at points that only this process reaches.

    Raises:
      StoppedError: the run was asked to stop.
    """
    if _state.number is not None:
        stop("stopped; finished work is kept")


def stop(text: str) -> NoReturn:
    """Raises `StoppedError`.

    Raises:
      StoppedError: always.
    """
    raise StoppedError(text, _state.number or signal.SIGTERM)
