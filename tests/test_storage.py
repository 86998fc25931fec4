import errno
import json
import os
import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from orthoreg_jax import storage
from orthoreg_jax.storage import (
    StorageError,
    only_one,
    read_json,
    replacing,
    replacing_folder,
    write_json,
    write_text,
)
from orthoreg_jax.trees import StoredTree, load_tree, save_tree


def test_trees_survive(tmp_path):
    tree = {
        "visual": {"kernel": np.arange(6.0).reshape(2, 3).T, "bias": np.float32(3)},
        "scale": np.ones(()),
    }
    save_tree(tmp_path / "sub" / "tree.safetensors", tree, {"task": "mnist"})
    back = load_tree(tmp_path / "sub" / "tree.safetensors")
    np.testing.assert_array_equal(back["visual"]["kernel"], tree["visual"]["kernel"])
    assert back["scale"].shape == () and back["visual"]["bias"] == 3
    with safetensors.safe_open(tmp_path / "sub" / "tree.safetensors", "numpy") as file:
        about = json.loads(file.metadata()["about"])
    assert about["task"] == "mnist" and len(about["sha256"]) == 64
    assert [path.name for path in (tmp_path / "sub").iterdir()] == ["tree.safetensors"]


@pytest.mark.parametrize(
    "tree", [{"mlp/~/linear": np.ones(2)}, {"a": [np.ones(2)]}, [np.ones(2)], {"a": (np.ones(2),)}]
)
def test_trees_that_would_not_come_back_are_refused(tmp_path, tree):
    with pytest.raises(ValueError, match="nested dicts whose keys are strings without '/'"):
        save_tree(tmp_path / "tree.safetensors", tree)


def nested(levels):
    tree = np.ones(2)
    for _ in range(levels):
        tree = {"a": tree}
    return tree


@pytest.mark.parametrize("tree, message", [
    ({"__metadata__": np.ones(2)}, "reserves the name '__metadata__'"),
    ({"w": np.ones(2, ml_dtypes.float8_e4m3fn)}, "leaf 'w' is of type float8_e4m3fn, .* allowed"),
    ({"w": np.ones(2, np.complex64)}, "leaf 'w' is of type complex64"),
    ({"w": np.array(["a"])}, "leaf 'w' is of type"),
    ({}, "tree.safetensors: not written: the tree has no arrays"),
    ({"a": {}}, "the tree has no arrays"),
    (nested(101), "more than 100 levels deep"),
    (nested(9000), "more than 100 levels deep"),
])  # fmt: skip
def test_leaves_that_would_not_come_back_are_refused(tmp_path, tree, message):
    with pytest.raises(ValueError, match=message):
        save_tree(tmp_path / "tree.safetensors", tree)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", [">f4", ">i8", "<f2", ml_dtypes.bfloat16, bool])
def test_types_and_byte_orders_come_back(tmp_path, kind):
    leaf = np.arange(3).astype(kind)
    save_tree(tmp_path / "tree.safetensors", {"b": {"__metadata__": leaf}} | nested(100))
    back = load_tree(tmp_path / "tree.safetensors")["b"]["__metadata__"]
    np.testing.assert_array_equal(back, leaf)
    assert StoredTree(tmp_path / "tree.safetensors").check()


@pytest.mark.parametrize("name, kind", [
    ("w", ml_dtypes.float8_e4m3fn), ("/".join("a" * 30000), np.float32),
])  # fmt: skip
def test_files_of_others_that_no_tree_holds(tmp_path, name, kind):
    path = tmp_path / "tree.safetensors"
    safetensors.numpy.save_file({name: np.ones(2, kind)}, path)
    with pytest.raises(StorageError, match="tree.safetensors: not a complete safetensors file"):
        load_tree(path)


def test_files_that_are_no_trees_are_left_alone(tmp_path):
    (tmp_path / "README.md").write_text("# Mine\n")
    for read in (load_tree, StoredTree):
        with pytest.raises(StorageError, match="README.md: not a safetensors file .*; give one$"):
            read(tmp_path / "README.md")
        with pytest.raises(StorageError, match=": is a folder; give a file in it"):
            read(tmp_path)
        with pytest.raises(StorageError, match="none.safetensors: no such file"):
            read(tmp_path / "none.safetensors")


def test_json_survives_and_refuses_nan(tmp_path):
    write_json(tmp_path / "a.json", {"x": [1, 2.5]})
    assert read_json(tmp_path / "a.json") == {"x": [1, 2.5]}
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"x": float("nan")})
    assert json.loads((tmp_path / "a.json").read_text()) == {"x": [1, 2.5]}  # the old one stays


def test_json_that_is_nested_too_deep_is_refused(tmp_path):
    (tmp_path / "a.json").write_text("[" * 100_000)
    with pytest.raises(StorageError, match="a.json: cannot be read"):
        read_json(tmp_path / "a.json")


def test_truncated_tree(tmp_path):
    path = tmp_path / "tree.safetensors"
    save_tree(path, {"w": np.ones(100)})
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(StorageError, match="delete it and run again"):
        load_tree(path)
    with pytest.raises(StorageError, match="no such file"):
        load_tree(tmp_path / "none.safetensors")
    with pytest.raises(StorageError, match="cannot be read"):
        read_json(tmp_path / "none.json")


def test_a_changed_bit_is_noticed(tmp_path):
    path = tmp_path / "tree.safetensors"
    save_tree(path, {"w": np.ones(100), "b": np.zeros(3, bool)})
    data = bytearray(path.read_bytes())
    data[-50] ^= 4
    path.write_bytes(data)
    with pytest.raises(StorageError, match="is damaged: its hash has changed"):
        load_tree(path)


def test_what_is_told_with_a_tree_is_kept_beside_its_hash(tmp_path):
    path = tmp_path / "tree.safetensors"
    save_tree(path, {"w": np.ones(3)}, {"task": "digits"})
    stored = StoredTree(path)
    assert stored.about == {"task": "digits", "sha256": stored.check()}
    with pytest.raises(ValueError, match="'sha256' is reserved for the hash of the content"):
        save_tree(path, {"w": np.ones(3)}, {"sha256": "0"})


def test_metadata_of_another_form_is_said(tmp_path):
    path = tmp_path / "tree.safetensors"
    safetensors.numpy.save_file({"w": np.ones(3)}, path, metadata={"about": "[1]"})
    for read in (load_tree, StoredTree):
        with pytest.raises(StorageError, match="its metadata is a list, not a table"):
            read(path)


def test_other_programs_files_are_read(tmp_path):
    path = tmp_path / "tree.safetensors"
    safetensors.numpy.save_file({"a/b": np.ones(2)}, path, metadata={"format": "pt"})
    np.testing.assert_array_equal(load_tree(path)["a"]["b"], np.ones(2))


def test_full_disk_leaves_nothing_half_written(tmp_path, monkeypatch):
    """/dev/full gives a real ENOSPC on every write."""
    path = tmp_path / "results.json"
    write_json(path, {"old": True})

    def full(scratch, text, **_):
        with open("/dev/full", "w") as device:
            device.write(text)

    monkeypatch.setattr(storage.pathlib.Path, "write_text", full)
    with pytest.raises(StorageError, match="No space left.*free disk space, or choose another"):
        write_json(path, {"old": False})
    monkeypatch.undo()
    assert read_json(path) == {"old": True}
    assert [item.name for item in tmp_path.iterdir()] == ["results.json"]


def test_an_interrupted_write_leaves_nothing(tmp_path):
    for write in (replacing, replacing_folder):
        with pytest.raises(KeyboardInterrupt), write(tmp_path / "a") as scratch:
            (scratch / "b" if scratch.is_dir() else scratch).write_text("half")
            raise KeyboardInterrupt
        assert not list(tmp_path.iterdir())


def test_what_a_killed_write_left_goes_with_the_next_one(tmp_path):
    """What a living one is writing stays."""
    program = (
        "import pathlib, sys, time\n"
        "from orthoreg_jax.storage import replacing\n"
        "with replacing(pathlib.Path(sys.argv[1])) as scratch:\n"
        "    scratch.write_text('half')\n"
        "    print('writing', flush=True)\n"
        "    time.sleep(600)\n"
    )
    path, other = tmp_path / "a.json", tmp_path / "a.json.b"
    command = [sys.executable, "-c", program, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as writing:
        assert writing.stdout.readline() == b"writing\n"
        write_text(path, "whole")
        (left,) = [item for item in tmp_path.iterdir() if item != path]
        assert (left / "a.json").read_text() == "half"
        writing.kill()
    write_text(other, "of another name")
    assert left.exists()
    write_text(path, "whole")
    assert sorted(tmp_path.iterdir()) == [path, other]


def test_rights_are_those_that_the_umask_leaves(tmp_path):
    before = os.umask(0o027)
    try:
        write_text(tmp_path / "text", "a")
        save_tree(tmp_path / "tree", {"w": np.ones(3)})
        with replacing_folder(tmp_path / "model") as scratch:
            safetensors.numpy.save_file({"w": np.ones(3)}, scratch / "weights")
    finally:
        os.umask(before)
    for name, mode in {
        "text": 0o640,
        "tree": 0o640,
        "model": 0o750,
        "model/weights": 0o640,
    }.items():
        assert (tmp_path / name).stat().st_mode & 0o777 == mode, name


def test_a_folder_is_replaced_as_a_whole(tmp_path):
    for name in ("old", "new"):
        with replacing_folder(tmp_path / "model") as scratch:
            (scratch / name).write_text(name)
    assert [item.name for item in tmp_path.iterdir()] == ["model"]
    assert [item.name for item in (tmp_path / "model").iterdir()] == ["new"]


def test_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="make the folder writable"):
        write_json(tmp_path / "file" / "results.json", {})


def test_read_only_folder(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(storage.pathlib.Path, "mkdir", refuse)  # root may write anywhere
    with pytest.raises(StorageError, match="Read-only file system"):
        write_json(tmp_path / "results.json", {})


def test_a_second_process_is_kept_away(tmp_path):
    program = (
        "import pathlib, sys\n"
        "from orthoreg_jax.storage import StorageError, only_one\n"
        "try:\n"
        "    with only_one(pathlib.Path(sys.argv[1])):\n"
        "        print('mine')\n"
        "except StorageError as error:\n"
        "    print(error)\n"
    )
    folder = tmp_path / "run" / "full"
    command = [sys.executable, "-c", program, str(folder)]
    with only_one(folder):
        out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert "another process is using it" in out
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert out == "mine\n"
    assert not any(folder.iterdir())
    with pytest.raises(StorageError, match="cannot be written"):
        (tmp_path / "file").write_text("")
        with only_one(tmp_path / "file" / "run"):
            pass


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_is_neither_written_nor_read(tmp_path, bad):
    tree = {"a": np.ones(3), "tower": {"kernel": np.array([[1.0, bad], [bad, 2.0]], np.float32)}}
    path = tmp_path / "vector.safetensors"
    message = "vector.safetensors.*leaf 'tower/kernel' has 2 NaN or infinite values out of 4"
    with pytest.raises(ValueError, match=message):
        save_tree(path, tree)
    assert not path.exists()
    safetensors.numpy.save_file({"a": tree["a"], "tower/kernel": tree["tower"]["kernel"]}, path)
    for read in (load_tree, lambda path: StoredTree(path).check()):
        with pytest.raises(StorageError, match=message):
            read(path)
