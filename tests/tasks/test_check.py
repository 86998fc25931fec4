import json
import sys

import numpy as np
import PIL.Image
import pytest

from orthoreg_jax import cli
from orthoreg_jax.tasks.check import check_tasks, prepare_task
from orthoreg_jax.tasks.task import load_tasks


@pytest.fixture
def data(tmp_path):
    """Two classes; a test image that is in train, too, and one that is a copy of a val image."""
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (9, 4, 4, 3), dtype=np.uint8)
    layout = {"train/a": [0, 1], "train/b": [2], "val/a": [3], "val/b": [4],
              "test/a": [0, 5], "test/b": [4, 6, 7]}  # fmt: skip
    for place, numbers in layout.items():
        (tmp_path / "mine" / place).mkdir(parents=True)
        for number in numbers:
            PIL.Image.fromarray(pictures[number]).save(tmp_path / "mine" / place / f"{number}.png")
    entry = {"title": "Mine", "folder": "mine", "templates": ["{}"]}
    (tmp_path / "tasks.json").write_text(json.dumps({"tasks": {"mine": entry}}))
    return tmp_path


def test_facts(data):
    (facts,) = check_tasks(str(data), ["mine"])
    assert (facts.problem, facts.title, facts.classes) == ("", "Mine", ("a", "b"))
    counts = {split: each[:3] for split, each in facts.splits.items()}
    assert counts == {"train": (3, 1, 2), "val": (2, 1, 1), "test": (5, 2, 3)}
    assert facts.duplicates == {("train", "val"): 0, ("train", "test"): 1, ("val", "test"): 1}
    text = str(facts)
    assert "mine: Mine, 2 classes (a, b)" in text
    assert "1 of test in train, 1 of test in val" in text


def test_what_is_missing_does_not_hide_the_rest(data):
    facts = list(check_tasks(str(data), ["dtd", "mine"], "imagenet"))
    assert [bool(each.problem) for each in facts] == [True, False, True]
    assert "MISSING" in str(facts[0]) and "robots.ox.ac.uk" in str(facts[0])


@pytest.fixture
def spoiled(data):
    """Files in the middle of a split that only decoding finds, and what reading changes."""
    folder = data / "mine" / "train" / "b"
    rng = np.random.default_rng(1)
    large = PIL.Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8))
    large.save(folder / "1_first.png")
    large.save(folder / "2_half.jpg")
    (folder / "2_half.jpg").write_bytes((folder / "2_half.jpg").read_bytes()[:1500])
    (folder / "3_page.png").write_text("<html>Not found</html>")
    (folder / "4_empty.png").touch()
    large.save(folder / "5_half.png")
    (folder / "5_half.png").write_bytes((folder / "5_half.png").read_bytes()[:5000])
    large.convert("RGBA").save(folder / "6_alpha.png")
    exif = PIL.Image.Exif()
    exif[0x0112] = 3
    large.save(folder / "7_turned.jpg", exif=exif)
    PIL.Image.fromarray(np.arange(12, dtype=np.uint16).reshape(3, 4)).save(folder / "8_deep.png")
    large.save(folder / "9_last.gif")
    return data


def test_every_image_is_decoded(spoiled):
    (facts,) = check_tasks(str(spoiled), ["mine"])
    damaged = ("2_half.jpg", "3_page.png", "4_empty.png", "5_half.png")
    assert facts.problem.startswith("4 images cannot be read:")
    assert all(facts.problem.count(f"train/b/{name}: cannot be read") == 1 for name in damaged)
    assert facts.splits["train"].images == 11  # what is there is counted all the same
    found = {each.what: (each.number, each.first) for each in facts.notes}
    assert found == {
        "skipped: ending .gif": (1, ("train/b/9_last.gif",)),
        "images with 16 bits per channel, scaled to 8": (1, ("train/b/8_deep.png",)),
        "images with an EXIF rotation, which is ignored": (1, ("train/b/7_turned.jpg",)),
        "images with transparency, which is dropped": (1, ("train/b/6_alpha.png",)),
    }
    text = str(facts)
    assert "  1 image with transparency, which is dropped (train/b/6_alpha.png)" in text
    assert text.startswith("mine: MISSING OR WRONG\n  4 images cannot be read")
    assert text.count("mine:") == 1 and "\n  Mine, 2 classes (a, b)\n  train " in text


def test_an_image_has_the_path_that_was_given(spoiled, monkeypatch):
    """By its header, by its content, and when it is read."""
    monkeypatch.chdir(spoiled)
    (facts,) = check_tasks(".", ["mine"])
    assert "\n    mine/train/b/2_half.jpg: cannot be read" in facts.problem
    with pytest.raises(ValueError, match=r"\n    mine/train/b/3_page\.png: cannot be read"):
        load_tasks(".", ["mine"])
    for name in ("3_page.png", "4_empty.png"):
        (spoiled / "mine" / "train" / "b" / name).unlink()
    images = load_tasks(".", ["mine"])["mine"].splits["train"].images
    with pytest.raises(ValueError, match=r"^mine/train/b/5_half\.png: cannot be read"):
        _ = images[images.paths.index("b/5_half.png")]


def test_a_run_sees_by_the_headers_what_is_no_image(spoiled):
    """Before its work; the two halves of images are found when they are read, and named."""
    with pytest.raises(ValueError, match="task 'mine': 2 images cannot be read") as caught:
        load_tasks(str(spoiled), ["mine"])
    assert "3_page.png" in str(caught.value) and "4_empty.png" in str(caught.value)
    folder = spoiled / "mine" / "train" / "b"
    for name in ("3_page.png", "4_empty.png"):
        (folder / name).unlink()
    (task,) = load_tasks(str(spoiled), ["mine"]).values()
    assert [each.number for each in task.remarks()] == [1, 1, 1, 1]
    images = task.splits["train"].images
    row = images.paths.index("b/5_half.png")
    with pytest.raises(ValueError, match="b/5_half.png: cannot be read"):
        _ = images[row]


def test_command(data, tmp_path, capsys):
    config = tmp_path / "config.py"
    config.write_text(
        "from orthoreg_jax.config import default_config\n"
        "def get_config():\n"
        "    config = default_config()\n"
        f"    config.data, config.tasks, config.control = {str(data)!r}, ('mine',), 'dtd'\n"
        "    return config\n"
    )
    assert cli.main(["data", "check", "--config", str(config)]) == 1
    out, err = capsys.readouterr()
    assert (
        "5 images, 2 to 3 a class" in out
        and "2 images, 1 a class" in out
        and "1 of 2 tasks is missing or wrong: dtd" in err
    )
    assert cli.main(["data", "check", "--config", "configs/embedded.py"]) == 0
    out, _ = capsys.readouterr()
    assert out.count("exact duplicates between splits: none") == 6


def test_preparing(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="gtsrb: is not prepared by tfds.*benchmark.ini.rub.de"):
        prepare_task(tmp_path, "gtsrb")
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(ValueError, match=r"pip install 'orthoreg-jax\[prepare\]'"):
        prepare_task(tmp_path, "dtd")
    (tmp_path / "dtd").mkdir()
    assert prepare_task(tmp_path, "dtd").startswith("dtd: already prepared")
