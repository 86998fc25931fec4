"""A child process that answers messages, one line of JSON each, and may fail at any time."""

from __future__ import annotations

import contextlib
import json
import math
import os
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from typing import Any


class Ended(Exception):
    """The process ended before it answered."""


class TimeIsOver(Exception):
    """The process did not answer in time."""


class Child:
    """The child process; it reads messages from its input and writes only messages to output."""

    def __init__(self, command: Sequence[str]) -> None:
        """Starts the process."""
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # so that processes it starts end with it
        )
        self._messages: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            self._messages.put(line)
        self._messages.put(None)

    def send(self, message: Any) -> None:
        """Sends a message.

        Raises:
          Ended: the process no longer reads messages.
        """
        assert self._process.stdin
        try:
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise Ended("its process ended") from None

    def receive(self, end: float) -> Any:
        """Receives its next message.

        Args:
          end: when to stop waiting, by time.monotonic().

        Raises:
          Ended: the process ended instead.
          TimeIsOver: there was no message until `end`.
        """
        began = time.monotonic()
        try:
            wait = None if math.isinf(end) else max(0.0, end - began)
            line = self._messages.get(timeout=wait)
        except queue.Empty:
            raise TimeIsOver(f"more than {end - began:.0f} s") from None
        if line is None:
            raise Ended("its process ended")
        return json.loads(line)

    def end(self) -> int:
        """Ends the process and its children, if still running; returns its exit code."""
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        code = self._process.wait()
        self._reader.join()
        assert self._process.stdin and self._process.stdout
        self._process.stdout.close()
        with contextlib.suppress(BrokenPipeError):  # from messages that it never read
            self._process.stdin.close()
        return code
