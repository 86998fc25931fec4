import json
import re

import numpy as np
import pytest

from orthoreg_jax.tasks.split import ArrayImages
from orthoreg_jax.tasks.task import data_directory, load_tasks

SPLITS = ("train", "val", "test")


def write(folder, change=lambda arrays, entry: None, names=("shapes", "control")):
    """A data folder of small tasks; `change` may spoil the first."""
    rng = np.random.default_rng(0)
    table = {}
    for number, name in enumerate(names):
        arrays = {}
        for split in SPLITS:
            arrays[f"{split}_images"] = rng.integers(0, 255, (6, 8, 8, 3), dtype=np.uint8)
            arrays[f"{split}_labels"] = np.array([0, 1, 2, 0, 1, 2], np.int32)
        entry = {"title": name.title(), "classes": ["a", "b", "c"], "templates": ["a {}"]}
        if number == 0:
            change(arrays, entry)
        table[name] = entry
        np.savez(folder / f"{name}.npz", **arrays)
    (folder / "tasks.json").write_text(json.dumps({"tasks": table}))
    return str(folder)


def test_embedded_tasks_are_whole():
    table = json.loads((data_directory("embedded") / "tasks.json").read_text())["tasks"]
    control = next(n for n, entry in table.items() if entry.get("about", {}).get("control"))
    tasks = load_tasks("embedded", [name for name in table if name != control], control)
    assert list(tasks)[-1] == control and len(tasks) == len(table)
    for name, task in tasks.items():
        for split, data in task.splits.items():
            assert data.images[len(data) - 1].shape == (32, 32, 3)
            if "part_of" not in table[name]:
                assert len(data) == table[name]["about"]["images"][split] > 0


@pytest.mark.parametrize("whole", ["mnist", "digits"])
def test_embedded_halves_make_the_whole(whole):
    tasks = load_tasks("embedded", [f"{whole}_low", f"{whole}_high", whole])
    low, high, both = tasks.values()
    assert low.classes == both.classes and low.title.endswith("zero to four")
    for split in SPLITS:
        labels = [np.sort(task.splits[split].labels) for task in (low, high, both)]
        assert labels[0].max() == 4 and labels[1].min() == 5
        np.testing.assert_array_equal(np.concatenate(labels[:2]), labels[2])


def add_part(folder, entry):
    """Adds an entry `half` to the table."""
    path = folder / "tasks.json"
    table = json.loads(path.read_text())
    table["tasks"]["half"] = entry
    path.write_text(json.dumps(table))


def test_a_part_is_the_images_of_its_classes(tmp_path):
    source = write(tmp_path)
    add_part(tmp_path, {"title": "Half", "part_of": "shapes", "part": ["c", "a"]})
    half, whole = load_tasks(source, ["half", "shapes"]).values()
    assert (half.name, half.title, half.classes) == ("half", "Half", whole.classes)
    for split in SPLITS:
        np.testing.assert_array_equal(half.splits[split].labels, [0, 2, 0, 2])
        expected = whole.splits[split].images.array[[0, 2, 3, 5]]
        np.testing.assert_array_equal(half.splits[split].images.array, expected)


@pytest.mark.parametrize(
    "entry, message",
    [
        ({"part_of": "shapes"}, "it must have 'part', a list of non-empty"),
        ({"part_of": "shapes", "part": ["a", "x"]}, "allowed: a list of classes of 'shapes'"),
        ({"part_of": "nothing", "part": ["a"]}, "part_of 'nothing'; allowed: a task with its own"),
        ({"part_of": "half", "part": ["a"]}, "part_of 'half'; allowed: a task with its own"),
    ],
)
def test_bad_parts(tmp_path, entry, message):
    source = write(tmp_path)
    add_part(tmp_path, entry)
    with pytest.raises(ValueError, match=re.escape(message)):
        load_tasks(source, ["half"])


def test_a_task_of_another_folder(tmp_path):
    (tmp_path / "theirs").mkdir()
    source = write(tmp_path)
    theirs = write(tmp_path / "theirs", names=("half",))
    add_part(tmp_path, {"from": "theirs"})
    half, shapes = load_tasks(source, ["half", "shapes"]).values()
    (expected,) = load_tasks(theirs, ["half"]).values()
    assert half.splits["test"].sha256 == expected.splits["test"].sha256
    assert half.title == "Half" and shapes.title == "Shapes"
    (tmp_path / "tasks.json").write_text('{"tasks": {"emoji": {"from": "embedded"}}}')
    (emoji,) = load_tasks(source, ["emoji"]).values()
    (expected,) = load_tasks("embedded", ["emoji"]).values()
    assert emoji.prompts_sha256 == expected.prompts_sha256


@pytest.mark.parametrize(
    "entry, message",
    [
        ({"from": 3}, "'from' must be a non-empty, printable text"),
        ({"from": "nowhere"}, "data 'nowhere': no such folder"),
        ({"from": "."}, "takes it from elsewhere, too"),
        ({"from": "embedded"}, "task 'half': is not one of the embedded tasks: mnist,"),
    ],
)
def test_bad_other_folders(tmp_path, entry, message):
    source = write(tmp_path)
    add_part(tmp_path, entry)
    with pytest.raises(ValueError, match=re.escape(message)):
        load_tasks(source, ["half"])


def test_a_part_needs_an_image_in_every_split(tmp_path):
    def change(arrays, entry):
        arrays["val_labels"][:] = 0

    source = write(tmp_path, change)
    add_part(tmp_path, {"part_of": "shapes", "part": ["b"]})
    with pytest.raises(ValueError, match="no image of b in the split val"):
        load_tasks(source, ["half"])


def test_no_image_of_a_test_split_is_in_another():
    table = json.loads((data_directory("embedded") / "tasks.json").read_text())["tasks"]
    names = [name for name in table if name != "concepts"]
    for task in load_tasks("embedded", names, "concepts").values():
        seen = {image.tobytes() for name in ("train", "val") if name in task.splits
                for image in task.splits[name].images.array}  # fmt: skip
        assert not seen & {image.tobytes() for image in task.splits["test"].images.array}


def test_grey_images_become_rgb():
    images = ArrayImages(np.arange(8, dtype=np.uint8).reshape(2, 2, 2))
    assert images.rgb().shape == (2, 2, 2, 3)
    for channel in range(3):
        np.testing.assert_array_equal(images.rgb()[..., channel], images.array)
        np.testing.assert_array_equal(images[1][..., channel], images.array[1])


def spoil(**arrays_or_entry):
    def change(arrays, entry):
        for key, value in arrays_or_entry.items():
            target = entry if key in ("classes", "templates", "sha256") else arrays
            if value is None:
                del target[key]
            else:
                target[key] = value

    return change


@pytest.mark.parametrize(
    "change, message",
    [
        (spoil(classes=["one"]), "1 class; a task needs at least 2"),
        (spoil(classes=["a", "b", "b"]), "appears twice"),
        (spoil(templates=None), "must have 'templates', a list of non-empty"),
        (spoil(classes="abc"), "'classes' must be a list of non-empty.*not 'abc'"),
        (spoil(classes=[1, 2, 3]), "'classes' must be a list of non-empty.*not \\[1, 2, 3\\]"),
        (spoil(templates=["a {}", "a thing"]), "its templates \\['a thing'\\]"),
        (spoil(templates=[]), "'templates' must be a list of non-empty"),
        (spoil(val_labels=None), "lacks val_labels; it contains"),
        (spoil(test_images=None, test_labels=None), "has no test split; it has train, val"),
        (
            spoil(test_images=np.zeros((0, 8, 8, 3), np.uint8), test_labels=np.zeros(0, np.int32)),
            "the test split contains no images",
        ),
        (spoil(train_labels=np.array([0, 1, 2, 3, 0, 0])), "from 0 to 3, but 3 class names"),
        (spoil(train_labels=np.zeros(5, np.int32)), "one integer for each of the 6 images"),
        (spoil(train_images=np.zeros((6, 8, 8, 3))), "float64.*expected uint8"),
        (spoil(train_images=np.zeros((6, 8, 8, 1), np.uint8)), "expected uint8"),
        (spoil(sha256={"train": "0" * 64}), "not have the hash"),
    ],
)
def test_bad_tasks(tmp_path, change, message):
    source = write(tmp_path, change)
    with pytest.raises(ValueError, match=f"task 'shapes'.*{message}"):
        load_tasks(source, ["shapes"], "control")


def test_missing_tasks_and_files_are_named_together(tmp_path):
    source = write(tmp_path)
    (tmp_path / "shapes.npz").unlink()
    message = re.compile(r"'shapes'.*shapes\.npz is missing.*'colours': is not in", re.DOTALL)
    with pytest.raises(ValueError, match=message):
        load_tasks(source, ["shapes", "colours"], "control")
    with pytest.raises(ValueError, match="nowhere.: no such folder"):
        load_tasks(str(tmp_path / "nowhere"), ["shapes"], "control")


@pytest.mark.parametrize("table", ["[]", '{"tasks": []}', '{"tasks": {"shapes": []}}', "{"])
def test_damaged_table(tmp_path, table):
    source = write(tmp_path)
    (tmp_path / "tasks.json").write_text(table)
    with pytest.raises(ValueError, match="tasks.json"):
        load_tasks(source, ["shapes"], "control")


def test_damaged_file(tmp_path):
    source = write(tmp_path)
    data = (tmp_path / "shapes.npz").read_bytes()
    (tmp_path / "shapes.npz").write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match="cannot be read.*copy it again"):
        load_tasks(source, ["shapes"], "control")


def test_nothing_is_unpickled(tmp_path):
    source = write(tmp_path, spoil(train_images=np.array([{"a": 1}] * 6, dtype=object)))
    with pytest.raises(ValueError, match="train images are object.*expected uint8"):
        load_tasks(source, ["shapes"], "control")


def test_validation_is_cut_from_arrays_without_it(tmp_path):
    train = {"train_images": np.zeros((20, 8, 8, 3), np.uint8), "train_labels": np.arange(20) % 3}
    source = write(tmp_path, spoil(val_images=None, val_labels=None, **train))
    splits = load_tasks(source, ["shapes"])["shapes"].splits
    assert [len(splits[name]) for name in ("train", "val", "test")] == [18, 2, 6]
