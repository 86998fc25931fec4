"""The command line on a small experiment, from its config to its results."""

import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest

from orthoreg_jax.arithmetic.paths import flatten
from orthoreg_jax.evaluation.results import Results
from orthoreg_jax.storage import read_sealed
from orthoreg_jax.training.modes import MODES, ModeRow
from orthoreg_jax.training.modes.mode import only
from orthoreg_jax.trees import load_tree

from .small_run import orthoreg, pretrained, relative_difference, virtual_devices

PLUS = "+orthoreg"


@pytest.fixture
def results(finished) -> Results:
    return json.loads((finished / "results.json").read_text())


def test_run_folder_is_complete(finished, results):
    files = {str(path.relative_to(finished)) for path in finished.rglob("*") if path.is_file()}
    for method in ("full", "full+orthoreg"):
        for task in ("first", "second"):
            assert {
                f"{method}/seed3/{task}/{name}" for name in ("vector.safetensors", "metrics.jsonl")
            } <= files
    assert {"config.json", "provenance.json", "heads.safetensors", "report.html"} <= files
    assert not [name for name in files if "/state/" in name or "/." in name]
    assert results["config"] == json.loads((finished / "config.json").read_text())
    inputs = results["provenance"]["inputs"]
    assert inputs["model"]["model.safetensors"] == pretrained(finished).sha256
    assert inputs["tasks"]["first"]["splits"]["train"]["images"] == 40
    assert results["provenance"]["versions"]["jax"] == jax.__version__
    heads = load_tree(finished / "heads.safetensors")
    assert {name: len(head) for name, head in heads.items()} == {
        "first": 10, "second": 12, "others": 10,
    }  # fmt: skip


def test_results_agree_with_one_another(results):
    plain, penalised = results["runs"]
    assert (plain["strength"], penalised["strength"]) == (0.0, 10.0)
    for run in results["runs"]:
        addition = run["addition"]
        test = np.array(list(addition["test"].values()))
        single = np.array(list(run["single"]["test"].values()))
        assert np.isclose(addition["absolute"], test.mean())
        assert np.isclose(addition["normalised"], (test / single).mean())
        for task, values in run["negation"].items():
            # alpha = 0 is the pre-trained model, whatever the vector.
            assert values["target_val"][0] == results["zero_shot"]["val"][task]
            assert values["control_val"][0] == results["zero_shot"]["val"]["others"]
            # The run's numbers tell something: adding gains over the pre-trained model.
            assert values["control_val"][0] > 0 and addition["alpha"] > 0
            for share, choice in values["shares"].items():
                index = values["alphas"].index(choice["alpha"])
                assert values["control_val"][index] >= float(share) * values["control_val"][0]
        assert addition["val"]["first"][0] == results["zero_shot"]["val"]["first"]
        assert np.allclose(np.diag(run["geometry"]["cosines"]), 1)
        assert 0 < run["features"]["overlap"] < 1
        assert np.array(run["features"]["tau_jacobian"]).shape == (2, 2)
        (pair,) = run["disentanglement"]
        error = np.array(pair["error"])
        assert pair["tasks"] == ["first", "second"] and error.shape == (3, 3)
        assert error[1, 1] == 0 and 0 < error.max() <= 2
    # The penalty grows small updates (its gradient there is -2 / sqrt(n) dW).
    for task in ("first", "second"):
        assert penalised["geometry"]["norms"][task] > plain["geometry"]["norms"][task]


def test_every_mode_runs(inputs, tmp_path, monkeypatch):
    """And one of a user's own, of biases alone, which has no weight matrix to look at."""
    bitfit = ModeRow(lambda: only(("*/bias",), "BitFit"))
    monkeypatch.setitem(MODES, "bitfit", bitfit)
    methods = ["linearized" + PLUS, "attention", "lora" + PLUS, "bitfit"]
    options = ["--config.methods=" + ",".join(methods)]
    # Their functions have tests of their own; compiling them for every mode takes a minute.
    options += ["--config.evaluation.feature_images=0"]
    options += ["--config.training.steps=3", "--config.per_method.lora+orthoreg.strength=2"]
    assert orthoreg("run", inputs, tmp_path / "run", *options) == 0
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert [run["method"] for run in results["runs"]] == methods
    assert [run["strength"] for run in results["runs"]] == [10, 0, 2, 0]
    for run in results["runs"]:
        vector = load_tree(
            tmp_path / "run" / run["method"] / "seed3" / "first" / "vector.safetensors"
        )
        leaves = flatten(vector["visual"])
        whole = flatten(pretrained(tmp_path / "run").params["visual"])
        attention = {path for path in whole if "attn" in path and path.endswith("kernel")}
        biases = {path for path in whole if path.endswith("/bias")}
        trained = {"linearized" + PLUS: set(whole), "bitfit": biases}
        assert set(leaves) == trained.get(run["method"], attention)
        assert {path: leaf.shape for path, leaf in leaves.items()} == {
            path: whole[path].shape for path in leaves
        }


def test_metrics_hold_loss_and_penalty(finished):
    path = finished / "full+orthoreg" / "seed3" / "first" / "metrics.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["step"] for line in lines] == [0, 2, 4, 5]
    # At the first step nothing has changed: sqrt(min(m, n)) for each matrix.
    config = pretrained(finished).config
    width, tokens = config.visual.width, config.visual.tokens
    blocks = 4 * config.visual.layers * width**0.5
    expected = blocks + min(width, tokens) ** 0.5 + min(width, config.projection) ** 0.5
    assert np.isclose(lines[0]["penalty"], expected, rtol=1e-5)
    assert lines[-1]["loss"] < lines[0]["loss"]


def test_finished_stages_are_skipped(finished, inputs, capfd):
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("vector.safetensors")}
    assert orthoreg("run", inputs, finished) == 0
    after = {path: path.stat().st_mtime_ns for path in finished.rglob("vector.safetensors")}
    assert before == after
    captured = capfd.readouterr()
    assert "finetune" not in captured.err and "report.html" in captured.out


def test_each_stage_ends_with_what_it_wrote(finished, inputs, capfd):
    for stage, file in (("finetune", "METHOD/seedN/TASK/vector.safetensors"),
                        ("evaluate", "results.json")):  # fmt: skip
        assert orthoreg(stage, inputs, finished) == 0
        first, *more = capfd.readouterr().out.splitlines()
        assert first.endswith(f": {finished}/{file}")
        assert all(line.endswith(f"orthoreg report --workdir {finished}") for line in more)


def test_other_machines_are_added_to_the_provenance(finished, inputs, tmp_path):
    copy = shutil.copytree(finished, tmp_path / "copy")
    path = copy / "provenance.json"
    facts = json.loads(path.read_text())
    now, facts["versions"]["jax"] = dict(facts["versions"]), "0.0.1"
    path.write_text(json.dumps(facts))
    for _ in range(2):
        assert orthoreg("evaluate", inputs, copy) == 0
    facts = json.loads(path.read_text())
    assert facts["versions"]["jax"] == "0.0.1"
    assert [machine["versions"] for machine in facts["continued_with"]] == [now]


def test_a_longer_grid_needs_no_new_training(finished, inputs, tmp_path):
    copy = shutil.copytree(finished, tmp_path / "copy")
    vectors = {path: path.stat().st_mtime_ns for path in copy.rglob("vector.safetensors")}
    options = ["--config.evaluation.alphas=0,0.5,1,1.5", "--config.evaluation.feature_images=0"]
    options += ["--config.evaluation.alpha_search=grid"]
    for stage in ("finetune", "evaluate"):
        assert orthoreg(stage, inputs, copy, *options) == 0
    assert vectors == {path: path.stat().st_mtime_ns for path in copy.rglob("vector.safetensors")}
    results = json.loads((copy / "results.json").read_text())
    for run in results["runs"]:
        assert run["addition"]["alphas"] == run["negation"]["second"]["alphas"] == [0, 0.5, 1, 1.5]
        assert len(run["addition"]["val"]["first"]) == 4


def test_two_processes_share_out_the_evaluation(finished, inputs, tmp_path):
    """Each measures one of the two methods; together they write the results of one."""
    copy = shutil.copytree(finished, tmp_path / "copy")
    for path in [*copy.rglob("evaluation.json"), copy / "results.json"]:
        path.unlink()
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    command = [sys.executable, "-m", "orthoreg_jax.cli", "evaluate", "--config", str(inputs)]
    command += ["--workdir", str(copy), "--coordinator", f"127.0.0.1:{port}", "--processes", "2"]
    running = [
        subprocess.Popen([*command, "--process", str(number)], stderr=subprocess.PIPE, text=True)
        for number in range(2)
    ]
    said = [process.communicate(timeout=600)[1] for process in running]
    assert [process.returncode for process in running] == [0, 0], said
    # The first one shows its progress: it measured one method, and read the other's numbers.
    assert "evaluate full seed 3" in said[0] and "evaluate full+orthoreg" not in said[0]
    ours, theirs = (read_sealed(run / "results.json") for run in (copy, finished))
    assert {**ours, "provenance": None} == {**theirs, "provenance": None}


def test_tasks_of_slurm_train_together(finished, inputs, tmp_path):
    """Two processes of two devices each, which find each other by what srun tells them."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    slurm = {"JOB_ID": 7, "STEP_NODELIST": "127.0.0.1", "NTASKS": 2}
    command = [sys.executable, "-m", "orthoreg_jax.cli", "finetune", "--config", inputs]
    command += ["--workdir", tmp_path / "run", "--distributed", "--config.methods=full+orthoreg"]
    running = []
    for process in range(2):
        facts = slurm | {"PROCID": process, "LOCALID": process}
        environment = os.environ | {f"SLURM_{key}": str(value) for key, value in facts.items()}
        environment |= {"JAX_COORDINATOR_PORT": str(port)}
        environment |= virtual_devices(2)
        options = [*map(str, command), "--config.training.fsdp=2"]
        running.append(subprocess.Popen(options, env=environment))
    assert [process.wait(timeout=600) for process in running] == [0, 0]
    path = pathlib.Path("full+orthoreg", "seed3", "second", "vector.safetensors")
    assert relative_difference(tmp_path / "run" / path, finished / path) < 1e-4
    facts = json.loads((tmp_path / "run" / "provenance.json").read_text())
    assert len(facts["devices"]) == 4
