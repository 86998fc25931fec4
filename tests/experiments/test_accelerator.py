"""The measurement of an accelerator: dry, and where its processes fail."""

import json
import os
import pathlib
import subprocess
import sys
import time

FOLDER = pathlib.Path(__file__).parents[2] / "experiments" / "benchmarks"
# What a process of the measurement does, with cells that end it, hang and fail.
PROCESS = """
import json, os, sys, time

def say(message):
    print(json.dumps(message), flush=True)

for line in sys.stdin:
    say({"device": "none", "starts": 1})
    cells, seconds, limit, together = json.loads(sys.stdin.readline())
    if together > 1 and len(cells) > 1:
        say({"begin": cells})
        os._exit(7)  # as if cells could not be prepared side by side
    for cell in cells:
        say({"begin": [cell]})
        if cell["setting"] == "ends":
            os._exit(3)
        if cell["setting"] == "hangs":
            time.sleep(60)
        if cell["setting"] == "fails":
            say({"rows": [cell | {"error": "ValueError: of this cell"}]})
        else:
            say({"rows": [cell | {"side": 8, "tflops": 2.0, "copied": 3.0}]})
    say("over")
"""


def measured(folder, *options):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, str(FOLDER / "accelerator.py"), "--dry", "--results", str(folder)]
    subprocess.run([*command, *options], env=environment, check=True)
    found = json.loads((folder / "accelerator_dry.json").read_text())["parts"]
    return found, (folder / "accelerator_dry.md").read_text()


def test_parts_leave_rows_without_an_error_and_the_next_call_goes_on(tmp_path):
    # The others are proved by `--dry` as well, which takes minutes on a CPU.
    parts, page = measured(tmp_path, "--parts", "peaks", "steps", "penalty", "sweeps", "mergers")
    assert set(parts) == {"peaks", "steps", "penalty", "sweeps", "mergers"}
    for part in parts.values():
        assert part["rows"] and not part["left"]
        assert not [row for row in part["rows"] if "error" in row]
    assert "A dry run" in page
    assert "## What it computes, against the CPU\n\nNot measured yet." in page

    again, _ = measured(tmp_path, "--parts", "peaks")
    assert again == parts  # nothing was left to measure
    again, _ = measured(tmp_path, "--parts", "peaks", "--again")
    assert again["peaks"]["rows"] != parts["peaks"]["rows"]
    assert {**again, "peaks": None} == {**parts, "peaks": None}


def test_a_cell_that_fails_costs_itself_alone_and_is_tried_again(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    import accelerator

    monkeypatch.setitem(accelerator.PARTS, "peaks", accelerator.PARTS["peaks"]._replace(together=4))
    cells = [{"setting": name} for name in ("good", "ends", "hangs", "fails", "better")]

    def measure(*names):
        record = accelerator.Record(tmp_path, "none", again=False)
        command = (sys.executable, "-c", PROCESS)
        measurement = accelerator.Measurement(record, shared=False, command=command)
        chosen = [cell for cell in cells if cell["setting"] in names]
        assert measurement.part("peaks", chosen, time.monotonic() + 30, limit=1.0)
        part = json.loads((tmp_path / "accelerator_none.json").read_text())["parts"]["peaks"]
        assert not part["left"]
        return {row["setting"]: row.get("error", "") for row in part["rows"]}

    names = [cell["setting"] for cell in cells]
    errors = measure(*names)
    assert list(errors) == names
    assert errors["good"] == errors["better"] == ""
    assert errors["ends"] == "its process ended (3)"
    assert errors["hangs"] == "more than 1 s (-9)"
    assert errors["fails"] == "ValueError: of this cell"
    page = (tmp_path / "accelerator_none.md").read_text()
    assert "- ends: `its process ended (3)`" in page
    assert page.count("Not measured yet.") == len(accelerator.PARTS) - 1

    # What was measured stays, and what failed comes after what is new.
    cells.append({"setting": "new"})
    assert list(measure(*names, "new")) == ["good", "better", "new", "ends", "hangs", "fails"]


def test_cells_without_time_are_counted_as_left(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    import accelerator

    record = accelerator.Record(tmp_path, "none", again=False)
    measurement = accelerator.Measurement(record, False, (sys.executable, "-c", PROCESS))
    cells = [{"setting": name} for name in ("good", "hangs", "never")]
    assert measurement.part("peaks", cells, time.monotonic() + 1.5, limit=60.0)
    part = json.loads((tmp_path / "accelerator_none.json").read_text())["parts"]["peaks"]
    assert [row["setting"] for row in part["rows"]] == ["good"]
    assert part["left"] == cells[1:]
    page = (tmp_path / "accelerator_none.md").read_text()
    assert "Not measured yet: 2 cells, for want of time." in page
