"""Stops a run on request, when a cluster takes the machine back or the user presses Ctrl-C.

SIGTERM and Ctrl-C are recorded, and acted on at the next point where nothing is lost. An exception
raised directly by a signal could come anywhere, and is lost if it comes while foreign code calls
Python. A second signal does raise one.

Processes that train together stop after the same step; see `agreement`.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any, NoReturn

from .agreement import Agreement
from .watch import Watch

SIGNAL_NAMES = {signal.SIGTERM: "SIGTERM", signal.SIGINT: "Ctrl-C"}
KEPT = "finished work is kept"


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
        self.outcome = KEPT  # what a signal leads to now
        self._agreement: Agreement | None = None

    def agree_by(self, watch: Watch) -> None:
        """Stops with the other processes from now on."""
        self._agreement = Agreement(watch, "stop")
        watch.on_poll.append(self._hear)

    def note(self, number: int, frame: FrameType | None = None) -> None:
        """Handles a signal."""
        if self.number is not None:
            raise KeyboardInterrupt
        self.number = number
        if self._agreement is not None:
            self._agreement.ask(str(number))
        name = SIGNAL_NAMES[signal.Signals(number)]
        with contextlib.suppress(OSError, RuntimeError):  # a signal may interrupt another write
            text = f"orthoreg: {name}: stopping; {self.outcome} (repeat to stop at once)"
            below = "\n" if sys.stderr.isatty() else ""  # a progress line may be there
            print(f"{below}{text}", file=sys.stderr, flush=True)

    def pass_step(self) -> bool:
        """Counts a step, and returns whether to stop after it."""
        return self.number is not None if self._agreement is None else self._agreement.pass_step()

    def due(self) -> bool:
        """Whether the agreed step has passed."""
        return self.number is not None if self._agreement is None else self._agreement.due()

    def alone(self) -> bool:
        """Whether there are no other processes to stop with."""
        return self._agreement is None

    def _hear(self, board: object) -> None:
        """Takes over the signal of another process."""
        assert self._agreement is not None
        if self._agreement.reason:
            self.number = self.number or int(self._agreement.reason)


_state = _Interruption()


def agree_by(watch: Watch) -> None:
    """Lets several processes agree on the step to stop after.

    With several processes JAX handles SIGTERM itself; this call takes it over.
    """
    _state.agree_by(watch)
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
        if _state.alone():
            _state.number = None


@contextlib.contextmanager
def leading_to(outcome: str) -> Iterator[None]:
    """Says, when a signal comes while open, that stopping has this outcome."""
    before, _state.outcome = _state.outcome, outcome
    try:
        yield
    finally:
        _state.outcome = before


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
        stop(f"stopped; {_state.outcome}")


def stop_if_asked() -> None:
    """Stops if asked to, at points that only this process reaches.

    Raises:
      StoppedError: the run was asked to stop.
    """
    if _state.number is not None:
        stop(f"stopped; {_state.outcome}")


def stop(text: str) -> NoReturn:
    """Raises `StoppedError`.

    Raises:
      StoppedError: always.
    """
    raise StoppedError(text, _state.number or signal.SIGTERM)
