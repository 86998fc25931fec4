r"""Makes all measurements on an accelerator, unattended, in calls of a few minutes.

    python experiments/benchmarks/accelerator.py

The parts, most important first (`--parts` chooses some): peaks (large products), steps (of
fine-tuning), penalty (against its matrix products), torch (steps in PyTorch, if installed),
numerics (results compared with the CPU's), regime (missing trials of experiments/regime), suite
(the embedded suite end to end), sweeps (over alpha), mergers, pretraining (of a larger base).

A call ends after `--minutes`, and the next call continues: results in
experiments/results/accelerator_NAME, where NAME is the device's, are not measured again (except
with `--again`). Each part runs in its own process, which has the device to itself. If a cell takes
too long, fails or ends its process, only that cell is lost; the page names it, and the next call
tries it again. The page and its .json are rewritten after every cell.

With `--results FOLDER` all files go there. Where a machine gives back one folder, a later call goes
on from a copy: `cp experiments/results/accelerator_* FOLDER`. Beside JAX, flax, optax, orbax,
transformers, numpy, pillow, matplotlib and tqdm it takes a few packages of 7 MB: `make wheels`
fetches them into build/wheels, and there `pip install --no-index --no-deps --target build/site
build/wheels/*` with build/site on PYTHONPATH is enough. Parts whose packages are missing say so,
and the others run. Pre-training needs build/embedded, too: parts/pretraining.py says what of it.

`--page` only makes the page from the .json, without measuring. `--dry` tests everything at a tiny
size on any machine, and writes to build/.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import math
import os
import pathlib
import re
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from typing import Any

# For child processes; read when JAX first asks for a device.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.92")
if os.environ.get("JAX_PLATFORMS", "cpu").find("cpu") < 0:
    os.environ["JAX_PLATFORMS"] += ",cpu"  # numerics are compared with the CPU's

from accelerator_page import page
from measuring import RESULTS
from parts import PARTS, Cell, Row, machine
from parts.part import give_seconds
from supervising import Child, Ended, TimeIsOver

from orthoreg_jax.storage import read_json, write_json, write_text

MINUTES = 9.0
PREPARATION = 150.0  # seconds to compile cells together
ALONE = (sys.executable, __file__, "--alone")
QUICK_TO_COMPILE = "--xla_backend_optimization_level=0"


class Record:
    """The measurements so far, written to disk after every cell."""

    def __init__(self, folder: pathlib.Path, name: str | None, again: bool) -> None:
        """Defers reading until the device is known."""
        self._folder, self._name, self._again = folder, name, again
        self._parts: dict[str, Any] | None = None

    def begin(self, part: str, facts: dict[str, Any], cells: list[Cell]) -> list[Cell]:
        """The cells to measure: new ones first, then those that failed.

        Rows from the same device and versions stay, unless `again`.
        """
        self._name = self._name or re.sub(r"\W+", "_", facts["device"])
        path = self._folder / f"accelerator_{self._name}.json"
        if self._parts is None:
            self._parts = read_json(path)["parts"] if path.is_file() else {}
        before = self._parts.get(part)
        kept = before["rows"] if before and before["machine"] == facts and not self._again else []
        good = [row for row in kept if "error" not in row]
        left = [cell for cell in cells if not any(cell.items() <= row.items() for row in good)]
        failed = [row for row in kept if "error" in row]
        left.sort(key=lambda cell: any(cell.items() <= row.items() for row in failed))
        if left or not before or before["rows"] != good:
            command = " ".join(["python", "experiments/benchmarks/accelerator.py", *sys.argv[1:]])
            self._parts[part] = {"machine": facts, "command": command, "rows": good, "left": left}
            self._write()
        return left

    def add(self, part: str, rows: list[Row], left: list[Cell]) -> None:
        """Adds rows of a part, and records the remaining cells."""
        assert self._parts is not None
        self._parts[part]["rows"] += rows
        self._parts[part]["left"] = left
        self._write()

    def _write(self) -> None:
        assert self._parts is not None
        path = self._folder / f"accelerator_{self._name}.json"
        write_json(path, {"parts": self._parts})
        write_text(path.with_suffix(".md"), page(self._name or "", self._parts))


class Measurement:
    """Measures parts, one after another, in processes that may fail."""

    def __init__(self, record: Record, shared: bool, command: Sequence[str] = ALONE) -> None:
        """Defers starting a process to the first part.

        Args:
          record: where rows go.
          shared: whether all parts share one process, as long as it lives.
          command: the command of a process that runs `measure_alone`.
        """
        self._record, self._shared, self._command = record, shared, command
        self._child: Child | None = None

    def part(self, name: str, cells: list[Cell], deadline: float, limit: float) -> bool:
        """Measures a part's cells while there is time; returns whether its process ran at all."""
        if not cells:
            print(f"{name}: not to be measured here", file=sys.stderr, flush=True)
            return True
        left: list[Cell] | None = None
        together = PARTS[name].together
        while left is None or left:
            if time.monotonic() >= deadline:
                return left is not None
            self._child = self._child or Child(self._command)
            # The cells being measured; if the process ends, the first of them is lost.
            current: list[Cell] = []
            try:
                self._child.send(name)
                facts = self._child.receive(deadline)
                left = self._record.begin(name, facts, cells) if left is None else left
                self._child.send([left, deadline - time.monotonic(), limit, together])
                end = deadline
                while (message := self._child.receive(end)) != "over":
                    if "begin" in message:
                        current = message["begin"]
                        own = limit if len(current) == 1 else PREPARATION
                        end = min(deadline, time.monotonic() + own)
                    else:
                        left = left[1:]
                        self._record.add(name, message["rows"], left)
                        current, end = [], deadline
            except (Ended, TimeIsOver) as error:
                code = self.end()
                if time.monotonic() >= deadline:
                    return left is not None
                if not current:
                    print(f"{name}: its process ended ({code})", file=sys.stderr, flush=True)
                    return False
                if len(current) > 1:
                    together = 1  # one of them is at fault; running one at a time finds it
                    continue
                assert left is not None
                left = [cell for cell in left if cell != current[0]]
                self._record.add(name, [current[0] | {"error": f"{error} ({code})"}], left)
            else:
                if not self._shared:
                    self.end()
        return True

    def end(self) -> int:
        """Ends the process, if there is one."""
        child, self._child = self._child, None
        return child.end() if child else 0


def measure_alone() -> None:
    """Runs in a `Child`; everything except its messages goes to the error stream."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def say(message: Any) -> None:
        print(json.dumps(message), file=answers, flush=True)

    for line in sys.stdin:
        name = json.loads(line)
        say(machine(name))
        cells, seconds, limit, together = json.loads(sys.stdin.readline())
        end = time.monotonic() + seconds
        for start in range(0, len(cells), together):
            measure_group(name, cells[start : start + together], end, limit, say)
        say("over")


def measure_group(name: str, cells: list[Cell], end: float, limit: float, say: Any) -> None:
    """Prepares cells in parallel, and measures them one after another."""
    part = PARTS[name]
    if len(cells) > 1:
        say({"begin": cells})
    with concurrent.futures.ThreadPoolExecutor(len(cells)) as pool:
        prepared = [pool.submit(part.prepare, cell) for cell in cells]
        concurrent.futures.wait(prepared)
    for cell in cells:
        say({"begin": [cell]})
        give_seconds(min(limit, end - time.monotonic()))
        try:
            made = prepared.pop(0).result()
            began = time.perf_counter()
            rows = part.measure(cell, made)
            wall = time.perf_counter() - began
            rows = [cell | row | {"cell_seconds": wall} for row in rows]
            json.dumps(rows, allow_nan=False)  # as they will be written
        except Exception as error:  # from any library: only this cell is lost
            traceback.print_exc()
            rows = [cell | {"error": f"{type(error).__name__}: {error}"[:300]}]
        say({"rows": rows})


def main() -> None:
    """Measures everything and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=list(PARTS))
    parser.add_argument("--minutes", type=float, default=MINUTES, help="of this call; default: 9")
    parser.add_argument("--again", action="store_true", help="also what was measured before")
    parser.add_argument("--dry", action="store_true", help="a tiny size, anywhere")
    parser.add_argument("--page", action="store_true", help="of what was measured, by --name")
    parser.add_argument("--name", help="in the files' names; default: the device's")
    parser.add_argument("--results", type=pathlib.Path, help="folder; default: experiments/results")
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.alone:
        measure_alone()
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
    os.environ["ACCELERATOR_RESULTS"] = str(folder.resolve())
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that child processes end, too
    if options.dry:  # only compilation takes time, and a busy machine needs more of it
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {QUICK_TO_COMPILE}"
    record = Record(folder, name, options.again)
    ran = measure(options.parts, options.minutes, options.dry, Measurement(record, options.dry))
    sys.exit(not ran)


def measure(wanted: list[str], minutes: float, dry: bool, measurement: Measurement) -> bool:
    """Measures the wanted parts while there is time; returns whether every process ran."""
    began, ran = time.monotonic(), True
    end = math.inf if dry else began + 60 * minutes
    deadline, names = began, [name for name in PARTS if name in wanted]
    try:
        for name in names:
            part, start = PARTS[name], time.monotonic()
            # Time left over by a part goes to the following ones, and all of it to the last.
            deadline = end if dry or name == names[-1] else min(end, deadline + part.seconds)
            if start >= end:
                print(f"{name}: no time was left for it", file=sys.stderr, flush=True)
                continue
            ran &= measurement.part(name, part.cells(dry), deadline, 600 if dry else part.limit)
            print(f"{name}: {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)
    finally:
        measurement.end()
    return ran


if __name__ == "__main__":
    main()
