"""Decisions of the first process, such as by its clock, that the other processes follow.

All processes ask equally often, in the same order. The first one posts how often it was asked, and
which of its latest answers were yes; the others wait until it has been asked as often as they have.
"""

from __future__ import annotations

import json
import time

from .watch import Watch

DECISION_KEY = "decisions"
# Processes that train together wait for one another in what follows a yes, so the first process is
# never more than one yes ahead.
KEPT = 8
DECISION_POLL_SECONDS = 0.002


class Decisions:
    """This process's part in the decisions."""

    def __init__(self, watch: Watch) -> None:
        """Starts without any questions; `watch` has the board."""
        self._watch, self._asked, self._known = watch, 0, 0
        self._yes: list[int] = []

    def ask(self, answer: bool) -> bool:
        """Returns the first process's answer; those of the others do not count."""
        self._asked += 1
        if self._watch.process == 0:
            self._yes = [*self._yes, *([self._asked] if answer else [])][-KEPT:]
            self._watch.post(DECISION_KEY, json.dumps([self._asked, self._yes]))
            return answer
        while self._known < self._asked:
            text = self._watch.read_one(DECISION_KEY, 0)
            self._known, self._yes = json.loads(text) if text else (0, [])
            if self._known < self._asked:
                time.sleep(DECISION_POLL_SECONDS)
        return self._asked in self._yes
