"""The command line on a small real experiment: the embedded model on tasks of a few images."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys

import jax
import numpy as np
import pytest

from orthoreg_jax import cli
from orthoreg_jax.arithmetic.paths import flatten
from orthoreg_jax.clip.checkpoint import load_checkpoint
from orthoreg_jax.evaluation.results import Results
from orthoreg_jax.storage import load_tree

PLUS = "+orthoreg"
CONFIG = """
from orthoreg_jax.config import default_config

def get_config():
    config = default_config()
    config.data = "DATA"
    config.tasks = ("first", "second")
    config.control = "others"
    config.seeds = (3,)
    config.training.steps = 6
    config.training.warmup_steps = 1
    config.training.batch_size = 8
    config.training.learning_rate = 1e-3
    config.training.log_every = 2
    config.evaluation.batch_size = 16
    config.evaluation.alphas = (0.0, 0.5, 1.0)
    config.evaluation.disentanglement_tasks = ("first", "second")
    config.evaluation.disentanglement_alphas = (-1.0, 0.0, 1.0)
    config.evaluation.feature_images = 8
    return config
"""


def write_tasks(folder):
    """Three small tasks cut out of the embedded ones."""
    source = pathlib.Path(cli.__file__).parent / "embedded" / "tasks"
    table = json.loads((source / "tasks.json").read_text())["tasks"]
    small = {}
    for name, origin in {"first": "mnist", "second": "vehicles", "others": "concepts"}.items():
        with np.load(source / f"{origin}.npz") as archive:
            rows = {"train": 40, "val": 20, "test": 30}
            arrays = {key: archive[key][: rows[key.split("_")[0]]] for key in archive.files}
        np.savez(folder / f"{name}.npz", **arrays)
        small[name] = {key: table[origin][key] for key in ("title", "classes", "templates")}
    (folder / "tasks.json").write_text(json.dumps({"tasks": small}))


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """A config file and its data."""
    folder = tmp_path_factory.mktemp("inputs")
    write_tasks(folder)
    config = folder / "small.py"
    config.write_text(CONFIG.replace("DATA", str(folder)))
    return config


def orthoreg(command, config, workdir, *more):
    options = [] if config is None else ["--config", str(config)]
    return cli.main([command, *options, "--workdir", str(workdir), *more])


@pytest.fixture(scope="module")
def finished(inputs, tmp_path_factory):
    """A whole run."""
    workdir = tmp_path_factory.mktemp("runs") / "small"
    assert orthoreg("run", inputs, workdir) == 0
    return workdir


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
    assert inputs["model"]["model.safetensors"] == load_checkpoint("embedded").sha256
    assert inputs["tasks"]["first"]["splits"]["train"]["images"] == 40
    assert results["provenance"]["versions"]["jax"] == jax.__version__
    heads = load_tree(finished / "heads.safetensors")
    assert {name: len(head) for name, head in heads.items()} == {
        "first": 10, "second": 12, "others": 100,
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
            for share, choice in values["shares"].items():
                index = results["alphas"].index(choice["alpha"])
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


def test_every_mode_runs_with_and_without_the_penalty(inputs, tmp_path):
    methods = [mode + plus for mode in ("linearized", "attention", "lora") for plus in ("", PLUS)]
    options = ["--config.methods=" + ",".join(methods)]
    # Their functions have tests of their own; compiling them for every mode takes a minute.
    options += ["--config.evaluation.feature_images=0"]
    options += ["--config.training.steps=3", "--config.per_method.lora+orthoreg.strength=2"]
    assert orthoreg("run", inputs, tmp_path / "run", *options) == 0
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert [run["method"] for run in results["runs"]] == methods
    assert [run["strength"] for run in results["runs"]] == [0, 10, 0, 10, 0, 2]
    for run in results["runs"]:
        vector = load_tree(
            tmp_path / "run" / run["method"] / "seed3" / "first" / "vector.safetensors"
        )
        leaves = flatten(vector["visual"])
        whole = flatten(load_checkpoint("embedded").params["visual"])
        attention = {path for path in whole if "attn" in path and path.endswith("kernel")}
        assert set(leaves) == (set(whole) if "linearized" in run["method"] else attention)
        assert {path: leaf.shape for path, leaf in leaves.items()} == {
            path: whole[path].shape for path in leaves
        }


def test_metrics_hold_loss_and_penalty(finished):
    path = finished / "full+orthoreg" / "seed3" / "first" / "metrics.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["step"] for line in lines] == [0, 2, 4, 5]
    # At the first step nothing has changed: sqrt(min(m, n)) for each of the 18 matrices.
    config = load_checkpoint("embedded").config
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


def test_same_seed_same_bits_and_resume_is_exact(finished, inputs, tmp_path, monkeypatch):
    """A run cut off at step 4 of its second task, gone on with, ends bit for bit the same."""
    from orthoreg_jax.training import checkpoints

    original = checkpoints.StateFolder.save
    saves = []

    def save_and_die(self, state):
        original(self, state)
        saves.append(int(state.step))
        if saves == [4, 4]:
            raise KeyboardInterrupt

    options = ["--config.training.checkpoint_every=4", "--config.methods=full+orthoreg"]
    monkeypatch.setattr(checkpoints.StateFolder, "save", save_and_die)
    assert orthoreg("finetune", inputs, tmp_path / "run", *options) == 130
    folder = tmp_path / "run" / "full+orthoreg" / "seed3"
    assert (folder / "first" / "vector.safetensors").is_file()
    assert not (folder / "second" / "vector.safetensors").exists()
    assert (folder / "second" / "state").is_dir()
    monkeypatch.undo()
    assert orthoreg("finetune", inputs, tmp_path / "run", *options) == 0
    for task in ("first", "second"):
        path = pathlib.Path("full+orthoreg") / "seed3" / task
        ours = load_tree(tmp_path / "run" / path / "vector.safetensors")
        theirs = load_tree(finished / path / "vector.safetensors")
        for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
            np.testing.assert_array_equal(a, b)
        metrics = (tmp_path / "run" / path / "metrics.jsonl").read_text()
        assert metrics == (finished / path / "metrics.jsonl").read_text()
    assert not list((tmp_path / "run").rglob("state"))


def test_sigterm_saves_and_the_same_command_goes_on(finished, inputs, tmp_path, monkeypatch, capfd):
    from orthoreg_jax.training import finetune

    original = finetune._MetricsLog.add

    def add_and_stop(self, number, metrics):
        original(self, number, metrics)
        if number == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    options = ["--config.training.checkpoint_every=100", "--config.methods=full"]
    monkeypatch.setattr(finetune._MetricsLog, "add", add_and_stop)
    assert orthoreg("finetune", inputs, tmp_path / "run", *options) == 143
    assert "first: stopped after 3 updates, saved; the same command" in capfd.readouterr().err
    monkeypatch.undo()
    assert orthoreg("finetune", inputs, tmp_path / "run", *options) == 0
    path = pathlib.Path("full") / "seed3" / "first" / "vector.safetensors"
    assert (tmp_path / "run" / path).read_bytes() == (finished / path).read_bytes()


# What can be wrong


def fails(capfd, command, config, workdir, *more):
    """Runs a command that must fail before work starts; returns its message."""
    existed = workdir.exists()
    assert orthoreg(command, config, workdir, *more) == 1
    lines = capfd.readouterr().err.splitlines()
    if lines[0].startswith("model "):  # what was about to run
        lines = lines[1:]
    assert lines[0].startswith("orthoreg: ") and "Traceback" not in "".join(lines)
    assert workdir.exists() == existed
    return "\n".join(lines)


@pytest.mark.parametrize(
    "option, message",
    [
        ("--config.trainig.steps=3", "did you mean training.steps?"),
        ("--config.training.steps=0", "training.steps is 0, allowed: a whole number from 1 up"),
        ("--config.tasks=first,second,third", "task 'third': is not in"),
        ("--config.training.epochs=-1", "first, second are none of the field's tasks"),
        ("--config.training.epochs=0.1", "some tasks have no more steps in all (first: 1"),
        ("--config.model=nowhere", "model 'nowhere': no such directory; allowed: 'embedded'"),
        ("--config.data=nowhere", "data 'nowhere'"),
    ],
)
def test_bad_options(inputs, tmp_path, capfd, option, message):
    assert message in fails(capfd, "run", inputs, tmp_path / "run", option)


def test_missing_config_file(tmp_path, capfd):
    assert "no such Python file" in fails(capfd, "run", tmp_path / "none.py", tmp_path / "run")


@pytest.mark.parametrize("spoil", ["truncated", "other model"])
def test_bad_model(inputs, tmp_path, capfd, spoil):
    model = shutil.copytree(load_checkpoint("embedded").directory, tmp_path / "model")
    if spoil == "truncated":
        data = (model / "model.safetensors").read_bytes()
        (model / "model.safetensors").write_bytes(data[:-100])
        expected = "not a whole safetensors file"
    else:
        (model / "config.json").write_text('{"model_type": "vit"}')
        expected = "describes a model of type 'vit'"
    option = f"--config.model={model}"
    assert expected in fails(capfd, "run", inputs, tmp_path / "run", option)


def test_run_folder_of_another_config(finished, inputs, capfd):
    message = fails(capfd, "run", inputs, finished, "--config.training.steps=7")
    assert "training.steps was 6, is 7" in message and "choose another folder" in message


def test_run_folder_of_other_data(finished, inputs, tmp_path, capfd):
    copy = shutil.copytree(finished, tmp_path / "copy")
    path = copy / "provenance.json"
    path.write_text(path.read_text().replace('"images": 40', '"images": 41'))
    assert "(tasks first, tasks second: their hashes differ)" in fails(capfd, "run", inputs, copy)


@pytest.mark.parametrize("name, text", [("config.json", "[]"), ("provenance.json", "{}")])
def test_damaged_run_folder(finished, inputs, tmp_path, capfd, name, text):
    copy = shutil.copytree(finished, tmp_path / "copy")
    (copy / name).write_text(text)
    assert name in fails(capfd, "run", inputs, copy)


def test_prompts_belong_to_the_run(finished, inputs, tmp_path, capfd):
    table = inputs.parent / "tasks.json"
    text = table.read_text()
    table.write_text(text.replace("a handwritten {}", "some handwritten {}"))
    try:
        assert "(tasks first: their hashes differ)" in fails(capfd, "run", inputs, finished)
    finally:
        table.write_text(text)


def test_control_c_waits_for_the_state_to_be_whole(tmp_path, monkeypatch):
    """An interrupt in the middle of a save is raised after it."""
    from orthoreg_jax.training import checkpoints
    from orthoreg_jax.training.step import TrainState

    state = TrainState(np.int32(7), np.True_, {"w": jax.numpy.ones(3)}, ())
    with checkpoints.StateFolder(tmp_path / "state") as folder:
        original = folder._manager.save

        def interrupted(*arguments, **options):
            os.kill(os.getpid(), signal.SIGINT)
            return original(*arguments, **options)

        monkeypatch.setattr(folder._manager, "save", interrupted)
        with pytest.raises(KeyboardInterrupt):
            folder.save(jax.tree.map(jax.numpy.asarray, state))
        like = jax.tree.map(jax.numpy.zeros_like, jax.tree.map(jax.numpy.asarray, state))
        assert int(folder.restore(like).step) == 7


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
    assert orthoreg("run", inputs, copy, "--config.evaluation.alphas=0,0.5,1,1.5") == 0
    assert vectors == {path: path.stat().st_mtime_ns for path in copy.rglob("vector.safetensors")}
    results = json.loads((copy / "results.json").read_text())
    assert results["alphas"] == [0, 0.5, 1, 1.5]
    assert [len(run["addition"]["val"]["first"]) for run in results["runs"]] == [4, 4]


def test_folder_that_is_no_run(inputs, tmp_path, capfd):
    (tmp_path / "thesis.txt").write_text("")
    assert "is no run folder" in fails(capfd, "run", inputs, tmp_path)
    assert "is a file" in fails(capfd, "run", inputs, tmp_path / "thesis.txt")


def test_folder_that_cannot_be_written(inputs, tmp_path, capfd):
    (tmp_path / "file").write_text("")
    message = fails(capfd, "run", inputs, tmp_path / "file" / "run")
    assert "cannot be written" in message and "choose another --workdir" in message


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 1 MB; mounting one takes rights that not every machine gives."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no right to mount a small disk")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.mark.parametrize("every, victim", [(0, "vector.safetensors"), (3, "state")])
def test_full_disk(inputs, small_disk, every, victim):
    command = [sys.executable, "-m", "orthoreg_jax.cli", "finetune", "--config", str(inputs),
               "--workdir", str(small_disk / "run"),
               f"--config.training.checkpoint_every={every}"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    message = done.stderr.splitlines()[-1]
    assert f"{victim}: cannot be written" in message and "No space left on device" in message
    left = [path.name for path in small_disk.rglob("*") if path.is_file()]
    whole = {"config.json", "provenance.json", "heads.safetensors", "metrics.jsonl"}
    assert set(left) <= whole


def test_stages_in_the_wrong_order(inputs, tmp_path, capfd):
    message = fails(capfd, "evaluate", inputs, tmp_path / "run")
    assert "4 task vectors are missing" in message and "stage `finetune` first" in message
    assert orthoreg("report", None, tmp_path / "run") == 1
    assert "`evaluate`" in capfd.readouterr().err


def test_divergence_names_task_and_step_and_keeps_the_last_good_state(inputs, tmp_path, capfd):
    options = ["--config.training.learning_rate=1e30", "--config.methods=full"]
    assert orthoreg("run", inputs, tmp_path / "run", *options) == 1
    message = capfd.readouterr().err.splitlines()[-1]
    assert "finetune full seed 3 first: not finite at step 2 (loss None" in message
    folder = tmp_path / "run" / "full" / "seed3" / "first"
    assert [path.name for path in (folder / "last_good").iterdir() if path.name.isdigit()] == ["2"]
    for line in (folder / "metrics.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))
    assert not (folder / "vector.safetensors").exists()
    assert not (tmp_path / "run" / "results.json").exists()


def test_batches_must_fit_the_devices(inputs, tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(jax, "device_count", lambda: 3)
    message = fails(capfd, "run", inputs, tmp_path / "run")
    assert "batch_size 8 cannot be split over 3 devices" in message


def test_unknown_arguments(tmp_path, capfd):
    for arguments in (["run"], ["fly"], ["report", "--workdir", "x", "--verbose"],
                      ["report", "--workdir", "x", "--config.training.steps=3"]):  # fmt: skip
        with pytest.raises(SystemExit) as caught:
            cli.main(arguments)
        assert caught.value.code == 2
