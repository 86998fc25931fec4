"""The icon tasks, the control task, and the icons for pre-training."""

from collections import Counter, defaultdict

import numpy as np
from concepts import ICON_TASKS, ICON_TEMPLATES, class_table, control_table
from duplicates import NEAR, descriptors, first_of_twins, nearest
from icons import Icon, colours, darkness, draw, number, paint, shuffled, visible
from packages import PACKAGES
from task_file import MAX_TEST, MAX_TRAIN, Slice, Task, fill, split_pool

# Icons per concept in pre-training, for concepts that no task uses.
PER_CONCEPT = 6
CONTROL_CLASSES, CONTROL_VAL, CONTROL_TEST = 100, 10, 20
LICENCE = "MIT, Apache-2.0, ISC, BSD-3-Clause, CC0-1.0 or CC-BY by icon set: see ATTRIBUTION.md"


class Drawings:
    """Icons with their drawings and descriptors; a row is the same icon in all three."""

    def __init__(self, icons: list[Icon]):
        drawings = draw(icons)
        dark = darkness(drawings)
        seen = visible(dark)
        self.icons = [icon for icon, shown in zip(icons, seen, strict=True) if shown]
        self.drawings = drawings[seen]
        self.described = descriptors(dark[seen])

    def paint(self, rows: list[int], variant: int = 0) -> np.ndarray:
        return paint([self.icons[row] for row in rows], self.drawings[rows], variant)


def _general(icons: list[Icon], taken: set[str]) -> list[Icon]:
    """Icons for pre-training, with concepts that no task uses: some of each concept.

    A concept that only one icon has is usually a compound ("wifi tethering error"). An emoji set's
    flags are left out, because they would be those of the flags task.
    """
    rows = defaultdict(list)
    for icon in icons:
        words = icon.concept.split()
        flag = icon.family == "fxemoji" and "flag" in icon.concept
        if icon.side == "train" and icon.concept not in taken and len(words) <= 3 and not flag:
            rows[icon.concept].append(icon)
    # One more than needed, because some are dropped as twins.
    some = [shuffled(group, key=lambda icon: icon.id) for group in rows.values() if len(group) > 1]
    return [icon for group in some for icon in group[: PER_CONCEPT + 1]]


def _balanced(rows: list[int], labels: dict[int, str], limit: int) -> list[int]:
    """At most ``limit`` rows; the largest classes are cut first."""
    counts = Counter(labels[row] for row in rows)
    cap = max(counts.values(), default=0)
    while sum(min(count, cap) for count in counts.values()) > limit:
        cap -= 1
    kept, seen = [], Counter[str]()
    for row in rows:
        seen[labels[row]] += 1
        if seen[labels[row]] <= cap:
            kept.append(row)
    return kept


def _captions(icon: Icon, name: str, variant: int) -> list[str]:
    """Captions of a painted icon; one of them names a coloured ink."""
    name = name.encode("ascii", "ignore").decode()
    captions = fill(ICON_TEMPLATES, [name])
    ink = colours(icon, variant)[2]
    if ink:
        captions[2] = f"a {ink} icon of a {name}"
    elif number(f"bare/{icon.id}") % 3 == 0:
        captions[2] = name
    return captions


def icon_tasks(icons: list[Icon]) -> tuple[list[Task], Task, list[Slice]]:
    """Builds everything that is drawn from icon sets, except flags.

    The order matters. Training images are chosen first; then test images with a twin among them
    are dropped, so that pre-training never loses an icon to a test.

    Returns:
      The icon tasks, the control task, and slices for pre-training.
    """
    tables = {name: class_table(task["classes"]) for name, task in ICON_TASKS.items()}
    tables["control"] = control_table()
    home: dict[str, str] = {}
    for name, table in tables.items():
        for concept in table:
            if concept in home:
                raise ValueError(f"concept {concept!r} is in {home[concept]} and in {name}")
            home[concept] = name
    icons = [icon for icon in icons if icon.family != "flags"]
    ours = [icon for icon in icons if icon.concept in home]
    data = Drawings(shuffled(ours, key=lambda icon: icon.id) + _general(icons, set(home)))
    task_of = [home.get(icon.concept, "") for icon in data.icons]
    label = {row: tables[task][data.icons[row].concept] for row, task in enumerate(task_of) if task}
    groups = [(label.get(row, icon.concept), icon.side) for row, icon in enumerate(data.icons)]
    unique = first_of_twins(data.described, groups)

    def rows_of(task: str, side: str) -> list[int]:
        return [
            row
            for row, icon in enumerate(data.icons)
            if unique[row] and task_of[row] == task and icon.side == side
        ]

    general, seen = [], Counter[str]()
    for row in rows_of("", "train"):
        seen[data.icons[row].concept] += 1
        if seen[data.icons[row].concept] <= PER_CONCEPT:
            general.append(row)
    pools, slices, notes = {}, {}, {}
    for name in ICON_TASKS:
        rows = rows_of(name, "train")
        pool = _balanced(rows, label, round(MAX_TRAIN / 0.9))
        train, val = split_pool([label[row] for row in pool])
        pools[name] = {"train": [pool[i] for i in train], "val": [pool[i] for i in val]}
        left = sorted(set(rows) - set(pool))
        shared = [row for row in pools[name]["train"] if number(data.icons[row].id) % 2]
        slices[name] = left + shared
        notes[name] = f"{len(left)} other icons of its train sets' families and {len(shared)} of"
        notes[name] += f" the {len(train)} train icons"
    reserved = {row for row in rows_of("control", "train") if number(data.icons[row].id) % 5 < 3}
    slices["control"] = [row for row in rows_of("control", "train") if row not in reserved]
    trained = sorted({*general, *(row for rows in slices.values() for row in rows)})
    held = [row for pool in pools.values() for rows in pool.values() for row in rows]
    base = data.described[sorted({*trained, *held})]

    tasks = []
    for name, spec in ICON_TASKS.items():
        classes = list(spec["classes"])
        candidates = rows_of(name, "test")
        fresh = nearest(data.described[candidates], base)[0] <= NEAR
        kept = [row for row, new in zip(candidates, fresh, strict=True) if new]
        parts = {**pools[name], "test": _balanced(kept, label, MAX_TEST)}
        tasks.append(
            Task(
                name,
                spec["title"],
                classes,
                ICON_TEMPLATES,
                "drawings",
                f"{PACKAGES['icons'].label}, icon sets drawn at 32x32",
                LICENCE,
                "by family of icon sets; twins of trained icons dropped",
                {
                    split: (data.paint(rows), np.array([classes.index(label[r]) for r in rows]))
                    for split, rows in parts.items()
                },
                notes[name],
                near_duplicates_dropped=int((~fresh).sum()),
            )
        )
    control = _control(data, sorted(reserved) + rows_of("control", "test"), label, base)
    return tasks, control, _slices(data, general, slices, label, notes)


def _control(
    data: Drawings, candidates: list[int], label: dict[int, str], base: np.ndarray
) -> Task:
    """The control task: the first 100 concepts that have 30 drawings without a trained twin."""
    fresh = nearest(data.described[candidates], base)[0] <= NEAR
    rows_of = defaultdict(list)
    for row, new in zip(candidates, fresh, strict=True):
        if new:
            rows_of[label[row]].append(row)
    need = CONTROL_VAL + CONTROL_TEST
    classes = [
        name for name in dict.fromkeys(control_table().values()) if len(rows_of[name]) >= need
    ]
    classes = classes[:CONTROL_CLASSES]
    if len(classes) < CONTROL_CLASSES:
        raise ValueError(f"only {len(classes)} control concepts have {need} drawings")
    parts: dict[str, list[int]] = {"val": [], "test": []}
    for name in classes:
        rows = shuffled(rows_of[name], key=lambda row: data.icons[row].id, salt="control")[:need]
        parts["val"] += rows[:CONTROL_VAL]
        parts["test"] += rows[CONTROL_VAL:]
    splits = {
        split: (data.paint(rows), np.array([classes.index(label[row]) for row in rows]))
        for split, rows in parts.items()
    }
    splits["train"] = (np.zeros((0, 32, 32, 3), np.uint8), np.zeros(0, np.int32))
    return Task(
        "concepts",
        "Control: 100 other concepts",
        classes,
        ICON_TEMPLATES,
        "drawings",
        f"{PACKAGES['icons'].label}, icon sets drawn at 32x32",
        LICENCE,
        "icons of all families that pre-training never sees; twins of trained icons dropped",
        splits,
        "none of its images, but other icons of the same concepts",
        near_duplicates_dropped=int((~fresh).sum()),
        control=True,
    )


def _slices(
    data: Drawings,
    general: list[int],
    slices: dict[str, list[int]],
    label: dict[int, str],
    notes: dict[str, str],
) -> list[Slice]:
    """Pre-training's icons: tasks' and control's words in two colourings, the rest in one."""
    named = [
        ("icons", general, 1, f"icons of concepts in no task, at most {PER_CONCEPT} of a concept")
    ]
    for name, rows in slices.items():
        note = notes.get(name, "other icons of the control task's concepts")
        named.append((name, rows, 2, f"{note}, each in two colourings"))
    out = []
    for name, rows, variants, note in named:
        # Variant 0 is the colouring of the tasks' own files.
        images = np.concatenate([data.paint(rows, variant) for variant in range(variants)])
        captions = [
            _captions(data.icons[row], label.get(row, data.icons[row].concept), variant)
            for variant in range(variants)
            for row in rows
        ]
        out.append(Slice(name, images, captions, note))
    return out
