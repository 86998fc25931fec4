"""Every reader on damaged files: a clear error or the right content, never anything else."""

import json
import pathlib
import shutil

import numpy as np
import pytest

from orthoreg_jax.clip.checkpoint import load_checkpoint
from orthoreg_jax.config import default_config, flatten_config
from orthoreg_jax.experiment.setup import check_folder
from orthoreg_jax.reporting.stage import read_metrics, summary_text
from orthoreg_jax.storage import StorageError, load_tree, save_tree
from orthoreg_jax.tasks.task import load_tasks
from tests.clip.test_parity import FIXTURES
from tests.reporting.conftest import make_results

CASES = 160


def damage(data, rng):
    """One of: cut short, bits flipped, bytes overwritten, a piece doubled, a huge number."""
    data = bytearray(data)
    kind, place = rng.integers(5), int(rng.integers(len(data)))
    if kind == 0:
        del data[place:]
    elif kind == 1:
        for spot in rng.integers(len(data), size=rng.integers(1, 4)):
            data[spot] ^= 1 << int(rng.integers(8))
    elif kind == 2:
        data[place : place + 8] = rng.bytes(8)
    elif kind == 3:
        data[place:place] = data[place : place + 40]
    else:
        data[:8] = (2 ** int(rng.integers(8, 63))).to_bytes(8, "little")
    return bytes(data)


def fuzz(path, read, same=None):
    """Reads a file in many damaged forms; `same` says whether what was read is right."""
    whole = path.read_bytes()
    read()
    rng, refused = np.random.default_rng(0), 0
    for case in range(CASES):
        path.write_bytes(damaged := damage(whole, rng))
        try:
            found = read()
        except (ValueError, StorageError) as error:
            assert len(str(error)) > 20, case
            refused += 1
        else:
            assert same is None or damaged == whole or same(found), case
    path.write_bytes(whole)
    assert refused > CASES / 4  # the damage is real


def test_trees(tmp_path):
    tree = {"a": {"w": np.random.default_rng(0).normal(size=(9, 4))}, "b": np.arange(5)}
    path = tmp_path / "tree.safetensors"
    save_tree(path, tree)

    def same(found):
        return np.array_equal(found["a"]["w"], tree["a"]["w"]) and np.array_equal(
            found["b"], tree["b"]
        )

    fuzz(path, lambda: load_tree(path), same)


@pytest.fixture
def tasks(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {
        f"{split}_{kind}": values
        for split in ("train", "val", "test")
        for kind, values in (
            ("images", rng.integers(0, 256, (6, 4, 4, 3), dtype=np.uint8)),
            ("labels", np.array([0, 1, 2, 0, 1, 2])),
        )
    }
    np.savez(tmp_path / "mine.npz", **arrays)
    entry = {"title": "Mine", "classes": ["a", "b", "c"], "templates": ["a {}"]}
    (tmp_path / "tasks.json").write_text(json.dumps({"tasks": {"mine": entry}}))
    return tmp_path, arrays


def test_task_arrays(tasks):
    folder, arrays = tasks

    def same(found):
        splits = found["mine"].splits
        return all(
            np.array_equal(splits[split].images.array, arrays[f"{split}_images"])
            and np.array_equal(splits[split].labels, arrays[f"{split}_labels"])
            for split in splits
        )

    fuzz(folder / "mine.npz", lambda: load_tasks(str(folder), ["mine"]), same)


def test_task_table(tasks):
    folder, _ = tasks
    fuzz(folder / "tasks.json", lambda: load_tasks(str(folder), ["mine"]))


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_models(tmp_path, name):
    model = shutil.copytree(FIXTURES / "gelu_patch4", tmp_path / "model")
    fuzz(model / name, lambda: load_checkpoint(model))


def test_results(tmp_path):
    (tmp_path / "results.json").write_text(json.dumps(make_results()))
    fuzz(tmp_path / "results.json", lambda: summary_text(tmp_path))


def test_metrics(tmp_path):
    results = make_results()
    path = tmp_path / "full" / "seed0" / "a" / "metrics.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text("".join(json.dumps({"step": n, "loss": 1.0}) + "\n" for n in range(9)))
    fuzz(path, lambda: read_metrics(tmp_path, results))


def test_run_folder(tmp_path):
    config = default_config()
    text = json.dumps(flatten_config(config))
    (tmp_path / "config.json").write_text(text)
    fuzz(tmp_path / "config.json", lambda: check_folder(config, tmp_path))


def test_nothing_is_pickled():
    package = pathlib.Path(__file__).parents[1]
    files = [*package.glob("orthoreg_jax/**/*.py"), *package.glob("experiments/**/*.py")]
    assert len(files) > 80
    for path in files:
        text = path.read_text()
        for word in ("import pickle", "from pickle", "joblib", "dill", "allow_pickle=True",
                     "weights_only=False"):  # fmt: skip
            assert word not in text or path.name == "scans.py", f"{path}: {word}"
