import os
import subprocess
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from orthoreg_jax.storage import StorageError
from orthoreg_jax.training.saved_states import StateFolder
from orthoreg_jax.training.step import TrainState


def state(step):
    trainable = {"w": jnp.full((40, 30), float(step)), "b": jnp.arange(3.0) + step}
    return TrainState(jnp.int32(step), jnp.array(True), trainable, (jnp.int32(step),))


def damage(path, step):
    """Cuts every data file of a saved state short."""
    files = [file for file in (path / str(step)).rglob("*") if file.is_file()]
    assert files
    for file in files:
        file.write_bytes(file.read_bytes()[:8])


def test_only_the_newest_states_stay(tmp_path):
    with StateFolder(tmp_path / "state", keep=2) as folder:
        for step in (2, 4, 6):
            folder.save(state(step))
        assert int(folder.restore(state(0)).step) == 6
    assert {path.name for path in (tmp_path / "state").iterdir()} == {"4", "6"}


def test_a_damaged_state_is_named_and_the_one_before_it_taken(tmp_path, capfd):
    with StateFolder(tmp_path / "state", keep=3) as folder:
        for step in (2, 4, 6):
            folder.save(state(step))
    damage(tmp_path / "state", 6)
    with StateFolder(tmp_path / "state", keep=3) as folder:
        restored = folder.restore(state(0))
    assert int(restored.step) == 4
    np.testing.assert_array_equal(restored.trainable["w"], np.full((40, 30), 4.0))
    assert "saved state of step 6" in (err := capfd.readouterr().err) and "from step 4" in err
    assert not (tmp_path / "state" / "6").exists()


def test_nothing_but_damaged_states(tmp_path):
    with StateFolder(tmp_path / "state", keep=2) as folder:
        folder.save(state(2))
    damage(tmp_path / "state", 2)
    with (
        StateFolder(tmp_path / "state", keep=2) as folder,
        pytest.raises(StorageError, match="states of steps 2 .* delete this folder"),
    ):
        folder.restore(state(0))


def test_nothing_saved_yet(tmp_path):
    with StateFolder(tmp_path / "state") as folder:
        assert folder.restore(like := state(0)) is like


def test_training_goes_on_while_a_state_is_written(tmp_path):
    """The saved arrays are those of the save, though the next steps reuse their memory."""
    advance = jax.jit(lambda old: jax.tree.map(lambda leaf: leaf + 1, old), donate_argnums=0)
    current = jax.tree.map(lambda leaf: jnp.resize(leaf, (512, 1024)), state(5).trainable)
    current = TrainState(jnp.int32(5), jnp.int32(0), current, ())
    saved = jax.device_get(current)
    with StateFolder(tmp_path / "state") as folder:
        folder.save(current)
        for _ in range(3):
            current = advance(current)
        restored = folder.restore(current)
    for ours, theirs in zip(jax.tree.leaves(restored), jax.tree.leaves(saved), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_write_that_fails_behind_training_is_said(small_disk, monkeypatch):
    """Room enough when the save began, not when it was written."""
    room = types.SimpleNamespace(free=10**12)
    monkeypatch.setattr("orthoreg_jax.training.saved_states.shutil.disk_usage", lambda _: room)
    noise = jax.random.normal(jax.random.key(0), (700, 1000))
    with (
        pytest.raises(StorageError, match="cannot be written .No space left on device."),
        StateFolder(small_disk / "state") as folder,
    ):
        folder.save(state(1))
        folder.save(state(2)._replace(trainable=noise))
    assert [path.name for path in (small_disk / "state").iterdir()] == ["1"]


def test_the_clock_says_nothing_about_which_state_is_newest(tmp_path):
    with StateFolder(tmp_path / "state", keep=2) as folder:
        for step in (2, 4):
            folder.save(state(step))
    for step, time in ((2, 4e9), (4, 1.0)):  # the year 2096, and 1970
        for path in [tmp_path / "state" / str(step), *(tmp_path / "state" / str(step)).rglob("*")]:
            os.utime(path, (time, time))
    with StateFolder(tmp_path / "state", keep=2) as folder:
        assert int(folder.restore(state(0)).step) == 4


TOO_LARGE = """
import pathlib, resource, sys
import absl.logging
import jax, jax.numpy as jnp
from orthoreg_jax.training.saved_states import StateFolder
from orthoreg_jax.training.step import TrainState

absl.logging.set_verbosity(absl.logging.FATAL)  # as the command does
weights = {str(n): jax.random.normal(jax.random.key(n), (60, 1000)) for n in range(8)}
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    with StateFolder(pathlib.Path(sys.argv[1])) as folder:
        folder.save(TrainState(jnp.int32(1), jnp.array(True), weights, ()))
except Exception as error:
    print(type(error).__name__, error, flush=True)
"""


def test_a_limit_to_the_size_of_files_is_one_error(tmp_path):
    """Several writes fail, one after the other; the first is said, the rest are no news."""
    command = [sys.executable, "-c", TOO_LARGE, str(tmp_path / "state")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"StorageError {tmp_path / 'state'}: cannot be written")
    assert "File too large" in done.stdout and "Traceback" not in done.stderr
