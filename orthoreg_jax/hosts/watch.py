"""Ends all processes when one ends early, and says which one and why.

A process that ends by itself says so on a board that all processes read, twice a second. A process
that is killed, or loses its machine, cannot: JAX's heartbeats stop, and JAX aborts the others after
printing pages of C++ stack traces. `Watch` filters what is printed and prints one line instead.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import select
import signal
import sys
import threading
import time
from typing import Any

BOARD = "orthoreg/"
POLL_SECONDS = 0.5
LINGER_SECONDS = 10.0  # time for the others to read why this process ends
# Messages of JAX's runtime about the end of another process, with the number of that process.
FATAL = b"Terminating process because the JAX distributed service detected fatal errors"
COMMENT = re.compile(
    rb"^[EFW]\d{4} \S+ +\d+ (coordination_service|client\.h|preemption)", re.MULTILINE
)
HOLD_SECONDS = 2.0
SILENT = re.compile(rb"stopped sending heartbeats\):\s*(?:\S*task:)?(\d+)")
GONE = (
    "it stopped responding; it was killed, or its machine or network failed. Saved work is kept; "
    "repeat the command to resume"
)


class Watch:
    """This process's view of the others."""

    def __init__(self, client: Any, process: int, processes: int) -> None:
        """Does not start watching yet.

        Args:
          client: client of JAX's distributed service, which keeps the board.
          process: index of this process.
          processes: number of processes.
        """
        self._client, self.process, self.processes = client, process, processes
        self._ended, self._code = threading.Event(), 0
        self._poller = threading.Thread(target=self._poll, daemon=True)
        self.on_poll: list[Any] = []  # functions called with the board

    def start(self) -> None:
        """Starts the threads that watch until this process ends."""
        self._divert_errors()
        self._poller.start()

    def post(self, name: str, text: str) -> None:
        """Posts a message to the board, once per name."""
        self._client.key_value_set(f"{BOARD}{name}/{self.process}", text, True)

    def read(self) -> dict[str, dict[int, str]]:
        """The board: by name and process."""
        board: dict[str, dict[int, str]] = {}
        for key, text in self._client.key_value_dir_get(BOARD):
            name, process = key.removeprefix(BOARD).split("/")
            board.setdefault(name, {})[int(process)] = text
        return board

    def wait_for(self, name: str) -> dict[int, str]:
        """Waits until all processes have posted under a name; returns their messages."""
        while len(found := self.read().get(name, {})) < self.processes:
            time.sleep(POLL_SECONDS / 5)
        return found

    def finish(self) -> None:
        """Waits for the others to finish, leaves JAX's service with them, and ends this process.

        Python's normal exit would stop threads that are inside JAX's C++ code, which can crash a
        process whose work is done.
        """
        import jax

        self.post("finished", "")
        self.wait_for("finished")
        self._ended.set()
        self._poller.join(LINGER_SECONDS)
        jax.distributed.shutdown()
        _exit(0)

    def fail(self, code: int, reason: str) -> None:
        """Says why, waits until the others have read it, and ends this process."""
        self._code = code
        self._ended.set()
        last = time.monotonic() + LINGER_SECONDS
        try:
            self.post("failed", json.dumps({"code": code, "reason": reason}))
            while time.monotonic() < last:
                board = self.read()
                if len({**board["failed"], **board.get("seen", {})}) == self.processes:
                    break
                time.sleep(POLL_SECONDS / 5)
        except Exception:  # the first process, which keeps the board, has ended
            pass
        if self.process == 0:
            time.sleep(2 * POLL_SECONDS)  # the board ends with this process: others go first
        _exit(code)

    def _poll(self) -> None:
        while not self._ended.is_set():
            time.sleep(POLL_SECONDS)
            try:
                board = self.read()
                for call in self.on_poll:
                    call(board)
            except Exception:  # the board has ended; JAX reports that itself
                continue
            for process, text in board.get("failed", {}).items():
                if process != self.process and not self._ended.is_set():
                    facts = json.loads(text)
                    self.post("seen", "")
                    self._end(process, facts["reason"], facts["code"])

    def _end(self, process: int, reason: str, code: int) -> None:
        """Prints one line and ends this process."""
        if not self._ended.is_set():
            self._ended.set()
            print(
                f"orthoreg: process {self.process} of {self.processes} stops because process "
                f"{process} ended: {reason}",
                file=sys.stderr,
                flush=True,
            )
            _exit(code)

    def _divert_errors(self) -> None:
        """Filters what C++ code writes to standard error: all passes but JAX's abort report.

        Python's own output is not affected.
        """
        sys.stderr.flush()
        outside = os.dup(2)
        reading, writing = os.pipe()
        os.dup2(writing, 2)
        os.close(writing)
        sys.stderr = os.fdopen(outside, "w", buffering=1, errors="backslashreplace")
        threading.Thread(target=self._pass_on, args=(reading, outside), daemon=True).start()
        # The thread that aborts must wait for the thread that reads its output.
        library: Any = ctypes.CDLL(None)
        library.signal.argtypes = (ctypes.c_int, _HANDLER)
        library.signal(signal.SIGABRT, _pause)

    def _pass_on(self, reading: int, outside: int) -> None:
        """Holds back text that may start JAX's abort report, until it is clear whether it does."""
        held = b""
        while True:
            ready, _, _ = select.select([reading], [], [], HOLD_SECONDS if held else None)
            text = os.read(reading, 2**16) if ready else b""
            if ready and not text:
                return
            held += text
            if FATAL in held:
                if self._ended.is_set():  # this process is about to end anyway
                    _exit(self._code)
                silent = SILENT.search(held)
                self._end(int(silent[1]) if silent else 0, GONE, 1)
            if not ready or not COMMENT.search(held):
                os.write(outside, held)
                held = b""


def _exit(code: int) -> None:
    """Ends the process without waiting for JAX, which would wait for the others."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            pass
    os._exit(code)


_HANDLER = ctypes.CFUNCTYPE(None, ctypes.c_int)


@_HANDLER
def _pause(number: int) -> None:
    time.sleep(2)
