r"""All that is to be measured on an accelerator, unattended and in a few minutes.

    python experiments/benchmarks/accelerator.py --minutes 8

Parts (`--parts` chooses some): peaks (large products, always measured), numerics (what the device
computes against its CPU), steps (of fine-tuning), torch (the same in PyTorch, where it is), penalty
(against its matrix products), sweeps (over alpha), mergers. Each runs in a process of its own,
which has the device to itself. A cell of a part that takes too long or ends its process costs that
cell alone. When the time of a part is over, the cells that are left are named on the page.

Writes experiments/results/accelerator_NAME.md and .json, NAME being the device's, anew after each
cell; parts that an earlier call measured on such a device stay. `--dry` proves all of it at a tiny
size on any machine, and writes to build/.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import queue
import re
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any

# For the processes that are started; read when JAX first asks for a device.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.92")
if os.environ.get("JAX_PLATFORMS", "cpu").find("cpu") < 0:
    os.environ["JAX_PLATFORMS"] += ",cpu"  # numerics are compared with the CPU's

from accelerator_page import page
from accelerator_parts import PARTS, Cell, Row, machine
from measuring import RESULTS

from orthoreg_jax.storage import read_json, write_json, write_text

MINUTES = 8.5  # what the seconds of all parts add up to


class Record:
    """What was measured so far; on disk after every row."""

    def __init__(self, folder: pathlib.Path, name: str | None, options: list[str]) -> None:
        """Reads nothing before the device is known."""
        self._folder, self._name, self._options = folder, name, options
        self._parts: dict[str, Any] | None = None

    def begin(self, part: str, facts: dict[str, Any]) -> None:
        """The part's earlier rows are dropped as soon as the device answers."""
        self._name = self._name or re.sub(r"\W+", "_", facts["device"])
        path = self._folder / f"accelerator_{self._name}.json"
        if self._parts is None:
            self._parts = read_json(path)["parts"] if path.is_file() else {}
        command = " ".join(["python", "experiments/benchmarks/accelerator.py", *self._options])
        self._parts[part] = {"machine": facts, "command": command, "rows": [], "left": []}

    def add(self, part: str, rows: list[Row], left: list[Cell]) -> None:
        """Rows of a part, and the cells that are still to come."""
        assert self._parts is not None
        self._parts[part]["rows"] += rows
        self._parts[part]["left"] = left
        path = self._folder / f"accelerator_{self._name}.json"
        write_json(path, {"parts": self._parts})
        write_text(path.with_suffix(".md"), page(self._name or "", self._parts))


class Child:
    """A process that measures cells of one part, one after the other."""

    def __init__(self, part: str, cells: list[Cell]) -> None:
        """Starts it."""
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--alone", part],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # what it starts itself is to end with it
        )
        self._messages: queue.Queue[Any] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        assert self._process.stdin
        try:
            self._process.stdin.write(json.dumps(cells))
            self._process.stdin.close()
        except BrokenPipeError:
            pass  # it has ended already, as `messages` says

    def _read(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            self._messages.put(json.loads(line))
        self._messages.put(None)

    def messages(self, until: Callable[[], float]) -> Iterator[Any]:
        """What it says; None at its end, and a TimeoutError when the time is over."""
        while True:
            try:
                yield self._messages.get(timeout=max(0.0, until() - time.monotonic()))
            except queue.Empty:
                raise TimeoutError from None

    def end(self) -> int:
        """Ends it, if it has not."""
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        return self._process.wait()


def measure_part(name: str, cells: list[Cell], deadline: float, record: Record) -> None:
    """All cells of a part, or as many as there is time for."""
    part, left, facts = PARTS[name], list(cells), None
    while left and time.monotonic() < deadline:
        child, current, end, count = Child(name, left), None, deadline, len(left)
        try:
            # The first message ahead of any cell; then "begin" and "rows" in turn.
            for message in child.messages(lambda: end):
                if message is None:
                    # Of its own accord it ends when all is measured.
                    raise ChildProcessError
                if "machine" in message and facts is None:
                    facts = message["machine"]
                    record.begin(name, facts)
                elif "begin" in message:
                    current, left = left[0], left[1:]
                    end = min(deadline, time.monotonic() + part.limit)
                elif "rows" in message:
                    record.add(name, message["rows"], left)
                    current, end = None, deadline
                    if not left:
                        break
        except (TimeoutError, ChildProcessError) as error:
            code = child.end()
            if facts is None or (current is None and len(left) == count):
                print(f"{name}: the process ended with {code} ahead of any cell", file=sys.stderr)
                break
            if current is not None:
                over = isinstance(error, TimeoutError)
                reason = f"its process ended with {code}"
                if over and time.monotonic() >= deadline:
                    reason = "cut off: the time for this part was over"
                elif over:
                    reason = f"more than {part.limit:.0f} s"
                record.add(name, [current | {"error": reason}], left)
        finally:
            child.end()
    if facts is not None:
        record.add(name, [], left)


def measure_alone(name: str) -> None:
    """What a `Child` does; anything but its messages goes to the error stream."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def say(message: Any) -> None:
        print(json.dumps(message), file=answers, flush=True)

    cells, part = json.load(sys.stdin), PARTS[name]
    say({"machine": machine(name)})
    for cell in cells:
        try:
            part.prepare(cell)
            say({"begin": cell})
            began = time.perf_counter()
            rows = part.measure(cell)
            wall = time.perf_counter() - began
            rows = [row | {"cell_seconds": wall} for row in rows]
        except Exception as error:  # of any library: this cell is lost, not those that follow
            traceback.print_exc()
            rows = [cell | {"error": f"{type(error).__name__}: {error}"[:300]}]
        say({"rows": rows})


def main() -> None:
    """Measures and writes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=list(PARTS))
    parser.add_argument("--minutes", type=float, default=MINUTES, help="that all parts may take")
    parser.add_argument("--dry", action="store_true", help="a tiny size, anywhere")
    parser.add_argument("--name", help="in the files' names; default: the device's")
    parser.add_argument("--results", type=pathlib.Path, help="folder; default: experiments/results")
    parser.add_argument("--alone", choices=list(PARTS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.alone:
        measure_alone(options.alone)
        return
    folder = options.results or (pathlib.Path("build") if options.dry else RESULTS)
    folder.mkdir(parents=True, exist_ok=True)
    name = options.name or ("dry" if options.dry else None)
    record, deadline = Record(folder, name, sys.argv[1:]), time.monotonic()
    for part in PARTS:
        if part not in options.parts and part != "peaks":
            continue
        began = time.monotonic()
        # What a part leaves of its time goes to those that follow.
        deadline += PARTS[part].seconds * options.minutes / MINUTES
        measure_part(part, PARTS[part].cells(options.dry), deadline, record)
        print(f"{part}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
