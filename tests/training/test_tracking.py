"""A function of the user's gets what metrics.jsonl holds."""

import json
import re
import sys

import pytest

from orthoreg_jax.training.trackers import METRICS, TRACKERS, make_tracker
from orthoreg_jax.training.tracking import find_function, track
from tests.small_run import orthoreg

MODULE = """
import json
def log(line, folder):
    with open(FILE, "a") as file:
        print(json.dumps([line, str(folder)]), file=file)
def fails(line, folder):
    raise RuntimeError("nobody answers")
value = 3
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "own_tracking.py").write_text(f"FILE = {str(tmp_path / 'seen')!r}\n{MODULE}")
    (tmp_path / "broken_tracking.py").write_text("import nowhere_to_be_found")
    monkeypatch.syspath_prepend(tmp_path)


def test_it_gets_each_line_and_its_folder(inputs, tmp_path, module):
    options = ["--config.training.on_metrics=own_tracking:log", "--config.methods=full+orthoreg"]
    options += ["--config.tasks=first"]
    assert orthoreg("finetune", inputs, tmp_path / "run", *options) == 0
    folder = tmp_path / "run" / "full+orthoreg" / "seed3" / "first"
    seen = [json.loads(line) for line in (tmp_path / "seen").read_text().splitlines()]
    written = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert {place for _, place in seen} == {str(folder)}
    for (got, _), line in zip(seen, written, strict=True):
        assert {key: got[key] for key in line} == line


@pytest.mark.parametrize(
    "name, message",
    [
        ("log", "allowed: 'module:function', 'wandb', 'trackio', or ''"),
        (":log", "allowed: 'module:function'"),
        ("own_tracking:", "allowed: 'module:function'"),
        ("own_tracking:absent", "has no function 'absent'"),
        ("own_tracking:value", "has no function 'value'"),
        ("not_there_at_all:log", "ModuleNotFoundError.*PYTHONPATH=FOLDER"),
        ("broken_tracking:log", "No module named 'nowhere_to_be_found'"),
    ],
)
def test_a_name_that_leads_nowhere(module, name, message):
    with pytest.raises(ValueError, match=message):
        find_function(name)


def test_that_is_said_before_work_starts(inputs, tmp_path, capfd):
    option = "--config.training.on_metrics=not_there_at_all:log"
    assert orthoreg("finetune", inputs, tmp_path / "run", option) == 1
    assert "training.on_metrics is 'not_there_at_all:log'" in capfd.readouterr().err
    assert not (tmp_path / "run").exists()


def test_its_own_errors_are_said_as_its_own(tmp_path, module):
    message = "at step 3 it raised RuntimeError: nobody answers; fix it"
    with pytest.raises(ValueError, match=message):
        track("own_tracking:fails", [{"step": 3}], tmp_path)


@pytest.mark.parametrize("name", TRACKERS)
def test_a_tracker_that_is_not_installed_is_said_before_work_starts(
    inputs, tmp_path, capfd, monkeypatch, name
):
    monkeypatch.setitem(sys.modules, name, None)
    make_tracker.cache_clear()
    option = f"--config.training.on_metrics={name}"
    assert orthoreg("finetune", inputs, tmp_path / "run", option) == 1
    message = f"{name} is not installed: pip install 'orthoreg-jax[{name}]', or leave the option"
    assert message in capfd.readouterr().err
    assert not (tmp_path / "run").exists()


LINES = [
    {"step": 2, "loss": 1.5, "penalty": None, "gradient_norm": 3.0},
    {"step": 4, "loss": None, "penalty": 0.5, "gradient_norm": 2.0},
]


@pytest.fixture
def two_fine_tunings(tmp_path, monkeypatch):
    """Sends lines of two fine-tunings of a run, in two calls each; the second goes on."""
    make_tracker.cache_clear()

    def send(name):
        folders = [tmp_path / "run" / "full" / "seed0" / task for task in ("a", "b")]
        (tmp_path / "run").mkdir(exist_ok=True)
        (tmp_path / "run" / "config.json").write_text(json.dumps({"penalty.strength": 3.0}))
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
            for line in LINES:
                track(name, [line], folder)
        return folders

    return send


def test_wandb_gets_a_run_for_each_fine_tuning(tmp_path, monkeypatch, two_fine_tunings):
    wandb = pytest.importorskip("wandb", reason="the extra [wandb] is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    folders = two_fine_tunings("wandb")
    run = wandb.run
    assert run.name == "run/full/seed0/b"
    assert (run.group, run.project) == ("run", "orthoreg")
    assert run.config["penalty.strength"] == 3.0
    wandb.finish()
    for folder in folders:
        (file,) = folder.glob("wandb/offline-run-*/*.wandb")
        # Names and numbers lie in it as text, one after the other.
        found = re.findall(rb"(loss|penalty|gradient_norm)[^\w.]{1,3}(\d\.?\d*)", file.read_bytes())
        assert {(name.decode(), float(value)) for name, value in found} == {
            (name, line[name]) for line in LINES for name in METRICS if line[name] is not None
        }
    make_tracker.cache_clear()
    two_fine_tunings("wandb")
    assert wandb.run.id == run.id  # goes on after an interruption
    wandb.finish()


def test_trackio_gets_a_run_for_each_fine_tuning(tmp_path, monkeypatch, two_fine_tunings):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    trackio = pytest.importorskip("trackio", reason="the extra [trackio] is not installed")
    two_fine_tunings("trackio")
    trackio.finish()
    runs = {run.name: run for run in trackio.Api().runs("orthoreg")}
    assert set(runs) == {"run/full/seed0/a", "run/full/seed0/b"}
