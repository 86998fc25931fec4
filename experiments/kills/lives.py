"""Commands that are killed at random moments and restarted until they are done."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

PATIENCE = 60.0  # seconds within which a process must end after another one was killed
LONGEST = 900.0  # seconds; no command takes as long


@dataclasses.dataclass(frozen=True)
class Command:
    """A command to kill.

    Attributes:
      name: name of its row.
      arguments: folder -> arguments of `orthoreg`.
      before: prepares an empty folder for the command.
      processes: number of processes that run it together.
      first: the command from whose undisturbed folder it starts; "": none.
    """

    name: str
    arguments: Callable[[pathlib.Path], list[str]]
    before: Callable[[pathlib.Path], object] = lambda folder: None
    processes: int = 1
    first: str = ""


@dataclasses.dataclass
class Row:
    """Results of one command.

    Attributes:
      runs: how often it was run to its end.
      kills: how often it was killed on the way.
      writing: number of kills while it wrote a file.
      differing: files that differ from those of an undisturbed command.
      left: scratch folders that remain at the end.
      alone: with two processes, the longest time in seconds until the other one ended.
    """

    command: str
    runs: int = 0
    kills: int = 0
    writing: int = 0
    differing: list[str] = dataclasses.field(default_factory=list)
    left: list[str] = dataclasses.field(default_factory=list)
    alone: float | None = None


class Life:
    """One start of a command."""

    def __init__(self, command: Command, folder: pathlib.Path, log: pathlib.Path) -> None:
        arguments = [sys.executable, "-m", "orthoreg_jax.cli", *command.arguments(folder)]
        joined: list[list[str]] = [[]]
        if command.processes > 1:
            with socket.socket() as listener:
                listener.bind(("127.0.0.1", 0))
                where = ["--coordinator", f"127.0.0.1:{listener.getsockname()[1]}"]
            where += ["--processes", str(command.processes)]
            joined = [[*where, "--process", str(i)] for i in range(command.processes)]
        self.said = [log.with_name(f"said{number}") for number in range(len(joined))]
        self.processes = []
        for own, said in zip(joined, self.said, strict=True):
            with said.open("w") as errors, log.open("a") as output:
                # Its own session, so that its children are killed with it.
                self.processes.append(
                    subprocess.Popen(
                        [*arguments, *own], stdout=output, stderr=errors, start_new_session=True
                    )
                )

    def goes_on(self) -> bool:
        """Whether a process is still running."""
        return any(process.poll() is None for process in self.processes)

    def joined(self) -> bool:
        """Whether all processes have found each other, as their first messages show."""
        return len(self.processes) == 1 or "model " in self.said[0].read_text()

    def kill(self) -> float:
        """Kills one running process with SIGKILL; returns the seconds until all have ended."""
        victim = random.choice([each for each in self.processes if each.poll() is None])
        began = time.monotonic()
        os.killpg(victim.pid, signal.SIGKILL)
        for process, said in zip(self.processes, self.said, strict=True):
            process.wait(PATIENCE)
            lines = [line for line in said.read_text().splitlines() if line[:9] == "orthoreg:"]
            done = process is victim or process.returncode == len(lines) == 0
            if not done and (process.returncode != 1 or len(lines) != 1):
                sys.exit(f"{said}: ended with {process.returncode}, after {len(lines)} messages")
        return time.monotonic() - began

    def end(self) -> None:
        """Waits for its end, which must be a success."""
        for process, said in zip(self.processes, self.said, strict=True):
            if process.wait(LONGEST):
                sys.exit(f"{said}: the command failed with {process.returncode}")


def changes(life: Life, folder: pathlib.Path) -> Iterator[tuple[float, bool]]:
    """Every few milliseconds while it runs: seconds since the start, and whether a name is new."""
    began, known = time.monotonic(), set(_names(folder))
    while life.goes_on():
        names = set(_names(folder))
        yield time.monotonic() - began, bool(names - known)
        known |= names
        time.sleep(0.002)


def _names(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """Like `rglob`, for folders that appear and disappear."""
    for root, folders, files in os.walk(folder):
        yield from (pathlib.Path(root, name) for name in (*folders, *files))


def undisturbed(command: Command, folder: pathlib.Path, log: pathlib.Path) -> tuple[float, int]:
    """Runs it to its end; returns the seconds, and how often names appeared in the folder."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    command.before(folder)
    began, life = time.monotonic(), Life(command, folder, log)
    count = sum(new for _, new in changes(life, folder))
    life.end()
    return time.monotonic() - began, count


def disturbed(
    command: Command, folder: pathlib.Path, log: pathlib.Path, seconds: float, count: int, row: Row
) -> None:
    """Runs it to its end, with kills on the way.

    Half of the kills, on average, come at a random time, the others when a name appears in the
    folder: while something is written.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    command.before(folder)
    lives = 0
    while True:
        lives += 1
        life = Life(command, folder, log)
        writing = random.random() < 0.5
        # Lives become longer, in case this machine has become slower.
        latest = random.uniform(0.2, 1.1) * seconds * 1.1**lives
        number = random.randint(1, max(1, count))
        for now, new in changes(life, folder):
            number -= new
            due = number <= 0 if writing else now > latest
            if due and life.joined() and life.goes_on():
                ended = life.kill()
                row.kills += 1
                row.writing += writing
                if command.processes > 1:
                    row.alone = max(row.alone or 0.0, ended)
                break
        else:
            life.end()
            row.runs += 1
            return
