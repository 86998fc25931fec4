"""A function of the user's gets what metrics.jsonl holds."""

import json

import pytest

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
    options += ["--config.tasks=first", "--config.evaluation.disentanglement_tasks=()"]
    options += ["--config.evaluation.feature_images=0"]
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
        ("log", "allowed: 'module:function'"),
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
