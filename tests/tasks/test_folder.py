"""What is found in folders as people have them: right counts, and what is passed over is said."""

import json
import os
import shutil
import unicodedata

import numpy as np
import PIL.Image
import pytest

from orthoreg_jax.tasks.class_names import ClassNames
from orthoreg_jax.tasks.folder import find_images
from orthoreg_jax.tasks.task import load_tasks


def write(folder, *paths):
    """An image at each path, whose first pixel is its number."""
    for number, path in enumerate(paths):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        pixels = np.full((3, 4, 3), number, np.uint8)
        kind = "png" if (folder / path).suffix.lower() not in (".gif", ".jpg") else None
        PIL.Image.fromarray(pixels).save(folder / path, kind)


def load(folder, **entry):
    (folder / "tasks.json").write_text(
        json.dumps({"tasks": {"mine": {"folder": "mine", "templates": ["a {}"], **entry}}})
    )
    return load_tasks(str(folder), ["mine"])["mine"]


def counts(task):
    return {split: len(data) for split, data in task.splits.items()}


def notes(task):
    return {each.what: each.number for each in task.notes}


@pytest.fixture
def mine(tmp_path):
    """Two classes, one or two images in each split."""
    folder = tmp_path / "mine"
    for split in ("train", "val", "test"):
        write(folder, f"{split}/fox/1.png", f"{split}/owl/1.png", f"{split}/owl/2.png")
    return folder


def test_a_plain_folder_leaves_nothing_to_say(mine):
    task = load(mine.parent)
    assert (task.classes, counts(task)) == (("fox", "owl"), {"train": 3, "val": 3, "test": 3})
    assert task.remarks() == []


def test_links_to_directories_are_followed(mine, tmp_path):
    write(tmp_path / "elsewhere", "cats/1.png", "cats/2.png")
    for split in ("train", "val", "test"):
        (mine / split / "cat").symlink_to(tmp_path / "elsewhere" / "cats")
    task = load(tmp_path)
    assert (task.classes, counts(task)["train"]) == (("cat", "fox", "owl"), 5)
    np.testing.assert_array_equal(task.splits["train"].labels, [0, 0, 1, 2, 2])
    assert task.splits["train"].images[1][0, 0, 0] == 1


def test_links_in_a_circle_end(mine, tmp_path):
    (mine / "train" / "owl" / "again").symlink_to(mine / "train")
    (mine / "train" / "owl" / "self").symlink_to("self")
    with pytest.raises(ValueError, match="owl/self is a link to nothing"):
        load(tmp_path)
    (mine / "train" / "owl" / "self").unlink()
    task = load(tmp_path)
    assert counts(task)["train"] == 3
    assert notes(task) == {"skipped: a link to a directory that contains it": 1}


def test_hidden_and_system_directories_are_no_classes(mine, tmp_path):
    write(mine, "train/.ipynb_checkpoints/1.png", "train/owl/.ipynb_checkpoints/1.png",
          "train/__MACOSX/1.png", "train/owl/._1.png")  # fmt: skip
    task = load(tmp_path)
    assert (task.classes, counts(task)["train"]) == (("fox", "owl"), 3)
    assert notes(task) == {"skipped: hidden, or system files": 4}


def test_images_outside_of_a_class_are_skipped(mine, tmp_path):
    write(mine, "train/stray.png", "train/other.png")
    task = load(tmp_path)
    assert (task.classes, counts(task)["train"]) == (("fox", "owl"), 3)
    assert notes(task) == {"skipped: not in a class directory": 2}


def test_other_endings_are_counted(mine, tmp_path):
    write(mine, "train/owl/a.gif", "train/owl/b.GIF", "test/fox/c.jpg")
    (mine / "train/owl/notes.txt").write_text("owls")
    (mine / "train/owl/LICENCE").write_text("free")
    task = load(tmp_path)
    assert counts(task) == {"train": 3, "val": 3, "test": 4}
    assert notes(task) == {"skipped: ending .gif": 2, "skipped: ending .txt": 1,
                           "skipped: no ending": 1}  # fmt: skip
    assert "2 skipped: ending .gif (train/owl/a.gif, train/owl/b.GIF)" in map(str, task.notes)


@pytest.mark.parametrize("name", ["valid", "validation"])
def test_names_of_the_validation_split(mine, tmp_path, name):
    (mine / "val").rename(mine / name)
    task = load(tmp_path)
    assert counts(task) == {"train": 3, "val": 3, "test": 3}
    write(mine, "val/fox/1.png", "val/owl/1.png")
    with pytest.raises(ValueError, match=f"contains val and {name}; keep one of them"):
        load(tmp_path)


def test_a_cut_of_train_is_said(mine, tmp_path):
    (mine / "val").rename(mine / "dev")
    write(mine, *(f"train/fox/{number}.png" for number in range(2, 20)))
    task = load(tmp_path)
    assert counts(task) == {"train": 19, "val": 2, "test": 3}
    what = "images held out of train as the missing validation split (10 %, at most 5000)"
    assert notes(task) == {what: 2, "ignored: directories that belong to no split": 1,
                           "classes without an image in val": 1}  # fmt: skip
    assert "1 class without an image in val (owl)" in map(str, task.notes)


def test_lists_beside_split_directories_are_refused(mine, tmp_path):
    for split in ("train", "test"):
        (mine / f"{split}.txt").write_text(f"{split}/owl/1.png\n")
    with pytest.raises(ValueError, match=r"lists \(train.txt, test.txt\) and directories \(train/"):
        load(tmp_path)


@pytest.mark.parametrize("name", ["val.txt", "valid.txt", "validation.txt"])
def test_lists(tmp_path, name):
    folder = tmp_path / "mine"
    # A class may be called as a split is, and there may be images that no list names.
    write(folder, "train/1.png", "train/2.png", "owl/3.png", "owl/4.png", "owl/5.png")
    lines = {"train.txt": "\ufefftrain/1.png\r\nowl/3.png", name: "/owl/4.png", "test.txt": "2.png"}
    for each, text in lines.items():
        (folder / each).write_text(text)
    task = load(tmp_path)
    assert (task.classes, counts(task)) == (("owl", "train"), {"train": 2, "val": 1, "test": 1})
    assert [task.splits[s].labels.tolist() for s in ("train", "val", "test")] == [[1, 0], [0], [1]]
    assert task.splits["test"].images[0][0, 0, 0] == 1
    assert notes(task) == {"ignored: images that no list names": 1,
                           "classes without an image in val": 1,
                           "classes without an image in test": 1}  # fmt: skip


def test_a_list_s_directory_is_not_passed_over(tmp_path):
    """A file of that name in another class's directory is another image."""
    folder = tmp_path / "mine"
    write(folder, "fox/1.png", "owl/2.png")
    for split in ("train", "val", "test"):
        (folder / f"{split}.txt").write_text("fox/1.png\nowl/2.png")
    (folder / "test.txt").write_text("fox/2.png")
    with pytest.raises(ValueError, match="1 of its 1 image is not below.*'fox/2.png'"):
        load(tmp_path)


def test_a_line_that_stands_twice_is_said(tmp_path):
    folder = tmp_path / "mine"
    write(folder, "fox/1.png", "owl/2.png")
    for split in ("train", "val", "test"):
        (folder / f"{split}.txt").write_text("fox/1.png\nowl/2.png\n")
    (folder / "val.txt").write_text("fox/1.png\n/fox/1.png\nowl/2.png\nfox/1.png")
    task = load(tmp_path)
    assert counts(task)["val"] == 4 and notes(task) == {"named more than once by val.txt": 1}


def test_deeper_directories_belong_to_their_class(mine, tmp_path):
    write(mine, "train/owl/batch1/1.png", "train/owl/batch2/x.jpg/3.png")
    task = load(tmp_path)
    assert (task.classes, counts(task)["train"]) == (("fox", "owl"), 5)
    assert task.splits["train"].labels.tolist() == [0, 1, 1, 1, 1]
    assert notes(task) == {"in subdirectories of their class directory": 2}


def test_two_directories_of_one_class(mine, tmp_path):
    write(mine, "train/Fox/1.png", "train/Fox/2.png")
    task = load(tmp_path, classes=["fox", "owl"], labels=["fox", "owl"])
    assert task.splits["train"].labels.tolist() == [0, 0, 0, 1, 1]
    assert notes(task) == {"directories that name the same class as another one": 2}


def test_a_class_that_one_split_lacks(mine, tmp_path):
    shutil.rmtree(mine / "test" / "fox")
    task = load(tmp_path)
    assert task.splits["test"].labels.tolist() == [1, 1]
    assert notes(task) == {"classes without an image in test": 1}


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda f: (f / "a.jpg").symlink_to("nothing"), "owl/a.jpg is a link to nothing"),
        (lambda f: (f.parent / "cat").symlink_to("nothing"), "cat is a link to nothing"),
        (lambda f: os.mkfifo(f / "a.jpg"), "owl/a.jpg is not a file"),
        (lambda f: (f.parent / "cat").mkdir(), "holds no image in the directories cat"),
        (lambda f: (f / "a.jpg").touch(), "owl/a.jpg: cannot be read.*it is empty"),
        (lambda f: (f / "a.jpg").write_text("<html>"), "owl/a.jpg: cannot be read.*b'<html>'"),
    ],
)
def test_what_should_be_an_image_and_is_none_is_refused(mine, tmp_path, spoil, message):
    spoil(mine / "train" / "owl")
    with pytest.raises(ValueError, match=message):
        load(tmp_path)


def test_all_unreadable_images_are_counted_and_the_first_named(mine, tmp_path):
    for number in range(25):
        (mine / "train" / "owl" / f"x{number:02}.png").touch()
    with pytest.raises(ValueError, match="25 images cannot be read") as caught:
        load(tmp_path)
    assert "x19.png" in str(caught.value) and "x20.png" not in str(caught.value)
    assert "and 5 more" in str(caught.value)


def test_a_directory_called_as_an_image_is_a_directory(mine, tmp_path):
    (mine / "train" / "owl" / "x.jpg").mkdir()
    assert counts(load(tmp_path))["train"] == 3


def test_a_folder_of_skipped_files_says_what_it_holds(mine, tmp_path):
    for split in ("train", "val", "test"):
        write(mine, f"{split}/cat/1.gif")
    with pytest.raises(ValueError, match=r"directories cat .*\.jpeg.*1 skipped: ending .gif"):
        load(tmp_path)


def test_names_that_are_not_utf_8(mine, tmp_path):
    """Files are read; a message shows the bytes; a class needs a name."""
    odd = os.fsdecode(b"caf\xe9.png")
    try:
        os.rename(mine / "train/owl/2.png", mine / "train/owl" / odd)
    except OSError:
        pytest.skip("this file system takes UTF-8 alone")
    task = load(tmp_path)
    assert counts(task)["train"] == 3 and len(task.splits["train"].sha256) == 64
    (mine / "train/owl" / odd).write_bytes(b"")
    with pytest.raises(ValueError, match=r"owl/caf\\xe9.png: cannot be read") as caught:
        load(tmp_path)
    str(caught.value).encode()
    os.rename(mine / "train/owl", mine / "train" / os.fsdecode(b"\xff"))
    with pytest.raises(ValueError, match=r"\\xff have names that are not UTF-8") as caught:
        load(tmp_path)
    str(caught.value).encode()


def test_a_list_names_files_by_their_bytes(tmp_path):
    folder = tmp_path / "mine"
    write(folder, "fox/1.png", "owl/2.png")
    try:
        os.rename(folder / "fox/1.png", os.fsencode(folder) + b"/fox/\xe9.png")
    except OSError:
        pytest.skip("this file system takes UTF-8 alone")
    for split in ("train", "val", "test"):
        (folder / f"{split}.txt").write_bytes(b"fox/\xe9.png\nowl/2.png\n")
    assert counts(load(tmp_path)) == {"train": 2, "val": 2, "test": 2}


def test_a_directory_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(ValueError, match="nowhere: cannot be read"):
        find_images(tmp_path / "nowhere")


@pytest.mark.parametrize(
    "labels, directory, place",
    [
        (["c++", "c#"], "c#", 1),
        (["c++", "c#"], "C++", 0),
        (["c++", "c#"], "c", None),
        (["café", "cafe"], unicodedata.normalize("NFD", "café"), 0),
        (["café", "cafe"], "CAFE", 1),
        (["red fox", "owl"], "Red-Fox", 0),
        (["/a/abbey", "/a/arch"], "a_arch", 1),
        (["😀", "😞"], "😞", 1),
        (["+", "-"], "#", None),
        (["Polish", "polish"], "polish", 1),
        (["Polish", "polish"], "POLISH", None),
    ],
)
def test_names_of_directories(labels, directory, place):
    assert ClassNames(labels).find(directory) == place


def test_a_folder_in_another_normal_form(mine, tmp_path):
    for split in ("train", "val", "test"):
        (mine / split / "fox").rename(mine / split / unicodedata.normalize("NFD", "café"))
    task = load(tmp_path, classes=[unicodedata.normalize("NFC", "café"), "owl"])
    assert task.splits["train"].labels.tolist() == [0, 1, 1]


def test_labels_have_the_last_word():
    """A directory that is one class's label and another one's name in prompts is the label's."""
    assert ClassNames(["0", "1"], ["1", "0"]).find("1") == 1


def test_one_label_twice_is_refused():
    with pytest.raises(ValueError, match="same name for files: a"):
        ClassNames(["a", "b", "a"])
