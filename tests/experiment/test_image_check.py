"""A damaged image stops a run before its first step; what removing it changes is said."""

import json
import shutil

import numpy as np
import PIL.Image
import pytest

from orthoreg_jax import cli
from orthoreg_jax.config import load_config
from orthoreg_jax.experiment.image_check import check_images
from orthoreg_jax.experiment.run_folder import check_inputs, open_folder
from orthoreg_jax.experiment.setup import prepare
from orthoreg_jax.storage import read_json
from orthoreg_jax.tasks import kept
from tests.small_run import orthoreg

STAGES = ("finetune", "evaluate")


@pytest.fixture
def config(inputs, tmp_path, monkeypatch):
    """The small run, whose first task is a folder of 40 and 6 pictures without a val split."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(kept, "SETTLED", -1.0)  # files are settled at once
    rng = np.random.default_rng(0)
    for split, count in (("train", 20), ("test", 3)):
        for label in ("cat", "dog"):
            folder = tmp_path / "data" / "first" / split / label
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 256, (32, 32, 3), np.uint8)
                PIL.Image.fromarray(pixels).save(folder / f"{number}.png")
    elsewhere = {name: {"from": str(inputs.parent)} for name in ("second", "others")}
    own = {"first": {"folder": "first", "templates": ["a photo of a {}."]}}
    (tmp_path / "data" / "tasks.json").write_text(json.dumps({"tasks": own | elsewhere}))
    text = inputs.read_text().replace(f'"{inputs.parent}"', f'"{tmp_path / "data"}"')
    (tmp_path / "config.py").write_text(text)
    return tmp_path / "config.py"


def picture(config, name):
    return config.parent / "data" / "first" / name


def cut_short(path):
    """Behind the header, which stays right."""
    path.write_bytes(path.read_bytes()[:-600])


def opened(config):
    return prepare(load_config(config), config.parent / "run")


@pytest.mark.parametrize("name", ["train/cat/3.png", "test/dog/1.png"])
@pytest.mark.parametrize("command", ["run", "finetune"])
def test_a_damaged_image_stops_a_run_before_anything_is_written(config, capfd, name, command):
    cut_short(picture(config, name))
    assert orthoreg(command, config, config.parent / "run") == 1
    said = capfd.readouterr().err
    assert f"{name}: cannot be read as an image" in said and "task 'first', t" in said
    assert not (config.parent / "run").exists()


def test_all_damage_is_named_at_once_of_what_the_stages_read(config):
    """Held out or not: of 36 and 4 images of train, and 6 of test."""
    for name in ("train/cat/3.png", "train/dog/7.png", "test/dog/1.png"):
        cut_short(picture(config, name))
    with pytest.raises(ValueError, match="cannot be read as an image") as caught:
        check_images(opened(config), STAGES)
    assert str(caught.value).count("cannot be read as an image") == 3
    (kept_out,) = [split for split in ("train", "val")
                   if f"'first', {split}: 2 images" in str(caught.value)]  # fmt: skip
    assert kept_out == "train"  # both of these are in train, so measuring alone needs neither
    with pytest.raises(ValueError, match="'first', test: 1 image cannot be read") as caught:
        check_images(opened(config), ["evaluate"])
    assert "train" not in str(caught.value).replace(str(config.parent), "")


def test_training_images_are_left_out_once_all_is_trained(config, capfd):
    experiment = opened(config)
    for method in ("full", "full+orthoreg"):
        for task in ("first", "second"):
            path = experiment.vector_path(method, 3, task)
            path.parent.mkdir(parents=True)
            path.touch()
    check_images(experiment, STAGES)
    assert "decoded 10 images before" in capfd.readouterr().err  # 4 are val, 6 are test
    path.unlink()
    check_images(experiment, STAGES)
    assert "decoded 46 images before" in capfd.readouterr().err


def test_what_was_decoded_is_not_decoded_again(config, capfd):
    """By `data check`, or by a run before; a file that has changed since then is."""
    check_images(opened(config), STAGES)
    assert "decoded 46 images before the run begins, none is damaged" in capfd.readouterr().err
    check_images(opened(config), STAGES)
    assert capfd.readouterr().err == ""
    shutil.copy(picture(config, "test/cat/1.png"), picture(config, "test/cat/0.png"))
    check_images(opened(config), STAGES)
    assert "decoded 1 image before the run begins, none is damaged" in capfd.readouterr().err
    cut_short(picture(config, "test/cat/0.png"))
    with pytest.raises(ValueError, match="test/cat/0.png: cannot be read"):
        check_images(opened(config), STAGES)


def test_more_images_than_it_decodes_are_left_to_data_check(config, capfd):
    cut_short(picture(config, "test/cat/0.png"))
    check_images(opened(config), STAGES, most=45)
    said = capfd.readouterr().err
    assert "46 images are not decoded before the run begins (more than 45)" in said
    command = ["data", "check", "--tasks", "first", "--data", str(config.parent / "data")]
    assert "`orthoreg data check`" in said and cli.main(command) == 1
    assert "test/cat/0.png: cannot be read" in capfd.readouterr().out
    # It decoded that are whole: one is left.
    with pytest.raises(ValueError, match="test/cat/0.png: cannot be read"):
        check_images(opened(config), STAGES, most=1)


def test_the_way_on_after_an_image_was_removed_is_true(config, capfd):
    """The rest is split anew, so what was trained on the old part is of other data."""
    experiment = opened(config)
    open_folder(experiment)
    vectors = [experiment.vector_path("full", 3, task) for task in ("first", "second")]
    for path in vectors:
        path.parent.mkdir(parents=True)
        path.touch()
    picture(config, "train/cat/3.png").unlink()
    with pytest.raises(ValueError, match="started with other files") as caught:
        opened(config)
    assert "first had 40 images in train, now 39: its validation images are held out of train, " \
        "and drawn anew when an image is added or removed" in str(caught.value)  # fmt: skip
    assert "or delete full/seed3/first to train again" in str(caught.value)
    vectors[0].unlink()
    capfd.readouterr()
    open_folder(opened(config))
    assert (
        "train images of first, val images of first changed; first will be trained on them, "
        "vectors of other tasks are kept, and the stage `evaluate` measures again"
    ) in capfd.readouterr().err
    # A test image alone: no vector depends on it.
    picture(config, "test/cat/1.png").unlink()
    vectors[0].touch()
    again = opened(config)
    check_inputs(again)
    open_folder(again)
    assert (
        "test images of first changed; task vectors are kept, and the stage `evaluate` measures "
        "again"
    ) in capfd.readouterr().err
    kept_facts = read_json(config.parent / "run" / "provenance.json")["inputs"]["tasks"]["first"]
    assert {split: each["images"] for split, each in kept_facts["splits"].items()} == {
        "train": 36, "val": 3, "test": 5
    }  # fmt: skip
