"""Fetching sets from a stand-in of the hub: cut off and resumed, pinned, refused, offline."""

import json
import os
import subprocess
import sys
import types

import numpy as np
import pytest

from orthoreg_jax import cli
from orthoreg_jax.tasks.catalogue import entries
from orthoreg_jax.tasks.repositories import CONVERTED, REPOSITORIES
from orthoreg_jax.tasks.task import load_tasks
from tests import hub

NAME, LABELS = "tanganke/dtd", entries()["dtd"]["classes"]


def files(first=0, count=94):
    """A set of DTD's form, two files of train and one of test, of so many images each."""
    images = [hub.encoded(np.full((9, 9, 3), first + number, np.uint8)) for number in range(count)]
    numbers, half = [number % 47 for number in range(count)], count // 2
    return {
        ".gitattributes": b"text",
        "data/train-00000-of-00002.parquet": hub.parquet(images[:half], numbers[:half], LABELS),
        "data/train-00001-of-00002.parquet": hub.parquet(images[half:], numbers[half:], LABELS),
        "data/test-00000-of-00001.parquet": hub.parquet(images[::-1], numbers[::-1], LABELS),
    }


@pytest.fixture
def server(monkeypatch, tmp_path):
    server = hub.Server()
    hub.use(monkeypatch, server, tmp_path / "cache")
    # Its client waits a second before it tries again; a thousand bytes are a chunk.
    waits = types.SimpleNamespace(sleep=lambda seconds: None)
    monkeypatch.setattr("huggingface_hub.file_download.time", waits)
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1000)
    server.add(NAME, files())
    yield server
    server.stop()


def prepare(folder, tasks="dtd", *more):
    return cli.main(["data", "prepare", "--tasks", tasks, "--data", str(folder / "data"), *more])


def load(folder, name="dtd"):
    return load_tasks(str(folder / "data"), [name])[name]


def test_what_is_fetched_is_said_before_and_read_offline_after(server, tmp_path, capsys):
    server.licences[NAME] = "cc-by-4.0"
    size = sum(len(content) for name, content in files().items() if name.endswith(".parquet"))
    assert prepare(tmp_path) == 0
    lines, bar = capsys.readouterr()
    assert lines.splitlines() == [
        f"dtd: {NAME}@0123456789ab, {size / 1e6:.1f} MB in 3 files; licence: for research, see its "
        "page; on the hub: cc-by-4.0",
        f"to fetch: {size / 1e6:.1f} MB, into {tmp_path / 'cache'}",
        "dtd: fetched",
    ]
    assert "dtd  1/1" in bar and "MB/s" in bar
    assert [name for name, _ in server.served] == [*sorted(files())[2:], sorted(files())[1]]
    server.stop()
    task = load(tmp_path)
    assert {split: len(data) for split, data in task.splits.items()} == {
        "train": 85, "val": 9, "test": 94,
    }  # fmt: skip
    assert f"188 images of {NAME}@0123456789ab" in map(str, task.notes)
    np.testing.assert_array_equal(task.splits["test"].labels, np.arange(93, -1, -1) % 47)
    assert task.splits["test"].images[0][0, 0, 0] == 93
    assert prepare(tmp_path) == 0  # which asks nobody
    assert capsys.readouterr().out == "dtd: ready (85 train, 9 val, 94 test images)\n"


def test_a_file_that_was_cut_goes_on_at_the_byte_it_was_cut_at(server, tmp_path):
    server.cuts = [3500, None, 2100]
    assert prepare(tmp_path) == 0
    first, second, test = sorted(files())[2], sorted(files())[3], sorted(files())[1]
    assert server.served == [(first, 0), (first, 3000), (second, 0), (second, 2000), (test, 0)]
    load(tmp_path)


def test_what_was_cut_off_goes_on_with_its_file(server, tmp_path, monkeypatch, capsys):
    server.cuts, server.dies = [None, 1500], True
    assert prepare(tmp_path) == 1
    said = capsys.readouterr().err
    assert "1 of 1 task is not ready:\n  dtd: " in said and "the hub does not provide it" in said
    assert not (tmp_path / "data" / "hub.json").exists()
    with pytest.raises(ValueError, match="orthoreg data prepare"):  # half of it is not read
        load(tmp_path)
    again = hub.Server()
    hub.use(monkeypatch, again, tmp_path / "cache")
    again.add(NAME, files())
    assert prepare(tmp_path) == 0
    assert "1 of them here" in capsys.readouterr().out
    assert [name for name, _ in again.served] == [sorted(files())[3], sorted(files())[1]]
    again.stop()


def test_the_revision_stays_until_the_record_goes(server, tmp_path, monkeypatch):
    assert prepare(tmp_path) == 0
    before = load(tmp_path).splits["test"].sha256
    later = "f" * 40
    server.sets[NAME] = {later: (("main",), files(first=100)),
                         hub.COMMIT: ((), files())}  # fmt: skip
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "other"))
    assert prepare(tmp_path) == 0
    assert load(tmp_path).splits["test"].sha256 == before
    record = tmp_path / "data" / "hub.json"
    assert json.loads(record.read_text())[NAME]["commit"] == hub.COMMIT
    record.unlink()
    assert prepare(tmp_path) == 0
    assert json.loads(record.read_text())[NAME]["commit"] == later
    assert load(tmp_path).splits["test"].images[0][0, 0, 0] == 193


def test_other_bytes_than_the_hub_lists_are_removed(server, tmp_path, capsys):
    server.hashes["data/test-00000-of-00001.parquet"] = "0" * 64
    assert prepare(tmp_path) == 1
    assert "the download is not what the hub lists" in capsys.readouterr().err
    server.hashes.clear()
    assert prepare(tmp_path) == 0
    assert "2 of them here" in capsys.readouterr().out


def test_a_set_that_is_published_in_another_form_is_there_converted(server, tmp_path, capsys):
    server.sets[NAME] = {"a" * 40: (("main",), {"data.zip": b"PK"})}
    converted = {
        f"default/{split}/0000.parquet": files()[f"data/{split}-00000-of-0000{count}.parquet"]
        for split, count in (("train", 2), ("test", 1))
    }
    server.add(NAME, converted, "refs/convert/parquet", "b" * 40)
    assert prepare(tmp_path) == 0
    assert f"{NAME}@bbbbbbbbbbbb" in capsys.readouterr().out
    assert len(load(tmp_path).splits["test"]) == 94


def test_every_row_of_the_field_is_fetched_and_read_as_it_says(server, tmp_path, capsys):
    pixels = np.random.default_rng(0).integers(0, 256, (10, 3, 4, 3), dtype=np.uint8)
    images = [hub.encoded(each) for each in pixels]
    for name, row in REPOSITORIES.items():
        classes = len(entries()[name]["labels"])
        names = None if row.numbered else entries()[name]["labels"][::-1]
        labels = [number % classes for number in range(10)]
        if name == "pcam":
            labels = [bool(label) for label in labels]
        content = hub.parquet(images, labels, names, row.image or "image", row.label or "label")
        places = {called: f"{row.config or 'data'}/{called}-00000-of-00001.parquet"
                  for called in row.splits.values()}  # fmt: skip
        if row.revision == CONVERTED:
            places = {called: f"default/{called}/0000.parquet" for called in places}
        files = {path: content for path in places.values()} | {"README.md": b"x"}
        server.sets.pop(row.name, None)
        server.add(row.name, files, row.revision or "main")
    assert prepare(tmp_path, "20,imagenet") == 0
    said = capsys.readouterr().out
    for name, row in REPOSITORIES.items():
        assert f"{name}: {row.name}@{hub.COMMIT[:12]}, " in said and f"{name}: fetched" in said
        test = load(tmp_path, name).splits["test"]
        classes = len(entries()[name]["labels"])
        numbers = np.arange(10) % classes
        np.testing.assert_array_equal(
            test.labels, numbers if row.numbered else classes - 1 - numbers, name
        )
        wanted = pixels[3].transpose(1, 0, 2) if name == "emnist" else pixels[3]
        np.testing.assert_array_equal(test.images[3], wanted)


def test_refusals_say_what_to_do_and_do_not_keep_the_others(server, tmp_path, capsys):
    server.gated.add("tanganke/gtsrb")
    server.add("tanganke/cifar10", {"data/train.parquet": b"x"})
    assert prepare(tmp_path, "gtsrb,dtd,stl10,cifar10,nothing") == 1
    said = capsys.readouterr()
    assert "dtd: fetched" in said.out
    wanted = ("4 of 5 tasks are not ready", "gtsrb: tanganke/gtsrb@main: the hub does not",
              "`hf auth login`", "stl10: tanganke/stl10@main: the", "has no parquet file of the "
              "split test", "nothing: is not in", "GatedRepo", "RepositoryNotFound")  # fmt: skip
    for part in wanted:
        assert part in said.err, part


def test_room_is_looked_at_before_anything_is_fetched(server, tmp_path, monkeypatch, capsys):
    little = types.SimpleNamespace(free=1000)
    monkeypatch.setattr("orthoreg_jax.tasks.preparing.shutil.disk_usage", lambda path: little)
    assert prepare(tmp_path) == 1
    assert "0.0 MB are free; free some, prepare fewer tasks, or set HF_HUB_CACHE" in (
        capsys.readouterr().err
    )
    assert not server.served


def test_an_entry_of_ones_own_names_set_revision_and_splits(server, tmp_path, capsys):
    (tmp_path / "data").mkdir()
    contents = {f"small/{name}.parquet": files()[f"data/{old}.parquet"] for name, old in (
        ("fit-00000-of-00001", "train-00000-of-00002"), ("holdout-00000-of-00001",
                                                         "test-00000-of-00001"))}  # fmt: skip
    server.add("me/textures", contents, "v2", "c" * 40)
    entry = {"hub": "me/textures", "revision": "v2", "config": "small", "templates": ["a {}"],
             "splits": {"train": "fit", "test": "holdout"}}  # fmt: skip
    (tmp_path / "data" / "tasks.json").write_text(json.dumps({"tasks": {"mine": entry}}))
    assert prepare(tmp_path, "mine") == 0
    assert "licence: unknown; on the hub: not stated there" in capsys.readouterr().out
    assert load(tmp_path, "mine").classes == tuple(LABELS)


@pytest.mark.parametrize(
    "text", ["[1]", "{", '{"tanganke/dtd": 1}', '{"tanganke/dtd": {"commit": 3, "files": []}}',
             '{"tanganke/dtd": {"commit": "0123", "files": [null]}}']
)  # fmt: skip
def test_a_damaged_record_is_said(server, tmp_path, text, capsys):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "hub.json").write_text(text)
    assert prepare(tmp_path) == 1
    said = capsys.readouterr().err
    assert f"{tmp_path}/data/hub.json: " in said and "remove it" in said
    assert not server.served


def test_nothing_is_fetched_for_the_data_that_come_with_the_package(server, capsys):
    for tasks, code in (("mnist", 0), ("dtd", 1)):
        command = ["data", "prepare", "--tasks", tasks, "--data", "embedded"]
        assert cli.main(command) == code
    said = capsys.readouterr()
    assert "mnist: ready" in said.out and "dtd: is not among" in said.err
    assert not server.served


def test_tasks_or_a_config(tmp_path, capsys):
    for more in ([], ["--tasks", "dtd", "--config", "configs/embedded.py"]):
        assert cli.main(["data", "check", *more]) == 1
        assert "give --config, or --tasks (and --data)" in capsys.readouterr().err
    data = ["--data", "embedded"]
    assert cli.main(["data", "check", "--tasks", "mnist", *data]) == 0
    assert cli.main(["data", "check", "--tasks", "8", "--data", str(tmp_path)]) == 1
    assert "8 of 8 tasks are missing or wrong: cars, dtd" in capsys.readouterr().err


def test_the_command_by_the_hub_s_own_settings(server, tmp_path, monkeypatch):
    settings = {"HF_ENDPOINT": server.address, "HF_HUB_CACHE": str(tmp_path / "cache"),
                "HF_HUB_DISABLE_XET": "1"}  # fmt: skip
    command = [sys.executable, "-m", "orthoreg_jax", "data", "prepare", "--tasks", "dtd",
               "--data", str(tmp_path / "data")]  # fmt: skip
    environment = os.environ | settings
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.endswith("dtd: fetched\n"), done.stderr
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert len(load(tmp_path).splits["test"]) == 94


def test_data_that_is_ready_needs_nothing_of_the_hub(tmp_path):
    """In a process of its own: here, other tests have loaded parts of the hub's library."""
    words = ["data", "prepare", "--tasks", "digits", "--data", "embedded"]
    command = [sys.executable, "-m", "orthoreg_jax.cli", *words]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("digits: ready (")
