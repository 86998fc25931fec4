"""The measurement of an accelerator, dry: it comes to its end and leaves its page."""

import json
import os
import pathlib
import subprocess
import sys

SCRIPT = pathlib.Path(__file__).parents[2] / "experiments" / "benchmarks" / "accelerator.py"


def measured(folder, *options):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, str(SCRIPT), "--dry", "--results", str(folder), *options]
    subprocess.run(command, env=environment, check=True)
    found = json.loads((folder / "accelerator_dry.json").read_text())["parts"]
    return found, (folder / "accelerator_dry.md").read_text()


def test_every_part_leaves_rows_without_an_error(tmp_path):
    parts, page = measured(tmp_path)
    assert {"peaks", "numerics", "steps", "penalty", "sweeps", "mergers"} <= set(parts)
    for part in parts.values():
        assert part["rows"] and not part["left"]
        assert not [row for row in part["rows"] if "error" in row]
    # Here the device is the CPU itself, so that every number is the same.
    assert "**PASS**: 23 of 23" in page
    assert "A dry run" in page

    again, page = measured(tmp_path, "--parts", "peaks")
    assert again["peaks"] != parts["peaks"]
    assert {**again, "peaks": None} == {**parts, "peaks": None}  # what it did not measure stays
    assert "The penalty against its products" in page
