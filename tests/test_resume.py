"""What was cut off goes on and ends with the same bits."""

import itertools
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import types

import jax
import numpy as np
import pytest

from orthoreg_jax.hosts import interruption
from orthoreg_jax.trees import load_tree

from .small_run import orthoreg, relative_difference, virtual_devices


def test_same_seed_same_bits_and_resume_is_exact(finished, inputs, tmp_path, monkeypatch):
    """A run cut off at step 4 of its second task, gone on with, ends bit for bit the same."""
    from orthoreg_jax.training import saved_states

    original = saved_states.StateFolder.save
    saves = []

    def save_and_die(self, state):
        original(self, state)
        saves.append(int(state.step))
        if saves == [4, 4]:
            raise KeyboardInterrupt

    options = ["--config.training.checkpoint_every=4", "--config.methods=full+orthoreg"]
    monkeypatch.setattr(saved_states.StateFolder, "save", save_and_die)
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


@pytest.fixture
def signal_at(monkeypatch):
    """Sends this process a signal as the step of some number is taken, once."""
    from orthoreg_jax.training import finetune

    original = finetune._MetricsLog.add

    def prepare(step, number):
        def add_and_stop(self, taken, metrics):
            original(self, taken, metrics)
            if taken == step:
                monkeypatch.setattr(finetune._MetricsLog, "add", original)
                os.kill(os.getpid(), number)

        monkeypatch.setattr(finetune._MetricsLog, "add", add_and_stop)

    return prepare


@pytest.mark.parametrize("number, every", [(signal.SIGTERM, 100), (signal.SIGINT, 0)])
def test_a_signal_saves_and_the_same_command_goes_on(
    finished, inputs, tmp_path, signal_at, capfd, number, every
):
    options = [f"--config.training.checkpoint_every={every}", "--config.methods=full"]
    signal_at(2, number)
    assert orthoreg("finetune", inputs, tmp_path / "run", *options) == 128 + number
    said, name = capfd.readouterr().err, interruption.SIGNAL_NAMES[number]
    outcome = "the steps under way are finished, then the state is saved"
    assert f"orthoreg: {name}: stopping; {outcome} (repeat to stop at once)" in said
    assert "full seed 3 first: saved and stopped after 3 updates; repeat the command" in said
    assert orthoreg("finetune", inputs, tmp_path / "run", *options) == 0
    assert "full seed 3 first  6/6" in capfd.readouterr().err  # of all updates, not of the rest
    path = pathlib.Path("full") / "seed3" / "first"
    for name in ("vector.safetensors", "metrics.jsonl"):
        file = path / name
        assert (tmp_path / "run" / file).read_bytes() == (finished / file).read_bytes()
    assert not (tmp_path / "run" / path / "state").exists()


def test_few_steps_are_under_way_and_every_finished_one_is_counted(inputs, tmp_path, monkeypatch):
    """So that a signal is soon obeyed, and the speed shown is that of the device."""
    from orthoreg_jax.training import finetune

    counted, under_way, original = [], [], finetune._MetricsLog.count_finished

    def count(self):
        counted.append(original(self))
        under_way.append(len(self._running))
        return counted[-1]

    monkeypatch.setattr(finetune._MetricsLog, "count_finished", count)
    options = ["--config.methods=full", "--config.training.steps=25"]
    assert orthoreg("finetune", inputs, tmp_path / "run", *options) == 0
    assert len(counted) == sum(counted) == 2 * 25  # of two tasks
    assert max(under_way) <= finetune.AHEAD and under_way[24] == under_way[-1] == 0


def test_a_kill_loses_no_more_than_the_minutes_between_states(finished, inputs, tmp_path):
    """By default there are states by time: here one after every step."""
    options = ["--config.training.checkpoint_minutes=1e-9", "--config.methods=full"]
    command = ["finetune", "--config", inputs, "--workdir", tmp_path / "run", *options]
    killed = CUT_OFF.replace("raise KeyboardInterrupt", KILLED)
    done = subprocess.run([sys.executable, "-c", killed, *map(str, command)])
    assert done.returncode == -signal.SIGKILL
    states = tmp_path / "run" / "full" / "seed3" / "first" / "state"
    assert {path.name for path in states.iterdir()} == {"2", "3"}
    assert orthoreg("finetune", inputs, tmp_path / "run", *options) == 0
    for task in ("first", "second"):
        for name in ("vector.safetensors", "metrics.jsonl"):
            file = pathlib.Path("full", "seed3", task, name)
            assert (tmp_path / "run" / file).read_bytes() == (finished / file).read_bytes()


def test_states_by_time_are_on_by_default_and_can_be_off(inputs, tmp_path, monkeypatch):
    from orthoreg_jax.training import finetune

    clock = itertools.count(step=150.0)  # looked at when a task begins, and after each of 6 steps
    saves = []
    ticking = types.SimpleNamespace(monotonic=lambda: next(clock))
    monkeypatch.setattr(finetune, "time", ticking)
    monkeypatch.setattr(
        finetune.StateFolder, "save", lambda _, state: saves.append(int(state.step))
    )
    assert orthoreg("finetune", inputs, tmp_path / "run", "--config.methods=full") == 0
    assert saves == [2, 4] * 2  # every five minutes; a look at the clock follows each save
    off = ["--config.methods=lora", "--config.training.checkpoint_minutes=0"]
    assert orthoreg("finetune", inputs, tmp_path / "run", *off) == 0
    assert saves == [2, 4] * 2


def test_a_signal_in_the_last_step_stops_after_the_vector(inputs, tmp_path, signal_at, capfd):
    """Of the first task: the second is not begun. Of the last task: what comes next is not."""
    folder = tmp_path / "run" / "full" / "seed3"
    for task in ("first", "second"):
        signal_at(5, signal.SIGTERM)
        assert orthoreg("run", inputs, tmp_path / "run", "--config.methods=full") == 143
        assert "orthoreg: stopped; finished work is kept; repeat the" in capfd.readouterr().err
        assert (folder / task / "vector.safetensors").is_file()
        assert (folder / "second").exists() == (task == "second")
    assert not (folder / "evaluation.json").exists()


def test_a_signal_while_measuring_keeps_what_is_measured(
    finished, inputs, tmp_path, monkeypatch, capfd
):
    from orthoreg_jax.evaluation.edited_models import EditedModels

    copy = shutil.copytree(finished, tmp_path / "run")
    (copy / "results.json").unlink()
    (copy / "full+orthoreg" / "seed3" / "evaluation.json").unlink()
    single = EditedModels.single

    def signal_and_measure(self):
        os.kill(os.getpid(), signal.SIGINT)
        return single(self)

    monkeypatch.setattr(EditedModels, "single", signal_and_measure)
    assert orthoreg("evaluate", inputs, copy) == 130
    said = capfd.readouterr().err
    outcome = "evaluate full+orthoreg seed 3 begins again next time, finished evaluations are kept"
    assert (
        f"Ctrl-C: stopping; {outcome} (repeat" in said and f"orthoreg: stopped; {outcome}" in said
    )
    assert (copy / "full" / "seed3" / "evaluation.json").is_file()
    assert not (copy / "full+orthoreg" / "seed3" / "evaluation.json").exists()


def test_a_second_control_c_ends_at_once():
    with pytest.raises(KeyboardInterrupt), interruption.listening():
        os.kill(os.getpid(), signal.SIGINT)
        assert interruption.pass_step()  # the first is noted
        os.kill(os.getpid(), signal.SIGINT)
    assert not interruption.pass_step()  # and belongs to what was stopped by it


def test_control_c_waits_for_the_state_to_be_whole(tmp_path, monkeypatch):
    """An interrupt in the middle of a save is raised after it."""
    from orthoreg_jax.training import saved_states
    from orthoreg_jax.training.step import TrainState

    state = TrainState(np.int32(7), np.True_, {"w": jax.numpy.ones(3)}, ())
    with saved_states.StateFolder(tmp_path / "state") as folder:
        original = folder._manager.save

        def interrupted(*arguments, **options):
            os.kill(os.getpid(), signal.SIGINT)
            return original(*arguments, **options)

        monkeypatch.setattr(folder._manager, "save", interrupted)
        with pytest.raises(KeyboardInterrupt):
            folder.save(jax.tree.map(jax.numpy.asarray, state))
        like = jax.tree.map(jax.numpy.zeros_like, jax.tree.map(jax.numpy.asarray, state))
        assert int(folder.restore(like).step) == 7


def test_killed_at_random_moments(tmp_path):
    """A small version of what experiments/kills does."""
    command = [sys.executable, "experiments/kills/kill.py", "--kills", "2"]
    folders = ["--workdir", str(tmp_path / "kills"), "--results", str(tmp_path)]
    subprocess.run([*command, *folders, "--commands", "finetune full+orthoreg"], check=True)
    (found,) = json.loads((tmp_path / "kills.json").read_text())
    assert found["kills"] >= 2 and not found["differing"] and not found["left"]


def test_what_a_kill_behind_a_vector_left_is_removed(finished, inputs, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    task = run / "full" / "seed3" / "first"
    states = task / "state" / "6"
    states.mkdir(parents=True)
    (states / "half").write_text("")
    scratch = [task / ".vector.safetensors.0.partial", run / ".results.json.1.partial"]
    for folder in scratch:
        folder.mkdir()
    before = (task / "vector.safetensors").read_bytes()
    assert orthoreg("finetune", inputs, run) == 0
    assert not states.parent.exists() and not any(folder.exists() for folder in scratch)
    assert (task / "vector.safetensors").read_bytes() == before


KILLED = """
    if int(state.step) == 3:
        self._manager.wait_until_finished()
        os.kill(os.getpid(), 9)
""".strip()
CUT_OFF = """
import os, sys
from orthoreg_jax import cli
from orthoreg_jax.training.saved_states import StateFolder

save = StateFolder.save
def save_and_die(self, state):
    save(self, state)
    raise KeyboardInterrupt

StateFolder.save = save_and_die
assert cli.main(sys.argv[1:]) == 130
"""


def on_devices(count, program, *arguments):
    """Runs Python with so many virtual devices."""
    command = [sys.executable, *program, *map(str, arguments)]
    subprocess.run(command, env=os.environ | virtual_devices(count), check=True)


def test_begun_on_eight_devices_it_goes_on_with_four(finished, inputs, tmp_path):
    options = ["--config.training.checkpoint_every=4", "--config.methods=full+orthoreg"]
    begun = tmp_path / "begun"
    command = ["finetune", "--config", inputs, "--workdir"]
    on_devices(8, ["-c", CUT_OFF], *command, begun, *options, "--config.training.fsdp=4")
    path = pathlib.Path("full+orthoreg", "seed3", "first")
    assert (begun / path / "state" / "4").is_dir()
    more = [*options, "--config.training.fsdp=2"]
    on_devices(4, ["-m", "orthoreg_jax.cli"], *command, begun, *more)
    paths = (folder / path / "vector.safetensors" for folder in (begun, finished))
    assert relative_difference(*paths) < 1e-4
    machines = json.loads((begun / "provenance.json").read_text())
    assert len(machines["devices"]) == 8
    assert [len(other["devices"]) for other in machines["continued_with"]] == [4]
