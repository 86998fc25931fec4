"""The flags task, split by style: train and test use drawings of different sets."""

import numpy as np
from emoji import PAPERS, VENDORS, Sheets, plain
from icons import COLOURS, Icon, draw, number, shuffled
from packages import PACKAGES
from PIL import Image
from sets import FLAG_SETS
from task_file import MAX_TEST, MAX_TRAIN, Slice, Task, fill, split_pool

FLAG_TEMPLATES = ("the flag of {}", "a drawing of the flag of {}", "an icon of the flag of {}")
_CODES = """ar:argentina au:australia at:austria be:belgium br:brazil ca:canada cl:chile cn:china
co:colombia cu:cuba dk:denmark fi:finland fr:france de:germany gr:greece is:iceland in:india
ie:ireland il:israel it:italy jm:jamaica jp:japan ke:kenya mx:mexico ng:nigeria no:norway
pl:poland pt:portugal sa:saudi_arabia za:south_africa kr:south_korea es:spain se:sweden
ch:switzerland th:thailand tr:turkey ua:ukraine gb:united_kingdom us:united_states
vn:vietnam"""
COUNTRIES = dict(pair.split(":") for pair in _CODES.split())
# These are codes of languages (Arabic, Interlingue), not of Argentina and Ireland.
_LANGUAGES = {"circle-flags:ar", "circle-flags:ie"}


def _country_of(icon: Icon) -> str | None:
    """Two-letter code of a flag icon; emojione spells names out."""
    if icon.set == "emojione":
        if not icon.name.startswith("flag-for-"):
            return None  # "turkey" is a bird
        name = icon.name.removeprefix("flag-for-").replace("-", "_")
        return {country: code for code, country in COUNTRIES.items()}.get(name)
    if icon.id in _LANGUAGES:
        return None
    name = icon.name.removesuffix("-4x3").removesuffix("-1x1")
    return name if len(name) == 2 else None


def _placed(drawing: np.ndarray, key: str, side: int) -> np.ndarray:
    """A drawing shrunk to ``side`` pixels on paper; the key determines position and paper."""
    small = np.zeros_like(drawing)
    y, x = number(f"{key}/y") % (33 - side), number(f"{key}/x") % (33 - side)
    shrunk = Image.fromarray(drawing).resize((side, side), Image.Resampling.LANCZOS)
    small[y : y + side, x : x + side] = np.asarray(shrunk)
    papers = [*PAPERS, *(COLOURS[name] for name in ("green", "brown", "teal"))]
    paper = np.array(papers[number(f"{key}/paper") % len(papers)], np.uint32)
    alpha = small[..., 3:].astype(np.uint32)
    return ((small[..., :3] * alpha + paper * (255 - alpha)) // 255).astype(np.uint8)


def flags_task(icons: list[Icon], sheets: Sheets) -> tuple[Task, Slice]:
    """Country flags: three sets are for training, four other drawings for testing.

    States define the designs, so a test flag does look like the trained one; only its drawing
    (waving, round, proportions, shades) is new.
    """
    names = {
        plain(row["short_name"]).removeprefix("flag "): plain(row["name"]).removesuffix(" flag")
        for row in sheets.rows
        if row["subcategory"] == "country-flag"
    }
    classes = list(COUNTRIES)
    used = {side: [i for i in icons if i.set in sets] for side, sets in FLAG_SETS.items()}
    bases = [icon for icon in used["train"] if _country_of(icon)]
    drawings = draw(bases)
    sides = (32, 28, 24, 22)
    country_of = [str(_country_of(icon)) for icon in bases]
    ours = [row for row, code in enumerate(country_of) if code in COUNTRIES]
    train, val = split_pool([classes.index(country_of[row]) for row in ours])

    def variants(rows: list[int]) -> np.ndarray:
        return np.stack(
            [_placed(drawings[r], f"{bases[r].id}/{side}", side) for r in rows for side in sides]
        )

    def labels(rows: list[int]) -> np.ndarray:
        return np.repeat([classes.index(country_of[row]) for row in rows], len(sides))

    parts = {name: [ours[i] for i in rows] for name, rows in (("train", train), ("val", val))}
    splits = {name: (variants(rows), labels(rows)) for name, rows in parts.items()}
    tests = [icon for icon in used["test"] if _country_of(icon) in COUNTRIES]
    images = [_placed(d, i.id, 32) for i, d in zip(tests, draw(tests), strict=True)]
    truth = [classes.index(str(_country_of(icon))) for icon in tests]
    codes = {"".join(chr(0x1F1E6 + ord(c) - 97) for c in code): code for code in classes}
    for row in sheets.rows:
        characters = "".join(chr(int(part, 16)) for part in row["unified"].split("-"))
        for vendor in VENDORS if characters in codes else ():
            images.append(sheets.picture(row, vendor, PAPERS[len(images) % len(PAPERS)]))
            truth.append(classes.index(codes[characters]))
    splits["test"] = (np.stack(images)[:MAX_TEST], np.array(truth)[:MAX_TEST])
    assert len(splits["train"][1]) <= MAX_TRAIN
    others = [row for row, code in enumerate(country_of) if code in set(names) - set(classes)]
    shared = shuffled(parts["train"], key=lambda row: bases[row].id)[: len(parts["train"]) // 2]
    chosen = [*others, *sorted(shared)]
    # Two sets may contain exactly the same picture of a flag.
    trained = {image.tobytes() for image in [*splits["train"][0], *variants(chosen)]}
    for split in ("val", "test"):
        pictures, truths = splits[split]
        fresh = np.array([picture.tobytes() not in trained for picture in pictures])
        splits[split] = (pictures[fresh], truths[fresh])
    country = {**names, **{code: name.replace("_", " ") for code, name in COUNTRIES.items()}}
    captions = [fill(FLAG_TEMPLATES, [country[country_of[row]]]) for row in chosen for _ in sides]
    note = (
        f"{len(others)} flags of other countries and {len(shared)} of the {len(parts['train'])}"
        f" train flags, each at {len(sides)} sizes"
    )
    task = Task(
        "flags",
        "Country flags",
        [name.replace("_", " ") for name in COUNTRIES.values()],
        FLAG_TEMPLATES,
        "drawings",
        f"{PACKAGES['icons'].label} (sets {', '.join(sum(FLAG_SETS.values(), ()))});"
        f" {PACKAGES['emoji'].label}",
        "MIT, CC0-1.0, CC-BY-4.0, Apache-2.0 by set",
        "by style: train and val are other sets' drawings than test",
        splits,
        note,
    )
    return task, Slice("flags", variants(chosen), captions, note)
