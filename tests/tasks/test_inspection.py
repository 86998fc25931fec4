"""Hashes of content, and what is kept of images from one look to the next."""

import hashlib
import os
import sqlite3
import subprocess
import sys

import numpy as np
import PIL.Image
import pytest

from orthoreg_jax.storage import cache_folder
from orthoreg_jax.tasks import inspection, kept
from orthoreg_jax.tasks.folder import FileImages
from orthoreg_jax.tasks.split import ArrayImages, Split

NAMES = tuple(f"{number}.bmp" for number in range(4))  # of one size, whatever their pixels


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Four files, and a cache folder; a file is settled at once."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(kept, "SETTLED", -1.0)
    for number, name in enumerate(NAMES):
        PIL.Image.fromarray(np.full((2, 4, 3), number, np.uint8)).save(tmp_path / name)
    return tmp_path


def split(folder):
    return Split(FileImages(folder, NAMES), np.array([0, 1, 0, 1], np.int32))


def sha256(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


def test_the_hash_of_files_is_that_of_their_content_and_labels(folder):
    contents = [(folder / name).read_bytes() for name in NAMES]
    labels = np.array([0, 1, 0, 1], "<i4").tobytes()
    expected = sha256(*map(sha256, contents), labels).hex()
    assert split(folder).sha256 == expected
    assert split(folder).sha256 == expected  # from what was kept
    PIL.Image.fromarray(np.full((2, 4, 3), 9, np.uint8)).save(folder / NAMES[2])
    assert (folder / NAMES[2]).stat().st_size == len(contents[2])
    assert split(folder).sha256 != expected
    (folder / NAMES[2]).write_bytes(contents[2])
    assert split(folder).sha256 == expected


def test_a_change_that_keeps_size_and_time_is_noticed(folder):
    path, before = folder / NAMES[0], split(folder).sha256
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    with path.open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x77")
    os.utime(path, ns=times)
    assert path.stat().st_mtime_ns == times[1]
    assert split(folder).sha256 != before


def test_names_and_cuts_do_not_count(folder):
    whole = split(folder)
    before, part = whole.sha256, whole.take([2, 3]).sha256
    os.rename(folder / NAMES[2], folder / "x.bmp")
    os.rename(folder / NAMES[3], folder / "y.bmp")
    again = Split(FileImages(folder, ("x.bmp", "y.bmp")), np.array([0, 1], np.int32))
    assert part == again.sha256 != before


def test_the_hash_of_arrays_tells_shape_and_labels():
    array = np.arange(48, dtype=np.uint8)
    labels = np.array([0, 1], np.int32)
    shapes = [(2, 4, 6), (2, 6, 4), (2, 2, 4, 3), (2, 4, 2, 3)]
    hashes = [Split(ArrayImages(array.reshape(shape)), labels).sha256 for shape in shapes]
    hashes.append(Split(ArrayImages(array.reshape(2, 4, 6)), labels[::-1]).sha256)
    assert len({*hashes}) == 5
    first = sha256(b"uint8 (4, 6)", array[:24].tobytes())
    second = sha256(b"uint8 (4, 6)", array[24:].tobytes())
    assert hashes[0] == sha256(first, second, labels.astype("<i4").tobytes()).hex()
    # Neither the memory's order nor the labels' own type counts.
    other = ArrayImages(np.asfortranarray(array.reshape(2, 4, 6)))
    assert Split(other, labels.astype(np.int64)).sha256 == hashes[0]


def looks(monkeypatch):
    """Counts how many images are opened, and whether whole."""
    opened = []

    def look(content, whole):
        opened.append(whole)
        return ()

    monkeypatch.setattr(inspection, "look", look)
    return opened


def test_unchanged_files_are_looked_at_once(folder, monkeypatch):
    opened = looks(monkeypatch)
    data = split(folder)
    assert data.inspect() == data.inspect() and opened == [False] * 4
    split(folder).inspect()
    assert opened == [False] * 4
    whole = split(folder).inspect(whole=True)
    assert opened == [False] * 4 + [True] * 4
    assert split(folder).inspect() == whole  # which serves where a header would do
    os.utime(folder / NAMES[1])
    split(folder).inspect(whole=True)
    assert opened == [False] * 4 + [True] * 5


def test_a_file_that_was_just_changed_is_not_kept(folder, monkeypatch):
    monkeypatch.setattr(kept, "SETTLED", 3600.0)
    opened = looks(monkeypatch)
    split(folder).inspect()
    split(folder).inspect()
    assert len(opened) == 8


def test_damage_is_looked_at_again(folder):
    good = (folder / NAMES[1]).read_bytes()
    (folder / NAMES[1]).write_bytes(good[:-5])
    for _ in range(2):
        problems = [facts.problem for facts in split(folder).inspect(whole=True)]
        assert [bool(problem) for problem in problems] == [False, True, False, False]
        assert problems[1].startswith(f"{folder / NAMES[1]}: cannot be read as an image")
    # The header alone does not tell.
    assert not any(facts.problem for facts in split(folder).inspect())


def test_what_vanished_is_named(folder):
    data = split(folder)
    (folder / NAMES[3]).unlink()
    assert "3.bmp: cannot be read" in data.inspect()[3].problem
    with pytest.raises(ValueError, match="3.bmp: cannot be read"):
        _ = data.sha256


@pytest.mark.parametrize(
    "spoil",
    [
        lambda cache: cache.write_bytes(b"no database" * 100),
        lambda cache: cache.write_bytes(cache.read_bytes()[:5000]),
        lambda cache: cache.write_bytes(cache.read_bytes()[:4096] + bytes(8192)),
        lambda cache: cache.write_bytes(b""),
        lambda cache: cache.unlink(),
    ],
)
def test_a_damaged_cache_does_no_harm_and_is_made_anew(folder, spoil, monkeypatch):
    expected = split(folder).inspect(whole=True)
    spoil(folder / "cache/orthoreg_jax/images.sqlite")
    for _ in range(2):
        assert split(folder).inspect(whole=True) == expected
    opened = looks(monkeypatch)
    assert split(folder).inspect(whole=True) == expected and opened == []


def test_rows_of_a_cache_that_are_no_facts_do_no_harm(folder):
    expected = split(folder).inspect()
    with sqlite3.connect(folder / "cache/orthoreg_jax/images.sqlite") as table:
        assert table.execute("SELECT count(*) FROM images").fetchone() == (4,)
        table.execute("UPDATE images SET changes = '{'")
    table.close()
    assert split(folder).inspect() == expected


def test_a_cache_in_use_does_not_stop_the_work(folder, monkeypatch):
    expected = split(folder).inspect()
    real = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda path, timeout: real(path, timeout=0.05))
    other = real(folder / "cache/orthoreg_jax/images.sqlite")
    other.execute("BEGIN EXCLUSIVE")
    assert split(folder).inspect() == expected
    other.close()


def test_no_room_for_a_cache(folder, monkeypatch):
    (folder / "file").touch()
    expected = split(folder).sha256
    cache = folder / "cache/orthoreg_jax/images.sqlite"
    cache.unlink()
    cache.mkdir()
    assert split(folder).sha256 == expected
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "file"))
    assert split(folder).sha256 == expected


def test_no_home(folder, monkeypatch):
    """A user whom the system does not know, without HOME."""
    code = "from orthoreg_jax.storage import cache_folder; print(cache_folder())"
    start = "import os; os.setuid(54321)\n" if os.geteuid() == 0 else ""
    if not start:
        pytest.skip("only root can become such a user")
    env = {key: value for key, value in os.environ.items() if key not in ("HOME", "XDG_CACHE_HOME")}
    script = code.replace("; print", f"; {start.strip()}; print")
    found = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True)
    assert found.stdout == "None\n", found.stderr
    expected = split(folder).sha256
    monkeypatch.setattr(kept, "cache_folder", lambda: None)
    assert split(folder).sha256 == expected
    assert cache_folder() == folder / "cache" / "orthoreg_jax"
