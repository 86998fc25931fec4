"""Every key of tasks.json, with what it may not hold; one bad entry does not hide the others."""

import json
import os
import re
import threading

import numpy as np
import pytest

from orthoreg_jax.tasks.check import check_tasks
from orthoreg_jax.tasks.table import check_entry, check_name, read_table
from orthoreg_jax.tasks.task import load_tasks

GOOD = {
    "arrays": {"title": "A", "classes": ["a", "b"], "templates": ["a {}"], "sha256": {},
               "about": {"licence": 3, "anything": [None]}},
    "folder": {"folder": "birds", "templates": ["a {}"], "labels": ["a", "b"]},
    "tfds": {"tfds": "x/y", "splits": {"train": "train[:9%]", "test": "t"}, "templates": ["a {}"]},
    "part": {"part_of": "arrays", "part": ["a"], "title": "Half"},
    "from": {"from": "embedded"},
}  # fmt: skip
WRONG = (
    None,
    True,
    5,
    1.5,
    "",
    " ",
    "a\nb",
    "a\0",
    "\ud800",
    [],
    [1],
    [None],
    [[]],
    [""],
    {},
    {"a": 1},
)


@pytest.mark.parametrize("kind", GOOD)
def test_what_is_allowed(kind):
    assert check_entry(GOOD[kind]) == GOOD[kind]


@pytest.mark.parametrize("kind", GOOD)
def test_every_key_holds_what_it_should(kind):
    """Every other type is refused, by the name of the key, and nothing but refused."""
    for key in GOOD[kind]:
        refused = 0
        for value in WRONG:
            try:
                check_entry(GOOD[kind] | {key: value})
            except ValueError as error:
                assert f"{key!r} must be" in str(error)
                refused += 1
        # Empty hashes and splits are tables all the same.
        assert refused == len(WRONG) - {"about": len(WRONG), "sha256": 1, "splits": 1}.get(key, 0)


@pytest.mark.parametrize(
    "entry, message",
    [
        (5, "is 5; it must be a table of keys"),
        ([], "is []; it must be a table"),
        (GOOD["arrays"] | {"tempaltes": []}, "has 'tempaltes' (did you mean 'templates'?); allo"),
        (GOOD["folder"] | {"template": []}, "has 'template' (did you mean 'templates'?); allowed"),
        (GOOD["arrays"] | {"labels": ["a"]}, "has 'labels'; allowed with images in NAME.npz"),
        (
            {"folderr": "birds"},
            "'folderr' (did you mean 'folder'?); allowed with images in NAME.npz: title, "
            "templates, classes, sha256, about ('about' may contain anything); for images "
            "elsewhere, one of from, part_of, folder, ",
        ),
        (GOOD["folder"] | {"splits": {}}, "has 'splits'; allowed beside 'folder'"),
        (GOOD["from"] | {"title": "B"}, "has 'title'; allowed beside 'from': from, about"),
        (GOOD["part"] | {"templates": ["{}"]}, "has 'templates'; allowed beside 'part_of'"),
        (GOOD["folder"] | {"tfds": "a"}, "has 'folder' and 'tfds', each of which says where"),
        ({"folder": "a"}, "it must have 'templates', a list of non-empty"),
        ({"templates": ["{}"]}, "it must have 'classes', a list of non-empty"),
        (GOOD["tfds"] | {"splits": {"valid": "x"}}, "'splits' must be a table from our splits"),
        ({"tfds": "a", "templates": ["{}"]}, "it must have 'splits'"),
        ({"part_of": "a"}, "it must have 'part'"),
    ],
)  # fmt: skip
def test_entries(entry, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        check_entry(entry)


def write(folder, table):
    rng = np.random.default_rng(0)
    arrays = {}
    for split in ("train", "val", "test"):
        arrays[f"{split}_images"] = rng.integers(0, 256, (4, 5, 5, 3), dtype=np.uint8)
        arrays[f"{split}_labels"] = np.array([0, 1, 0, 1])
    np.savez(folder / "good.npz", **arrays)
    entry = {"classes": ["a", "b"], "templates": ["a {}"]}
    (folder / "tasks.json").write_text(json.dumps({"tasks": {"good": entry} | table}))
    return str(folder)


def test_one_bad_entry_does_not_stop_the_check_of_the_others(tmp_path):
    bad = {"one": {"folder": 5, "templates": ["{}"]}, "two": {"part_of": [], "part": ["a"]},
           "three": {"from": {}}, "four": [], "five": {"part_of": "four", "part": ["a"]},
           "six": {"part_of": "one", "part": ["a"]}, "seven": {"from": "."}, "eight": None,
           "nine": {"folder": "x" * 999, "templates": ["{}"]}, "ten": {"from": "y" * 999},
           "eleven": {"folder": "good.npz", "templates": ["{}"]}}  # fmt: skip
    source = write(tmp_path, bad)
    facts = list(check_tasks(source, [*bad, "good"]))
    assert [bool(each.problem) for each in facts] == [True] * len(bad) + [False]
    words = ("its entry in tasks.json", "from elsewhere", "too long", "no such folder",
             "good.npz: no such directory")  # fmt: skip
    for each in facts[:-1]:
        assert any(word in each.problem for word in words), each
    assert load_tasks(source, ["good"])["good"].classes == ("a", "b")


@pytest.mark.parametrize("name", ["..", ".", "a/b", "a\\b", "evaluation.json", "", "a b", "a,b",
                                  "x" * 61, "report.HTML", "a\n", ".hidden", "-x"])  # fmt: skip
def test_names_that_no_folder_may_have(tmp_path, name):
    source = write(tmp_path, {name: {"classes": ["a", "b"], "templates": ["a {}"]}})
    with pytest.raises(ValueError, match="is not a valid task name"):
        check_name(name)
    with pytest.raises(ValueError, match="is not a valid task name"):
        load_tasks(source, [name])
    assert not list(check_tasks(source, ["good"]))[0].problem


@pytest.mark.parametrize(
    "name", ["mnist", "mnist_low", "v1.0", "Vögel", "c++", "2024-05", "evaluation"]
)
def test_names(name):
    check_name(name)


@pytest.mark.parametrize(
    "text, message",
    [
        ("[" * 100_000, "recursion"),
        ('{"tasks": ' + '{"a": ' * 100_000, "recursion"),
        ('{"tasks": {"good": {}, "good": {}}}', "good appears twice"),
        ('{"tasks": {"good": {"classes": ["a"], "classes": ["b"]}}}', "classes appears twice"),
        ('{"tasks": [1]}', 'has no table "tasks"; its entries belong there, for example '),
        ("5", "has no table"),
        (
            '{"birds": {"folder": "birds"}}',
            r'no table "tasks".*{"tasks": {"birds": {"folder": "birds", "templates": \["a photo',
        ),
        ("", "cannot be read"),
        ("\xff\xfe", "cannot be read"),
        ("9" * 5000, "cannot be read"),
    ],
)
def test_a_damaged_table_is_named(tmp_path, text, message):
    (tmp_path / "tasks.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=f"tasks.json.*{message}"):
        read_table(str(tmp_path), tmp_path)


@pytest.mark.parametrize("name", ["tasks.json", "good.npz"])
def test_a_pipe_is_not_waited_for(tmp_path, name):
    source = write(tmp_path, {})
    (tmp_path / name).unlink()
    os.mkfifo(tmp_path / name)
    errors = []

    def attempt():
        with pytest.raises(ValueError, match=f"{name}.*not a file"):
            load_tasks(source, ["good"])
        errors.append(None)

    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(20)
    assert errors, "it waits"


def test_unused_arrays_are_not_unpacked(tmp_path):
    """A gigabyte of zeros takes a megabyte in the file; it never gets into memory."""
    import resource
    import zipfile

    source = write(tmp_path, {})
    with zipfile.ZipFile(tmp_path / "good.npz", "a", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("extra.npy", "w") as file:
            header = {"descr": "|u1", "fortran_order": False, "shape": (1 << 28,)}
            np.lib.format.write_array_header_1_0(file, header)
            for _ in range(1 << 8):
                file.write(bytes(1 << 20))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    task = load_tasks(source, ["good"])["good"]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1 << 16  # kB
    assert [str(each) for each in task.notes] == [
        "1 ignored: arrays that belong to no split (extra)"
    ]


def test_arrays_of_a_wrong_type_are_refused_before_they_are_unpacked(tmp_path):
    import zipfile

    source = write(tmp_path, {})
    with zipfile.ZipFile(tmp_path / "good.npz", "w") as archive:
        for split in ("train", "val", "test"):
            for kind, shape in (("images", (1 << 40, 8, 8, 3)), ("labels", (1 << 40,))):
                with archive.open(f"{split}_{kind}.npy", "w") as file:
                    np.lib.format.write_array_header_1_0(
                        file, {"descr": "<f8", "fortran_order": False, "shape": shape}
                    )
    with pytest.raises(ValueError, match="train images are float64 of shape"):
        load_tasks(source, ["good"])


@pytest.mark.parametrize("name", ["valid", "validation"])
def test_the_validation_arrays_may_be_called_otherwise(tmp_path, name):
    source = write(tmp_path, {})
    with np.load(tmp_path / "good.npz") as archive:
        arrays = {key.replace("val_", f"{name}_"): archive[key] for key in archive.files}
    np.savez(tmp_path / "good.npz", **arrays)
    (task,) = load_tasks(source, ["good"]).values()
    assert len(task.splits["train"]) == 4 and not task.notes
    np.testing.assert_array_equal(task.splits["val"].images.array, arrays[f"{name}_images"])


def test_labels_of_another_byte_order(tmp_path):
    source = write(tmp_path, {})
    with np.load(tmp_path / "good.npz") as archive:
        arrays = {key: archive[key] for key in archive.files}
    arrays["train_labels"] = arrays["train_labels"].astype(">i4")
    np.savez(tmp_path / "good.npz", **arrays)
    labels = load_tasks(source, ["good"])["good"].splits["train"].labels
    assert labels.tolist() == [0, 1, 0, 1] and labels.dtype.isnative
