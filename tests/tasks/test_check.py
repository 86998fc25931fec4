import json
import sys

import numpy as np
import PIL.Image
import pytest

from orthoreg_jax import cli
from orthoreg_jax.tasks.check import check_tasks, prepare_task


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
    assert "5 images, 2 to 3 a class" in out and "1 tasks are missing or wrong: dtd" in err
    assert cli.main(["data", "check", "--config", "configs/embedded.py"]) == 0
    out, _ = capsys.readouterr()
    assert out.count("exact duplicates between splits: none") == 6


def test_preparing(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="gtsrb: is not prepared by tfds.*benchmark.ini.rub.de"):
        prepare_task(tmp_path, "gtsrb")
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(ValueError, match=r"pip install 'orthoreg_jax\[prepare\]'"):
        prepare_task(tmp_path, "dtd")
    (tmp_path / "dtd").mkdir()
    assert prepare_task(tmp_path, "dtd").startswith("dtd: is there")
