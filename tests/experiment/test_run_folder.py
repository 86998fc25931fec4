"""What lies in a run folder is what the run made there of its own inputs."""

import dataclasses
import json
import re
import shutil
import threading
import time

import jax
import numpy as np
import pytest

import orthoreg_jax as oj
from orthoreg_jax import cli
from orthoreg_jax.config import load_config
from orthoreg_jax.experiment import evaluation
from orthoreg_jax.experiment.run_folder import check_folder, check_inputs, open_folder
from orthoreg_jax.experiment.setup import prepare, reopen
from orthoreg_jax.experiment.vectors import vector_path
from orthoreg_jax.storage import StorageError, only_one, read_json, write_json
from orthoreg_jax.trees import StoredTree, load_tree, save_tree
from tests.small_run import orthoreg


@pytest.fixture
def folder(finished, tmp_path):
    """A run that a test may spoil."""
    return shutil.copytree(finished, tmp_path / "run")


@pytest.fixture
def experiment(inputs, folder):
    return prepare(load_config(inputs), folder)


def exchange(folder):
    """The two tasks' vectors, each where the other was."""
    one, other = (vector_path(folder, "full", 3, task) for task in ("first", "second"))
    one.rename(folder / "aside")
    other.rename(one)
    (folder / "aside").rename(other)


def take_from_another_method(folder):
    source = vector_path(folder, "full+orthoreg", 3, "first")
    shutil.copy(source, vector_path(folder, "full", 3, "first"))


def write_without_facts(folder):
    path = vector_path(folder, "full", 3, "first")
    save_tree(path, load_tree(path))


def write_for_another_model(folder):
    path = vector_path(folder, "full", 3, "first")
    facts = StoredTree(path).about | {"pretrained_sha256": "0" * 64}
    save_tree(path, load_tree(path), {k: v for k, v in facts.items() if k != "sha256"})


@pytest.mark.parametrize(
    "spoil, said",
    [
        (exchange, "task is 'second', expected 'first'"),
        (take_from_another_method, "method is 'full+orthoreg', expected 'full'"),
        (write_without_facts, "task is 'not said', expected 'first'"),
        (write_for_another_model, f"pretrained_sha256 is '{'0' * 64}', expected"),
    ],
)
def test_a_vector_is_what_its_place_says(folder, inputs, tmp_path, capfd, spoil, said):
    spoil(folder)
    message = f"first/vector.safetensors: is not the vector that the run made here ({said}"
    with pytest.raises(StorageError, match=re.escape(message)):
        oj.load_task_vectors(folder, "full")
    of_run = ["--workdir", str(folder), "--method", "full", "--out", str(tmp_path / "out")]
    for command in (["export"], ["merge", "--merger", "average", "--alpha", "1"]):
        assert cli.main([*command, *of_run]) == 1
        assert message in capfd.readouterr().err and not (tmp_path / "out").exists()
    assert orthoreg("evaluate", inputs, folder) == 1
    assert message in capfd.readouterr().err


@pytest.fixture
def measured_again(monkeypatch):
    """Stops where a measurement begins."""

    class BegunError(Exception):
        pass

    def begin(*_):
        raise BegunError

    monkeypatch.setattr(evaluation, "load_vectors", begin)
    return BegunError


def read(experiment):
    (method, _) = experiment.methods
    evaluator = evaluation.make_evaluator(experiment, method.mode.outputs)
    return evaluation._evaluate_or_read(experiment, evaluator, {}, {}, method, 3)[0]


def test_numbers_belong_to_the_vectors_that_they_were_measured_on(
    folder, experiment, measured_again, tmp_path, capfd
):
    path = vector_path(folder, "full", 3, "first")
    assert read(experiment)["vectors"]["first"] == StoredTree(path).check()
    facts = {key: value for key, value in StoredTree(path).about.items() if key != "sha256"}
    save_tree(path, jax.tree.map(lambda leaf: 2 * leaf, load_tree(path)), facts)
    with pytest.raises(measured_again):
        read(experiment)
    assert "was measured with other task vectors; measuring again" in capfd.readouterr().err
    out = ["--out", str(tmp_path / "out")]
    assert cli.main(["export", "--workdir", str(folder), "--method", "full", *out]) == 1
    assert "not the vector that results.json was measured on" in capfd.readouterr().err


def test_answers_belong_to_the_numbers_beside_them(folder, experiment):
    path = folder / "full" / "seed3" / "correct.safetensors"
    save_tree(path, jax.tree.map(np.logical_not, load_tree(path)))
    with pytest.raises(StorageError, match="correct.safetensors: does not belong to evaluation"):
        read(experiment)


@pytest.mark.parametrize("name", ["results.json", "full/seed3/evaluation.json"])
def test_numbers_that_were_edited_are_not_read(folder, inputs, capfd, name):
    text = (folder / name).read_text()
    (folder / name).write_text(re.sub(r'("absolute": )[\d.]+', r"\g<1>0.99", text, count=1))
    command = ("report", None) if name == "results.json" else ("evaluate", inputs)
    assert orthoreg(*command, folder) == 1
    assert f"{name}: has changed since it was written" in capfd.readouterr().err


def test_methods_of_several_commands_live_in_one_folder(folder, inputs, tmp_path, capfd):
    """A later command for another method takes nothing from the earlier one's."""
    other = load_config(inputs, ["methods=attention", "seeds=5"])
    open_folder(prepare(other, folder))
    config = json.loads((folder / "config.json").read_text())
    assert config["methods"] == ["full", "full+orthoreg", "attention"]
    assert config["seeds"] == [3, 5]
    assert list(oj.load_task_vectors(folder, "full")) == ["first", "second"]
    more = ["--method", "full", "--merger", "average", "--out", str(tmp_path / "out")]
    assert cli.main(["merge", "--workdir", str(folder), *more]) == 0
    assert "average(τ_first, τ_second)" in (tmp_path / "out" / "README.md").read_text()


def test_what_results_no_longer_hold_is_said(folder, inputs, capfd):
    assert orthoreg("evaluate", inputs, folder, "--config.methods=full") == 0
    assert "results.json: drops full+orthoreg seed 3, which" in capfd.readouterr().err
    assert orthoreg("evaluate", inputs, folder) == 0  # all are there, and nothing is measured
    assert "no longer" not in (said := capfd.readouterr().err) and "evaluate full" not in said


def test_what_methods_share_is_written_by_one_at_a_time(folder, experiment):
    ended = []

    def hold():
        with only_one(folder):
            held.set()
            time.sleep(0.5)
            ended.append(time.monotonic())

    held, other = threading.Event(), threading.Thread(target=hold)
    other.start()
    held.wait()
    open_folder(experiment)
    assert ended and time.monotonic() >= ended[0]
    other.join()


def with_another_image(experiment, task, split):
    """The experiment whose split has one changed pixel."""
    old = experiment.tasks[task]
    array = old.splits[split].images.array.copy()
    array.flat[0] ^= 1
    images = dataclasses.replace(old.splits[split].images, array=array)
    changed = dataclasses.replace(old.splits[split], images=images)
    task_now = dataclasses.replace(old, splits={**old.splits, split: changed})
    return dataclasses.replace(experiment, tasks={**experiment.tasks, task: task_now})


def test_another_test_image_costs_measurements_alone(folder, experiment, measured_again, capfd):
    changed = with_another_image(experiment, "first", "test")
    vectors = {path: path.read_bytes() for path in folder.rglob("vector.safetensors")}
    check_inputs(changed)
    open_folder(changed)
    assert "test images of first changed" in capfd.readouterr().err
    with pytest.raises(measured_again):
        read(changed)
    assert "was measured with other prompts and images" in capfd.readouterr().err
    assert vectors == {path: path.read_bytes() for path in folder.rglob("vector.safetensors")}
    open_folder(changed)  # it is what the folder says now
    assert "others" not in capfd.readouterr().err


def test_a_vector_keeps_to_its_training_images(folder, experiment):
    changed = with_another_image(experiment, "second", "train")
    said = r"images or prompts of task second: .* or delete full/seed3/second, full\+orthoreg/seed3"
    with pytest.raises(ValueError, match=said):
        check_inputs(changed)
    for method in ("full", "full+orthoreg"):
        shutil.rmtree(folder / method / "seed3" / "second")
    check_inputs(changed)  # the first task's vector is not made of them ...
    path = vector_path(folder, "full+taujp", 3, "first")
    path.parent.mkdir(parents=True)
    path.touch()
    with pytest.raises(ValueError, match="or delete full.taujp/seed3/first to train again"):
        check_inputs(changed)  # ... but for a penalty that looks at the others


def test_another_machine_is_recorded_and_said(folder, experiment, monkeypatch, capfd):
    facts = json.loads((folder / "provenance.json").read_text())
    assert facts["cpus"] >= 1 and facts["devices"] == ["cpu: cpu"]
    monkeypatch.setattr(
        "orthoreg_jax.experiment.run_folder.os.sched_getaffinity", lambda _: [1] * 7
    )
    open_folder(experiment)
    said = capfd.readouterr().err
    assert f"resumes with CPUs 7 (before: {facts['cpus']}); new results match" in said
    assert json.loads((folder / "provenance.json").read_text())["continued_with"][0]["cpus"] == 7
    open_folder(experiment)
    assert "resumes" not in capfd.readouterr().err


@pytest.mark.parametrize("key, value", [("training.warmup_steps", 1), ("training.warmup", 0.1)])
def test_warmup_of_as_many_steps_is_the_same_config(inputs, folder, key, value):
    options = read_json(folder / "config.json")
    assert options.pop("training.warmup") == 1  # of 6 steps
    write_json(folder / "config.json", options | {key: value})
    check_folder(load_config(inputs), folder)
    with pytest.raises(ValueError, match=rf"training\.warmup was {value}, is 2\.0\)"):
        check_folder(load_config(inputs, ["training.warmup=2"]), folder)
    assert reopen(folder).config.training.warmup == value


def test_a_share_of_warmup_that_nobody_changed_is_not_named(inputs, folder):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"training.warmup": 0.5}))
    changed = ["training.steps=60", "training.warmup=0.5"]  # 3 steps of warm-up, and 30
    with pytest.raises(ValueError, match=r"\(training\.steps was 6, is 60\); choose"):
        check_folder(load_config(inputs, changed), folder)
