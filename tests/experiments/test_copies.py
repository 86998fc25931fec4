"""How the images are stored does not matter to a run."""

import json
import subprocess
import sys

import pytest

from orthoreg_jax import cli
from tests.small_run import orthoreg


@pytest.mark.parametrize("form", ["folder", "tfds"])
def test_copies_of_a_task_give_the_same_run(finished, inputs, tmp_path, form, capsys):
    copies, run = tmp_path / "copies", tmp_path / "run"
    command = ["experiments/embedded/copies.py", "--data", str(inputs.parent), "--form", form]
    options = ["--out", str(copies), "--control", "others"]
    subprocess.run([sys.executable, *command, *options], check=True)
    data = f"--config.data={copies}"
    assert cli.main(["data", "check", "--config", str(inputs), data]) == 0
    said = capsys.readouterr().out
    assert "first: Handwritten digits" in said and "train      40 images" in said
    for stage in ("finetune", "evaluate"):
        assert orthoreg(stage, inputs, run, "--config.methods=full", data) == 0
    for task in ("first", "second"):
        path = f"full/seed3/{task}/vector.safetensors"
        assert (run / path).read_bytes() == (finished / path).read_bytes()
    ours, theirs = (json.loads((folder / "results.json").read_text()) for folder in (run, finished))
    for key in ("zero_shot", "tasks", "control", "weight_angles"):
        assert ours[key] == theirs[key]
    assert ours["runs"] == theirs["runs"][:1]
