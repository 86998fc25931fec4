"""A task that no table names: what to write, which name was meant, or which there are."""

import json
import re

import numpy as np
import PIL.Image
import pytest

from orthoreg_jax.tasks.catalogue import KNOWN
from orthoreg_jax.tasks.task import load_tasks

ENTRY = {"shapes": {"folder": "shapes", "templates": ["a photo of a {}."]}}


@pytest.fixture
def shapes(tmp_path):
    """A data folder with images and without a table."""
    for split in ("train", "val", "test"):
        for name in ("round", "square"):
            folder = tmp_path / "shapes" / split / name
            folder.mkdir(parents=True)
            PIL.Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(folder / "1.png")
    return tmp_path


def refusal(folder, *tasks, control=None):
    with pytest.raises(ValueError) as caught:
        load_tasks(str(folder), tasks, control)
    return str(caught.value)


def recipe(message):
    """The JSON at the end of a message."""
    return json.loads(re.search(r"\{.*$", message)[0])


def test_the_recipe_for_a_folder_of_images_works(shapes):
    message = refusal(shapes, "shapes")
    assert message.startswith(
        f"data: task 'shapes': is not in {shapes}/tasks.json (no such file), but its images may "
        f"be in {shapes}/shapes; write there: "
    )
    assert recipe(message) == {"tasks": ENTRY}
    (shapes / "tasks.json").write_text(json.dumps(recipe(message)))
    assert load_tasks(str(shapes), ["shapes"])["shapes"].classes == ("round", "square")


@pytest.mark.parametrize("own", [{}, ENTRY])
def test_the_recipe_for_an_embedded_task_works(shapes, own):
    (shapes / "tasks.json").write_text(json.dumps({"tasks": own}))
    message = refusal(shapes, control="concepts")
    said = 'tasks.json; to use the embedded one, add to "tasks" there: "concepts": {"from": "em'
    assert said in message
    added = json.loads("{" + message.partition("there: ")[2] + "}")
    (shapes / "tasks.json").write_text(json.dumps({"tasks": own | added}))
    assert load_tasks(str(shapes), [], "concepts")


def test_arrays_that_the_table_does_not_name(shapes):
    np.savez(shapes / "spots.npz")
    message = refusal(shapes, "spots")
    assert f"its images may be in {shapes}/spots.npz; write there: " in message
    assert recipe(message)["tasks"]["spots"].keys() == {"classes", "templates"}


@pytest.mark.parametrize(
    "name, meant",
    [("shape", "shapes"), ("mnits", "mnist"), ("fashoin_mnist", "fashion_mnist"),
     ("MNIST", "mnist"), ("Fashion-MNIST", "fashion_mnist"), ("cifar-100", "cifar100")],
)  # fmt: skip
def test_the_name_that_was_meant(shapes, name, meant):
    (shapes / "tasks.json").write_text(json.dumps({"tasks": ENTRY}))
    message = refusal(shapes, name)
    assert message.endswith(f"not one of the field's tasks; did you mean {meant}?")
    assert "cars" not in message  # no list to look through


def test_all_names_where_none_is_near(shapes):
    (shapes / "tasks.json").write_text(json.dumps({"tasks": ENTRY}))
    message = refusal(shapes, "elephants")
    assert f"which has shapes; and not one of the field's tasks: {', '.join(KNOWN)}" in message


@pytest.mark.parametrize(
    "name, message",
    [("mnits", "; did you mean mnist?"), ("elephants", ": mnist, digits, fashion_mnist, ")],
)
def test_of_the_embedded_tasks(name, message):
    said = refusal("embedded", name)
    assert said.startswith(f"data: task {name!r}: is not one of the embedded tasks{message}")
    assert "tasks.json" not in said
