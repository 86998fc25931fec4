r"""All that is to be measured on an accelerator, unattended and in a few minutes.

    python experiments/benchmarks/accelerator.py

Parts (`--parts` chooses some): peaks (large products, always measured), numerics (what the device
computes against its CPU), steps (of fine-tuning), torch (the same in PyTorch, where it is), penalty
(against its matrix products), sweeps (over alpha), mergers. Each runs in a process of its own,
which has the device to itself. A cell of a part that takes too long or ends its process costs that
cell alone. When the time of a part is over, the cells that are left are named on the page.

Writes experiments/results/accelerator_NAME.md and .json, NAME being the device's, anew after each
cell; parts that an earlier call measured on such a device stay. `--page` makes the page of what is
in the .json, and measures nothing. `--dry` proves all of it at a tiny
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

MINUTES = sum(part.seconds for part in PARTS.values()) / 60
QUICK_TO_COMPILE = "--xla_backend_optimization_level=0"


class Record:
    """What was measured so far; on disk after every row."""

    def __init__(self, folder: pathlib.Path, name: str | None, options: list[str]) -> None:
        """Reads nothing before the device is known."""
        self._folder, self._name, self._options = folder, name, options
        self._parts: dict[str, Any] | None = None
        self._begun: set[str] = set()

    def begin(self, part: str, facts: dict[str, Any]) -> None:
        """Rows of an earlier call are dropped as soon as the device answers."""
        if part in self._begun:
            return
        self._begun.add(part)
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
            pass  # it has ended already, as `message` says

    def _read(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            self._messages.put(json.loads(line))
        self._messages.put(None)

    def message(self, end: float) -> Any:
        """What it says next; None if it has ended.

        Raises:
          queue.Empty: nothing until `end`.
        """
        return self._messages.get(timeout=max(0.0, end - time.monotonic()))

    def end(self) -> int:
        """Ends it, if it has not."""
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        return self._process.wait()


def measure_part(
    name: str, cells: list[Cell], deadline: float, limit: float, record: Record
) -> bool:
    """All cells of a part, or as many as there is time for; whether its process ran at all."""
    left = list(cells)
    if left and time.monotonic() >= deadline:
        print(f"{name}: no time was left for it", file=sys.stderr, flush=True)
        return False
    while left and time.monotonic() < deadline:
        child, before = Child(name, left), len(left)
        try:
            left = follow(child, name, left, deadline, limit, record)
        finally:
            child.end()
        if len(left) == before:
            print(f"{name}: its process measured nothing", file=sys.stderr, flush=True)
            return False
    return True


def follow(
    child: Child, name: str, cells: list[Cell], deadline: float, limit: float, record: Record
) -> list[Cell]:
    """Records what a process measures; the cells that it leaves to another one."""
    left, current, end = list(cells), None, deadline
    while left or current:
        try:
            message = child.message(end)
        except queue.Empty:
            over = time.monotonic() >= deadline
            reason = "the time of this part was over" if over else f"more than {limit:.0f} s"
            message = None
        else:
            reason = "its process ended"
        if message is None:
            code = child.end()
            if current is not None:
                record.add(name, [current | {"error": f"{reason} ({code})"}], left)
            elif left != cells:
                record.add(name, [], left)
            return left
        if "machine" in message:
            record.begin(name, message["machine"])
        elif "begin" in message:
            current, end = message["begin"], min(deadline, time.monotonic() + limit)
            left = left[1:]
        else:
            record.add(name, message["rows"], left)
            current, end = None, deadline
    return left


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
            try:
                part.prepare(cell)
            finally:
                say({"begin": cell})
            began = time.perf_counter()
            rows = part.measure(cell)
            wall = time.perf_counter() - began
            rows = [row | {"cell_seconds": wall} for row in rows]
            json.dumps(rows, allow_nan=False)  # as they will be written
        except Exception as error:  # of any library: this cell is lost, not those that follow
            traceback.print_exc()
            rows = [cell | {"error": f"{type(error).__name__}: {error}"[:300]}]
        say({"rows": rows})


def main() -> None:
    """Measures and writes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=list(PARTS))
    parser.add_argument("--minutes", type=float, help=f"for all parts; default: {MINUTES:.1f}")
    parser.add_argument("--dry", action="store_true", help="a tiny size, anywhere")
    parser.add_argument("--page", action="store_true", help="of what was measured, by --name")
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
    if options.page:
        if not name:
            parser.error("--page needs --name, as in accelerator_NAME.json")
        parts = read_json(folder / f"accelerator_{name}.json")["parts"]
        write_text(folder / f"accelerator_{name}.md", page(name, parts))
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # the processes end with this one
    if options.dry:  # compiling is all that takes time
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {QUICK_TO_COMPILE}"
    # A dry run is to come to its end on a busy machine, too.
    slack = options.minutes / MINUTES if options.minutes else 10.0 if options.dry else 1.0
    record, deadline, ran = Record(folder, name, sys.argv[1:]), time.monotonic(), True
    for part in PARTS:
        if part not in options.parts and part != "peaks":
            continue
        began = time.monotonic()
        # What a part leaves of its time goes to those that follow.
        deadline += PARTS[part].seconds * slack
        limit = PARTS[part].limit * max(1.0, slack)
        ran &= measure_part(part, PARTS[part].cells(options.dry), deadline, limit, record)
        print(f"{part}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    sys.exit(not ran)


if __name__ == "__main__":
    main()
