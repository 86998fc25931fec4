"""Lets processes that train together agree on a step after which all act, such as stop or save.

Each process counts the steps it has passed. When one asks, all post their counts and go on. The
step after the largest of these counts is one that no process has passed yet, so all act after it.
While nobody asks, nothing is sent.
"""

from __future__ import annotations

import threading
import time

from .watch import Watch


class Agreement:
    """This process's part in agreements of one kind, one after the other."""

    def __init__(self, watch: Watch, name: str) -> None:
        """Takes part from now on; `name` is where on the board."""
        self._watch, self._name, self._lock = watch, name, threading.Lock()
        self._passed = self._round = 0
        self._asked: str | None = None  # what this process asks with
        self._counted = False  # whether this process's count is on the board
        self._last: int | None = None  # the step after which all act
        self.reason = ""  # what was asked with, by this or another process
        watch.on_poll.append(self.read)

    def ask(self, reason: str = "") -> None:
        """Asks the others; a signal handler may do it."""
        self._asked = reason

    def pass_step(self) -> bool:
        """Counts a step, and returns whether to act after it."""
        with self._lock:
            self._passed += 1
            counted = self._counted
        while counted and self._last is None:  # the other counts arrive within a second
            time.sleep(0.02)
        return self.due()

    def due(self) -> bool:
        """Whether the agreed step has passed."""
        return self._last is not None and self._passed >= self._last

    def renew(self) -> None:
        """Begins the next agreement, once this one's step has passed.

        Before a process asks again, all must have met after that step, as saving a state has them
        do: posts of the next agreement take the place of this one's.
        """
        with self._lock:
            self._round += 1
            self._asked, self._last, self._counted = None, None, False

    def read(self, board: dict[str, dict[int, str]]) -> None:
        """Takes part in the agreement; called by the watch thread."""
        with self._lock:
            own = f"{self._round} "
            requests = _since(board.get(self._name, {}), own)
            if self._asked is not None and self._watch.process not in requests:
                self._watch.post(self._name, own + self._asked)
            if requests and not self._counted:
                self.reason = next(iter(requests.values()))
                self._counted = True
                self._watch.post(f"{self._name} passed", f"{own}{self._passed}")
            counts = _since(board.get(f"{self._name} passed", {}), own)
            if len(counts) == self._watch.processes:
                self._last = max(map(int, counts.values())) + 1


def _since(posts: dict[int, str], start: str) -> dict[int, str]:
    return {each: text.removeprefix(start) for each, text in posts.items()
            if text.startswith(start)}  # fmt: skip
