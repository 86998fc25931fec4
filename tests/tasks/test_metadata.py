"""Image folders whose labels are in a table beside the images."""

import csv
import json

import numpy as np
import PIL.Image
import pytest

from orthoreg_jax.tasks.check import check_tasks
from orthoreg_jax.tasks.task import load_tasks

NAMES = ["red fox", "owl"]


def picture(number):
    return np.random.default_rng(number).integers(0, 256, (4, 5, 3), dtype=np.uint8)


def write(folder, rows, kind):
    """A table, and an image for each of its rows, by its number."""
    for number, row in enumerate(rows):
        path = folder / row["file_name"]
        path.parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(picture(number)).save(path)
    if kind == "jsonl":
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / "metadata.jsonl").write_text(text)
    else:
        with (folder / "metadata.csv").open("w", newline="") as file:
            table = csv.DictWriter(file, list(rows[0]))
            table.writeheader()
            table.writerows(rows)


def rows_of(count, labels=NAMES, above=""):
    return [{"file_name": f"{above}{number:02d}.png", "label": labels[number % len(labels)],
             "text": "one, two"} for number in range(count)]  # fmt: skip


def write_entry(folder, **entry):
    entry = {"folder": "animals", "templates": ["a {}"]} | entry
    (folder / "tasks.json").write_text(json.dumps({"tasks": {"mine": entry}}))


def load(folder):
    return load_tasks(str(folder), ["mine"])["mine"]


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
@pytest.mark.parametrize("name", ["val", "valid", "validation"])
def test_labels_by_name(tmp_path, kind, name):
    for split, count in (("train", 12), (name, 4), ("test", 6)):
        write(tmp_path / "animals" / split, rows_of(count), kind)
    write_entry(tmp_path)
    task = load(tmp_path)
    assert task.classes == ("owl", "red fox")
    assert [len(data) for data in task.splits.values()] == [12, 4, 6]
    np.testing.assert_array_equal(task.splits["test"].labels, [1, 0] * 3)
    for row in range(6):
        np.testing.assert_array_equal(task.splits["test"].images[row], picture(row))
    write_entry(tmp_path, classes=["Red Fox", "owl"])
    np.testing.assert_array_equal(load(tmp_path).splits["test"].labels, [0, 1] * 3)


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_labels_by_number_are_told_apart_by_it_and_said(tmp_path, kind):
    for split, count in (("train", 12), ("test", 6)):
        write(tmp_path / "animals" / split, rows_of(count, [1, 0]), kind)
    write_entry(tmp_path, classes=NAMES)
    task = load(tmp_path)
    np.testing.assert_array_equal(task.splits["test"].labels, [1, 0] * 3)
    assert "2 classes read by number, as the tables name none" in map(str, task.notes)
    write_entry(tmp_path, classes=NAMES, labels=["1", "0"])
    np.testing.assert_array_equal(load(tmp_path).splits["test"].labels, [0, 1] * 3)


def test_one_table_for_all_splits(tmp_path):
    write(tmp_path / "animals", rows_of(10, above="train/") + rows_of(4, above="test/"), "csv")
    write_entry(tmp_path)
    splits = load(tmp_path).splits
    assert [len(data) for data in splits.values()] == [9, 1, 4]
    np.testing.assert_array_equal(splits["test"].images[3], picture(13))
    np.testing.assert_array_equal(splits["test"].labels, [1, 0, 1, 0])


def test_what_one_table_leaves_out_is_counted(tmp_path):
    above = rows_of(10, above="train/") + rows_of(4, above="test/") + rows_of(2, above="more/")
    write(tmp_path / "animals", above, "csv")
    PIL.Image.fromarray(picture(0)).save(tmp_path / "animals" / "test" / "unnamed.png")
    write_entry(tmp_path)
    task = load(tmp_path)
    assert [len(data) for data in task.splits.values()] == [9, 1, 4]
    said = " ".join(map(str, task.notes))
    assert "1 ignored: image that metadata.csv does not name" in said and "unnamed.png" in said
    assert "2 ignored: images that metadata.csv lists outside the splits' directories" in said


def test_a_table_without_labels_leaves_them_to_the_directories(tmp_path):
    for split, count in (("train", 12), ("test", 6)):
        rows = [{"file_name": f"{NAMES[number % 2]}/{number}.png", "text": "a"}
                for number in range(count)]  # fmt: skip
        write(tmp_path / "animals" / split, rows, "csv")
    write_entry(tmp_path)
    task = load(tmp_path)
    assert task.classes == ("owl", "red fox") and len(task.splits["test"]) == 6
    assert any("ending .csv" in str(each) for each in task.notes)


def test_images_that_no_table_names_are_counted(tmp_path):
    for split, count in (("train", 12), ("test", 6)):
        write(tmp_path / "animals" / split, rows_of(count), "csv")
    PIL.Image.fromarray(picture(99)).save(tmp_path / "animals" / "test" / "more.png")
    write_entry(tmp_path)
    (facts,) = check_tasks(str(tmp_path), ["mine"])
    assert "1 ignored: image that metadata.csv does not name (more.png)" in str(facts)
    assert facts.splits["test"].images == 6


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda f: (f / "test/01.png").unlink(), "1 of its 6 images is missing, .* '01.png'"),
        (lambda f: (f / "test/metadata.csv").unlink(), "test have no table with a column 'label'"),
        (lambda f: (f / "test/metadata.jsonl").write_text("{}"), "keep one of them"),
        (lambda f: write(f / "test", rows_of(6, ["owl", "elk"]), "csv"), "elk match none of the 3"),
        (lambda f: write(f / "test", rows_of(4) + rows_of(2), "csv"), "00.png, 01.png more than"),
        (lambda f: (f / "test/metadata.csv").write_text('file_name,label\n"a'), "cannot be read"),
        (lambda f: (f / "test/metadata.csv").write_text("label,x\nowl,1\n"), "row 1 has no 'file"),
    ],
)
def test_what_is_wrong_with_tables_is_said(tmp_path, change, message):
    for split, count in (("train", 12), ("test", 6)):
        write(tmp_path / "animals" / split, rows_of(count), "csv")
    write_entry(tmp_path, labels=["red fox", "owl", "sea lion"])
    change(tmp_path / "animals")
    with pytest.raises(ValueError, match=message):
        load(tmp_path)
