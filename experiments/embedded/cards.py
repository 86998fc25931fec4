"""Writes ATTRIBUTION.md and DATA_CARD.md."""

from fonts import pinned
from packages import PACKAGES
from sets import FLAG_SETS, families
from task_file import SPLITS, Slice, Task

_OTHERS = [
    ("Fashion-MNIST", "Zalando SE (H. Xiao, K. Rasul, R. Vollgraf)", "fashion_mnist", "MIT"),
    (
        "MNIST (5,000 images)",
        "Y. LeCun, C. Cortes, C. J. C. Burges",
        "mnist",
        "package BSD-3-Clause; MNIST states no licence",
    ),
    (
        "Optical Recognition of Handwritten Digits",
        "E. Alpaydin, C. Kaynak; UCI Machine Learning Repository",
        "digits",
        "CC-BY-4.0",
    ),
    ("Animal Shape", "S. Mohammadi", "silhouettes", "MIT as stated by the package"),
    ("Noto Emoji (sheet)", "Google Inc", "emoji", "Apache-2.0"),
    ("Twemoji (sheet)", "Twitter, Inc and other contributors", "emoji", "CC-BY-4.0"),
]


def attribution(used: dict[str, dict]) -> str:
    """The attribution file: every source and every icon set, with its author and licence.

    Args:
      used: entries of the icon collection for the sets in use.
    """
    sides = families()
    lines = [
        "# Attribution",
        "",
        "The images in `tasks/` and the weights trained from images like them come from these",
        "works. Changes: images were reduced or enlarged to 32x32 pixels; icons and typefaces'",
        "characters were drawn in chosen ink and paper colours, with transparency in 16 steps.",
        "",
        "## Image sets",
        "",
        "| work | author | package | licence |",
        "|---|---|---|---|",
    ]
    for title, author, key, licence in _OTHERS:
        lines.append(f"| {title} | {author} | {PACKAGES[key].label} | {licence} |")
    lines += [
        "",
        f"## Icon sets ({PACKAGES['icons'].label})",
        "",
        "| set | name | author | version | licence | family | side |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, entry in sorted(used.items()):
        family, side = sides.get(name, ("flags", ""))
        if not side:
            side = next(side for side, names in FLAG_SETS.items() if name in names)
        author, licence = entry["author"], entry["license"]
        who = f"[{author['name']}]({author['url']})" if author.get("url") else author["name"]
        what = f"[{licence['spdx']}]({licence['url']})" if licence.get("url") else licence["spdx"]
        version = entry.get("version", "as packaged")
        lines.append(
            f"| {name} | {entry['name']} | {who} | {version} | {what} | {family} | {side} |"
        )
    lines += [
        "",
        "## Typefaces (npm packages @fontsource/...)",
        "",
        "| package | version | copyright, as the package states it | licence |",
        "|---|---|---|---|",
    ]
    for typeface in pinned().values():
        label = typeface.package.name.split("/")[1]
        lines.append(
            f"| {label} | {typeface.version} | {typeface.copyright} | {typeface.licence} |"
        )
    return "\n".join([*lines, ""])


def data_card(tasks: list[Task], slices: list[Slice], pairs_hash: str) -> str:
    """The data card: every task's classes, splits and hashes, and the data of pre-training."""
    lines = [
        "# Data card of the embedded tasks",
        "",
        "Small image classification tasks that come with the package, so that every command runs",
        "without a download. All images are 32x32. They and the small model trained for them show",
        "how methods behave relative to one another. **Numbers on them do not compare with numbers",
        "of ViT-B/32 or any other published CLIP model on its usual tasks.**",
        "",
        "Written by `experiments/embedded/build_data.py`. Sources and licences: `ATTRIBUTION.md`.",
        "",
        "| task | kind | classes | train | val | test | near-duplicates dropped from test |",
        "|---|---|---|---|---|---|---|",
    ]
    for task in tasks:
        counts = " | ".join(str(len(task.splits[split][1])) for split in SPLITS)
        kind = f"{task.kind}{', control' if task.control else ''}"
        dropped = task.near_duplicates_dropped
        lines.append(f"| {task.name} | {kind} | {len(task.classes)} | {counts} | {dropped} |")
    lines += [
        "",
        "Photographs and scans are of real things: garments, and digits written by people.",
        "Silhouettes are shapes of undocumented origin. Drawings are icons and emoji made by",
        "designers; a class holds different designers' drawings of one concept, found by the",
        "drawing's name, so a few labels are wrong. Glyphs are single characters of typefaces.",
        "",
        "Icon sets that are forks or restylings of one another form a family, and a family is",
        "either trained on or tested, never both. A test icon is dropped when a trained one is",
        "nearly the same picture: cosine above 0.93 between 16x16 pictures cropped to their ink,",
        "colours aside (0.98 between capitals of typefaces, which are alike by nature). Identical",
        "images are dropped everywhere they are found. Val is 10 % of the images kept for training",
        "(seed 0), so val icons come from the families of train, not from those of test.",
        "",
        "`mnist_low`, `mnist_high`, `digits_low` and `digits_high` are the images of the classes",
        "zero to four and five to nine of `mnist` and `digits`, for task analogies; the heads tell",
        "all ten digits apart.",
        "",
        "## Tasks",
    ]
    for task in tasks:
        left_out = f"{task.near_duplicates_dropped} near-duplicates from test"
        left_out += f", {task.exact_duplicates_dropped} exact duplicates from the source"
        lines += [
            "",
            f"### {task.name}: {task.title}",
            "",
            f"- Classes: {', '.join(task.classes)}",
            f"- Prompts: {'; '.join(task.templates)}",
            f"- Source: {task.source}",
            f"- Licence: {task.licence}",
            f"- Split: {task.split_rule}",
            f"- Dropped: {left_out}",
            f"- Pre-training sees: {task.shared}",
        ]
        lines += [f"- sha256 of {split}: `{task.hashes[split]}`" for split in SPLITS]
    total = sum(len(piece.images) for piece in slices)
    lines += [
        "",
        "## Pre-training pairs",
        "",
        f"The embedded model learns from {total} image-caption pairs, which are not shipped but",
        "are rebuilt by the same script. It has therefore seen the domains of the tasks, and,",
        "where the table says so, some of their train images; never a val or test image. Val",
        "icons are not compared with pre-training's for near-duplicates, test icons are.",
        "",
        "| slice | pairs | what |",
        "|---|---|---|",
    ]
    lines += [f"| {piece.name} | {len(piece.images)} | {piece.note} |" for piece in slices]
    lines += ["", f"sha256 over images and captions: `{pairs_hash}`", ""]
    return "\n".join(lines)
