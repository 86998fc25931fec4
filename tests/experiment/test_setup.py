"""What a run says before it begins."""

import json

import numpy as np
import PIL.Image
import pytest

from orthoreg_jax.config import default_config
from orthoreg_jax.experiment.setup import prepare
from orthoreg_jax.tasks.catalogue import entries


@pytest.fixture
def config(tmp_path):
    """SVHN as directories of few images, and two of the embedded tasks."""
    for split, count in (("train", 20), ("test", 1)):
        for label in entries()["svhn"]["labels"]:
            (tmp_path / "svhn" / split / label).mkdir(parents=True)
            for number in range(count):
                pixels = np.full((32, 32, 3), number, np.uint8)
                PIL.Image.fromarray(pixels).save(tmp_path / f"svhn/{split}/{label}/{number}.png")
    table = {name: {"from": "embedded"} for name in ("mnist", "concepts")}
    (tmp_path / "tasks.json").write_text(json.dumps({"tasks": table}))
    config = default_config()
    config.data, config.tasks, config.control = str(tmp_path), ("svhn", "mnist"), "concepts"
    return config


@pytest.mark.parametrize("size, said", [(180, False), (181, True)])
def test_a_batch_of_more_images_than_there_are_is_said(config, tmp_path, size, said):
    """Of 200 images of SVHN, 20 are held out for validation."""
    config.training.batch_size = size
    line = (
        f"svhn: its 180 training images are fewer than training.batch_size, {size}, so every "
        "batch has some of them more than once"
    )
    experiment = prepare(config, tmp_path / "run")
    assert experiment.describe().splitlines()[1:] == [line] * said
    experiment.config.methods = ("given",)  # nothing is trained
    assert "more than once" not in experiment.describe()


def test_another_training_set_than_the_recipes_is_said(config, tmp_path):
    experiment = prepare(config, tmp_path / "run")
    said = "180 training images, but the field's recipe has 68257: the number of steps differs"
    assert str(experiment.tasks["svhn"].remarks()[0]).startswith(said)
    # MNIST is of a name that the field has, too, and that counts where its epochs are the recipe's.
    assert "\n" not in experiment.describe()
    config.training.epochs = -1.0
    _, line = prepare(config, tmp_path / "run").describe().splitlines()
    assert line.startswith("mnist: ") and "but the field's recipe has 55000" in line
