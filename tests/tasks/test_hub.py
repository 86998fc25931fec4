"""Sets of parquet files in a folder: pixels, labels and classes, and what is refused."""

import io
import json

import numpy as np
import PIL.Image
import pyarrow.parquet as pq
import pytest

from orthoreg_jax.clip.checkpoint import load_checkpoint
from orthoreg_jax.clip.preprocessing import load_preprocessing
from orthoreg_jax.tasks import parquet, row_groups
from orthoreg_jax.tasks.catalogue import KNOWN, entries
from orthoreg_jax.tasks.check import check_tasks
from orthoreg_jax.tasks.folder import FileImages
from orthoreg_jax.tasks.hub import class_order, split_files
from orthoreg_jax.tasks.loading import Feed
from orthoreg_jax.tasks.parquet import Schema
from orthoreg_jax.tasks.repositories import REPOSITORIES, Repository
from orthoreg_jax.tasks.split import Split
from orthoreg_jax.tasks.task import load_tasks
from tests import hub

NAMES, LABELS = ["owl", "red_fox", "sea lion"], [0, 1, 2, 0, 1, 2]


def picture(number):
    return np.random.default_rng(number).integers(0, 256, (5, 6, 3), dtype=np.uint8)


PICTURES = [hub.encoded(picture(number)) for number in range(12)]


def write_set(folder, train=None, test=None, **files):
    """A set of twelve training images and six for tests, three classes in turn."""
    folder.mkdir(parents=True, exist_ok=True)
    numbers = [number % 3 for number in range(12)]
    contents = {
        "train-00000-of-00002": hub.parquet(PICTURES[:7], numbers[:7], NAMES),
        "train-00001-of-00002": hub.parquet(PICTURES[7:], numbers[7:], NAMES),
        "test-00000-of-00001": hub.parquet(PICTURES[:6], numbers[:6], NAMES),
    }
    for name, content in (contents | files).items():
        if content is not None:
            (folder / f"{name}.parquet").write_bytes(content)


def write_entry(data, **entry):
    entry = {"hub": "animals", "templates": ["a {}"]} | entry
    (data / "tasks.json").write_text(json.dumps({"tasks": {"mine": entry}}))


def load(data):
    return load_tasks(str(data), ["mine"])["mine"]


def test_a_folder_of_parquet_files_needs_templates_only(tmp_path):
    write_set(tmp_path / "animals")
    write_entry(tmp_path)
    task = load(tmp_path)
    assert task.classes == ("owl", "red fox", "sea lion")
    assert {split: len(data) for split, data in task.splits.items()} == {
        "train": 11, "val": 1, "test": 6,
    }  # fmt: skip
    test = task.splits["test"]
    np.testing.assert_array_equal(test.labels, [0, 1, 2, 0, 1, 2])
    for row in (5, 0, 3, -1):  # across row groups of four, in any order
        np.testing.assert_array_equal(test.images[row], picture(row % 6))
    trained = {task.splits[split].images[row].tobytes(): label for split in ("train", "val")
               for row, label in enumerate(task.splits[split].labels)}  # fmt: skip
    assert trained == {picture(number).tobytes(): number % 3 for number in range(12)}
    (facts,) = check_tasks(str(tmp_path), ["mine"])
    assert facts.duplicates["train", "test"] + facts.duplicates["val", "test"] == 6
    assert f"18 images of {tmp_path / 'animals'}" in str(facts)
    assert test.images.place(5) == f"{tmp_path}/animals/test-00000-of-00001.parquet: row 5"


def test_the_same_images_in_directories_have_the_same_hash(tmp_path):
    write_set(tmp_path / "animals")
    write_entry(tmp_path)
    stored = load(tmp_path).splits["test"].sha256
    for number in range(12):  # the order of a directory: by class
        for split in ("train", "test") if number < 6 else ("train",):
            folder = tmp_path / "files" / split / NAMES[number % 3]
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{number}.png").write_bytes(PICTURES[number])
    order = [0, 3, 1, 4, 2, 5]
    by_class = hub.parquet([PICTURES[row] for row in order], [row % 3 for row in order], NAMES)
    write_set(tmp_path / "animals", **{"test-00000-of-00001": by_class})
    write_entry(tmp_path)
    ordered = load(tmp_path).splits["test"].sha256
    write_entry(tmp_path, folder="files")
    entry = {"folder": "files", "templates": ["a {}"]}
    (tmp_path / "tasks.json").write_text(json.dumps({"tasks": {"mine": entry}}))
    assert load(tmp_path).splits["test"].sha256 == ordered != stored


def test_classes_in_another_order_find_their_images(tmp_path):
    write_set(tmp_path / "animals")
    write_entry(tmp_path, classes=["Sea Lion", "owl", "red fox"])
    np.testing.assert_array_equal(load(tmp_path).splits["test"].labels, [1, 2, 0, 1, 2, 0])
    write_entry(tmp_path, classes=["seal", "bird", "vixen"])
    with pytest.raises(ValueError, match="add 'labels', the data's names in the order"):
        load(tmp_path)
    labels = ["sea lion", "owl", "red_fox"]
    write_entry(tmp_path, classes=["seal", "bird", "vixen"], labels=labels)
    np.testing.assert_array_equal(load(tmp_path).splits["test"].labels, [1, 2, 0, 1, 2, 0])


@pytest.mark.parametrize("struct, dtype", [(True, np.int64), (False, np.uint8), (True, np.int32)])
def test_a_set_without_names_is_told_apart_by_number_and_says_so(tmp_path, struct, dtype):
    numbers = np.array(LABELS * 2, dtype)
    plain = hub.parquet(PICTURES, numbers, image="jpg", label="cls", struct=struct)
    (tmp_path / "animals").mkdir()
    for split in ("train", "test"):
        (tmp_path / "animals" / f"{split}.parquet").write_bytes(plain)
    write_entry(tmp_path, classes=["owl", "fox", "sea lion"])
    task = load(tmp_path)
    np.testing.assert_array_equal(task.splits["test"].labels, LABELS * 2)
    assert "3 classes read by number, as the set names none" in map(str, task.notes)
    write_entry(tmp_path, classes=["owl", "fox", "sea lion"], labels=["2", "0", "1"])
    np.testing.assert_array_equal(load(tmp_path).splits["test"].labels, [1, 2, 0] * 4)
    write_entry(tmp_path)
    with pytest.raises(ValueError, match="does not name its classes; give 'classes'"):
        load(tmp_path)
    write_entry(tmp_path, classes=["owl", "fox"])
    with pytest.raises(ValueError, match="labels run to 2, but there are 2 classes"):
        load(tmp_path)


def test_labels_may_be_truth_values(tmp_path):
    (tmp_path / "animals").mkdir()
    content = hub.parquet(PICTURES, [False, True, True, False] * 3)
    for split in ("train", "test"):
        (tmp_path / "animals" / f"{split}.parquet").write_bytes(content)
    write_entry(tmp_path, classes=["owl", "fox"])
    np.testing.assert_array_equal(load(tmp_path).splits["test"].labels, [0, 1, 1, 0] * 3)


@pytest.mark.parametrize(
    "content, message",
    [
        (b"PAR1 and no more", "test-00000-of-00001.parquet: .*; fetch or copy it again"),
        (hub.parquet(PICTURES[:6], LABELS, NAMES)[:-900], "fetch or copy it again"),
        (
            hub.parquet(PICTURES[:6], LABELS, NAMES, label="cls"),
            "has no column 'label'; its columns are image",
        ),
        (hub.parquet(PICTURES[:6], [0, 1, 2, 0, 1, -1], NAMES), "run from -1 to 2; -1 marks"),
        (hub.parquet(PICTURES[:6], [0, 1, None, 0, 1, 2], NAMES), "1 rows have no 'label'"),
        (
            hub.parquet(PICTURES[:6], list("abcabc"), NAMES),
            "'label' holds string, but labels are int",
        ),
        (hub.parquet(PICTURES[:6], LABELS, NAMES[::-1]), "names other classes"),
        (hub.parquet([*PICTURES[:5], None], LABELS, NAMES), "row 5: .*contains no image bytes"),
        (hub.parquet([*PICTURES[:5], b"GIF8 no"], LABELS, NAMES), "row 5: cannot be read as an"),
        (None, "has no parquet file of the split test"),
    ],
)
def test_what_is_wrong_with_files_is_said(tmp_path, content, message):
    write_set(tmp_path / "animals", **{"test-00000-of-00001": content})
    write_entry(tmp_path)
    with pytest.raises(ValueError, match=message):
        load(tmp_path)


def test_a_file_that_is_missing_by_the_names_of_the_others(tmp_path):
    write_set(tmp_path / "animals", **{"train-00001-of-00002": None})
    write_entry(tmp_path)
    with pytest.raises(ValueError, match="split train is incomplete: of 2 files it has 0"):
        load(tmp_path)


def test_columns_are_named_where_they_are_several(tmp_path):
    for split in ("train", "test"):
        file = pq.read_table(io.BytesIO(hub.parquet(PICTURES, LABELS * 2)))
        file = file.append_column("coarse", [[0] * 12]).append_column("mask", file["image"])
        (tmp_path / "animals").mkdir(exist_ok=True)
        pq.write_table(file, tmp_path / "animals" / f"{split}.parquet")
    entry = {"classes": ["owl", "fox", "sea lion"]}
    write_entry(tmp_path, **entry)
    with pytest.raises(ValueError, match="2 columns that may be images; .* as 'image'"):
        load(tmp_path)
    write_entry(tmp_path, image="image", **entry)
    with pytest.raises(ValueError, match="2 columns that may be labels; .* as 'label'"):
        load(tmp_path)
    write_entry(tmp_path, image="image", label="fine", **entry)
    with pytest.raises(ValueError, match="no column 'fine'"):
        load(tmp_path)
    write_entry(tmp_path, image="image", label="label", **entry)
    np.testing.assert_array_equal(load(tmp_path).splits["test"].labels, LABELS * 2)


def test_splits_and_configurations_are_found_by_names():
    paths = ["data/train-00000-of-00001-0a1b.parquet", "data/test-00000-of-00001.parquet"]
    assert split_files(paths, "", "s") == {"train": paths[:1], "test": paths[1:]}
    converted = ["small/train/0000.parquet", "small/train/0001.parquet", "full/train/0000.parquet",
                 "small/test.parquet", "README.md"]  # fmt: skip
    assert split_files(converted, "small", "s") == {
        "train": ["small/train/0000.parquet", "small/train/0001.parquet"],
        "test": ["small/test.parquet"],
    }
    with pytest.raises(ValueError, match="train is in full, small; name one of them as 'config'"):
        split_files(converted, "", "s")


def test_row_groups_are_read_once_and_the_oldest_let_go(tmp_path, monkeypatch):
    write_set(tmp_path / "animals")
    write_entry(tmp_path)
    test = load(tmp_path).splits["test"].images
    read = []

    def counted(group, column, whole=row_groups._read_column):
        read.append(group.number)
        return whole(group, column)

    monkeypatch.setattr(row_groups, "_read_column", counted)
    monkeypatch.setattr(parquet, "GROUPS", row_groups.Groups(1 << 20))
    for row in (0, 3, 5, 4, 0):
        _ = test[row]
    assert read == [0, 1]
    monkeypatch.setattr(parquet, "GROUPS", row_groups.Groups(100))  # one group at a time
    for row in (0, 3, 5, 4, 0):
        np.testing.assert_array_equal(test[row], picture(row))
    assert read == [0, 1, 0, 1, 0]


def test_training_batches_are_those_of_the_same_files(tmp_path):
    clip = load_checkpoint("embedded")
    preprocessing = load_preprocessing(clip.directory, clip.config)
    write_set(tmp_path / "animals")
    write_entry(tmp_path)
    stored = load(tmp_path).splits["test"]
    for number in range(6):
        (tmp_path / f"{number}.png").write_bytes(PICTURES[number])
    files = Split(FileImages(tmp_path, tuple(f"{n}.png" for n in range(6))), stored.labels)
    feeds = [Feed(split, preprocessing, 4, 0, 0.9) for split in (stored, files)]
    for batches in zip(*(feed.batches(0, 6) for feed in feeds), strict=True):
        (images, labels), (others, same) = batches
        np.testing.assert_array_equal(images, others)
        np.testing.assert_array_equal(labels, same)


def test_what_is_kept_is_a_quarter_of_what_a_container_may_have(tmp_path, monkeypatch):
    monkeypatch.setattr(row_groups, "LIMIT", tmp_path / "memory.max")
    whole = row_groups._quarter_of_memory()
    (tmp_path / "memory.max").write_text("400000\n")
    assert row_groups._quarter_of_memory() == 100_000
    (tmp_path / "memory.max").write_text("max\n")
    assert row_groups._quarter_of_memory() == whole > 100_000


def test_every_task_of_the_field_has_a_row():
    assert set(REPOSITORIES) == set(KNOWN)
    for name, set_ in REPOSITORIES.items():
        assert set_.name.count("/") == 1 and set(set_.splits) == {"train", "test"}, name


@pytest.mark.parametrize("name", sorted(KNOWN))
def test_classes_of_the_field_are_found_by_their_names_in_any_order(name):
    entry = entries()[name]
    shuffled = np.random.default_rng(0).permutation(len(entry["labels"]))
    names = tuple(entry["labels"][place] for place in shuffled)
    schema, labels = Schema("i", "l", names), entry["labels"]
    classes = entry["classes"]
    found, order, _ = class_order(schema, Repository("a/b"), labels, classes, "a/b")
    np.testing.assert_array_equal(order, shuffled)
    assert found == tuple(labels)


def test_classes_that_are_not_ours_are_refused():
    entry = entries()["cars"]
    labels, classes = entry["labels"], entry["classes"]
    fewer, strange = tuple(labels[:-1]), (*labels[:-1], "Trabant 601 1964")
    with pytest.raises(ValueError, match="has 195 classes, but the task's 196 are .* add 'labels'"):
        class_order(Schema("i", "l", fewer), Repository("a/b"), labels, classes, "a/b")
    with pytest.raises(ValueError, match="calls classes Trabant 601 1964, but the task's"):
        class_order(Schema("i", "l", strange), Repository("a/b"), labels, classes, "a/b")
    with pytest.raises(ValueError, match="calls classes 0, 1, 2"):  # no names: which is which?
        class_order(Schema("i", "l", ()), Repository("a/b"), labels, classes, "a/b")


def test_a_row_that_vouches_for_its_numbers_is_not_believed_against_its_names():
    entry = entries()["kmnist"]
    labels, classes = entry["labels"], entry["classes"]
    numbered = Repository("a/b", numbered=True)
    digits = tuple(map(str, range(10)))
    for names in ((), digits, (*labels[:-1], "wo with another word")):
        _, order, _ = class_order(Schema("i", "l", names), numbered, labels, classes, "a/b")
        np.testing.assert_array_equal(order, np.arange(10))
    swapped = (*labels[:-3], labels[-2], labels[-3], "wo with another word")
    with pytest.raises(ValueError, match="in another order: re is number 7, but ours is number 8"):
        class_order(Schema("i", "l", swapped), numbered, labels, classes, "a/b")


def test_a_task_of_the_field_from_a_folder_of_the_sets_name(tmp_path):
    names = entries()["svhn"]["labels"][::-1]
    for split, count in (("train", 40), ("test", 20)):
        folder = tmp_path / "ufldl-stanford" / "svhn" / "cropped_digits"
        folder.mkdir(parents=True, exist_ok=True)
        images = [hub.encoded(picture(number)) for number in range(count)]
        content = hub.parquet(images, [number % 10 for number in range(count)], names)
        (folder / f"{split}-00000-of-00001.parquet").write_bytes(content)
    task = load_tasks(str(tmp_path), ["svhn"])["svhn"]
    np.testing.assert_array_equal(task.splits["test"].labels, 9 - np.arange(20) % 10)
    np.testing.assert_array_equal(task.splits["test"].images[13], picture(13))


def test_a_task_of_the_field_with_its_images_elsewhere_keeps_its_prompts(tmp_path):
    names = entries()["svhn"]["labels"]
    for split in ("train", "test"):
        (tmp_path / "mine").mkdir(exist_ok=True)
        content = hub.parquet(PICTURES[:10], [*range(10)], names)
        (tmp_path / "mine" / f"{split}.parquet").write_bytes(content)
    (tmp_path / "tasks.json").write_text(json.dumps({"tasks": {"svhn": {"hub": "mine"}}}))
    task = load_tasks(str(tmp_path), ["svhn"])["svhn"]
    assert task.title == "SVHN" and list(task.templates) == entries()["svhn"]["templates"]
    np.testing.assert_array_equal(task.splits["test"].labels, range(10))


def test_images_of_other_kinds_are_read_by_the_same_rules(tmp_path):
    deep = np.arange(30, dtype=np.uint16).reshape(5, 6) * 2000
    alpha = np.dstack([picture(0), np.full((5, 6), 9, np.uint8)])
    images = [hub.encoded(deep), hub.encoded(alpha), hub.encoded(picture(2), "jpeg")]
    write_set(
        tmp_path / "animals", **{"test-00000-of-00001": hub.parquet(images, LABELS[:3], NAMES)}
    )
    write_entry(tmp_path)
    task = load(tmp_path)
    np.testing.assert_array_equal(task.splits["test"].images[1], picture(0))
    grey = np.round(deep / 257).astype(np.uint8)
    np.testing.assert_array_equal(task.splits["test"].images[0][..., 1], grey)
    found = {each.what: each.first for each in task.remarks()}
    name = "test-00000-of-00001.parquet row"
    assert found["images with transparency, which is dropped"] == (f"{name} 1",)
    assert found["images with 16 bits per channel, scaled to 8"] == (f"{name} 0",)
    with PIL.Image.open(io.BytesIO(images[2])) as image:
        np.testing.assert_array_equal(task.splits["test"].images[2], np.asarray(image))


def test_without_pyarrow_the_extra_is_named(tmp_path, monkeypatch):
    write_set(tmp_path / "animals")
    write_entry(tmp_path)
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    with pytest.raises(ValueError, match=r"pip install 'orthoreg-jax\[data\]'"):
        load(tmp_path)
