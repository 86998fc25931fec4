"""The emoji sheets and the emoji task, which is split by emoji."""

import io
import json

import numpy as np
from icons import number, shuffled
from packages import PACKAGES
from PIL import Image
from task_file import MAX_TEST, Slice, Task, fill, split_pool

VENDORS = ("google", "twitter")
PAPERS = [(255, 255, 255), (255, 255, 255), (240, 240, 240), (224, 232, 240), (248, 244, 232)]
EMOJI_TEMPLATES = ("an emoji of a {}", "a drawing of a {}", "a {}")
# Class: subcategories of the emoji list, and short names in them that are something else.
EMOJI_CLASSES = {
    "smiley face": (
        (
            "face-smiling face-affection face-concerned face-glasses face-hand face-hat"
            " face-negative face-neutral-skeptical face-sleepy face-tongue face-unwell"
        ),
        "skull skull_and_crossbones",
    ),
    "hand": (
        (
            "hand-fingers-closed hand-fingers-open hand-fingers-partial hand-prop"
            " hand-single-finger hands"
        ),
        "",
    ),
    "person": (
        "person person-role person-gesture person-activity person-fantasy",
        "dancers",
    ),
    "mammal": (
        "animal-mammal",
        "feet pig_nose",
    ),
    "bird": (
        "animal-bird",
        "feather wing",
    ),
    "plant": (
        "plant-flower plant-other",
        "empty_nest nest_with_eggs white_flower",
    ),
    "fruit": (
        "food-fruit",
        "",
    ),
    "vegetable": (
        "food-vegetable",
        "",
    ),
    "dish of food": (
        "food-prepared food-asian",
        "salt fortune_cookie",
    ),
    "dessert": (
        "food-sweet",
        "honey_pot",
    ),
    "drink": (
        "drink",
        "ice_cube pouring_liquid",
    ),
    "vehicle": (
        "transport-ground transport-air transport-water",
        (
            "station busstop traffic_light vertical_traffic_light construction rotating_light"
            " octagonal_sign wheel oil_drum motorway railway_track fuelpump seat satellite"
            " flying_saucer parachute ring_buoy anchor skateboard roller_skate rocket"
        ),
    ),
    "building": (
        "place-building place-religious",
        "building_construction statue_of_liberty bricks rock wood kaaba",
    ),
    "piece of clothing": (
        "clothing",
        (
            "school_satchel crown lipstick ring gem prayer_beads shopping_bags folding_hand_fan"
            " hair_pick pouch purse handbag eyeglasses dark_sunglasses goggles"
        ),
    ),
    "tool": (
        "tool science",
        (
            "bomb link shield broken_chain chains dagger_knife crossed_swords bow_and_arrow"
            " boomerang dna"
        ),
    ),
    "heart": (
        "heart",
        "love_letter gift_heart cupid heavy_heart_exclamation_mark_ornament",
    ),
}


def plain(text: str) -> str:
    """Text in the form of captions: lower-case ASCII without joining marks."""
    text = text.lower().replace("_", " ").replace("-", " ").replace("&", "and")
    return text.encode("ascii", "ignore").decode()


class Sheets:
    """The emoji list with both vendors' pictures."""

    def __init__(self, members: dict[str, bytes]):
        self.rows = json.loads(members["package/emoji.json"])
        self.rows = [row for row in self.rows if all(row[f"has_img_{v}"] for v in VENDORS)]
        self.rows.sort(key=lambda row: row["unified"])
        self._sheets = {
            vendor: np.array(
                Image.open(io.BytesIO(members[f"{vendor}/sheets/32.png"])).convert("RGBA")
            )
            for vendor in VENDORS
        }

    def picture(
        self, row: dict, vendor: str, paper: tuple[int, int, int] = (255, 255, 255)
    ) -> np.ndarray:
        """One emoji on paper, (32, 32, 3) uint8; its cell has a margin of one pixel."""
        x, y = row["sheet_x"] * 34 + 1, row["sheet_y"] * 34 + 1
        cell = self._sheets[vendor][y : y + 32, x : x + 32].astype(np.uint32)
        alpha = cell[..., 3:]
        return ((cell[..., :3] * alpha + np.array(paper, np.uint32) * (255 - alpha)) // 255).astype(
            np.uint8
        )


def _colour_descriptors(images: np.ndarray) -> np.ndarray:
    """Like ``duplicates.descriptors``, but with colour and position: emoji share outlines."""
    small = images.reshape(len(images), 16, 2, 16, 2, 3).mean(axis=(2, 4)).reshape(len(images), -1)
    small = (small - small.mean(axis=1, keepdims=True)).astype(np.float32)
    return small / np.maximum(np.linalg.norm(small, axis=1, keepdims=True), 1e-6)


def emoji_task(sheets: Sheets) -> tuple[Task, Slice]:
    """Splits each class by emoji, so that both vendors' drawings of an emoji are on one side.

    Returns:
      The task, and the slice: emoji of no class with their names, and half of the train emoji.
    """
    class_of = {}
    for label, (subcategories, others) in enumerate(EMOJI_CLASSES.values()):
        for row in sheets.rows:
            # A joined emoji (man + laptop) is a variation of another emoji.
            joined = "200D" in row["unified"] and row["subcategory"].startswith("person")
            named = row["short_name"] in others.split()
            if row["subcategory"] in subcategories.split() and not joined and not named:
                class_of[row["unified"]] = label
    pool, test, free = [], [], []
    for label in range(len(EMOJI_CLASSES)):
        members = [row for row in sheets.rows if class_of.get(row["unified"]) == label]
        members = shuffled(members, key=lambda row: row["unified"], salt="emoji")
        test += members[: round(len(members) * 0.4)]
        pool += members[round(len(members) * 0.4) :]
    for row in sheets.rows:
        if row["unified"] in class_of:
            continue
        if "flag" not in row["subcategory"] and row["category"] != "Component":
            free.append(row)
    train, val = split_pool([class_of[row["unified"]] for row in pool])
    parts = {"train": [pool[i] for i in train], "val": [pool[i] for i in val], "test": test}

    def render(rows: list[dict]) -> np.ndarray:
        return np.stack(
            [
                sheets.picture(row, v, PAPERS[number(f"{v}/{row['unified']}") % len(PAPERS)])
                for row in rows
                for v in VENDORS
            ]
        )

    splits = {
        name: (render(rows), np.repeat([class_of[row["unified"]] for row in rows], len(VENDORS)))
        for name, rows in parts.items()
    }
    shared = [row for row in parts["train"] if number(f"shared/{row['unified']}") % 2]
    names = list(EMOJI_CLASSES)
    captions = []
    for row in [*free, *shared]:
        known = class_of.get(row["unified"])
        name = plain(row["short_name"])
        texts = fill(EMOJI_TEMPLATES, [name if known is None else names[known]])
        if known is not None:
            texts = [texts[0], texts[1], f"an emoji of a {name}"]
        captions += [texts] * len(VENDORS)
    pairs = render([*free, *shared])
    # All get white paper, because different papers would hide twins.
    seen = [row for row in [*free, *pool]]
    white = [
        np.stack([sheets.picture(r, v) for r in rows for v in VENDORS]) for rows in (test, seen)
    ]
    described = [_colour_descriptors(images) for images in white]
    keep = (described[0] @ described[1].T).max(axis=1) <= 0.97
    images, labels = splits["test"]
    splits["test"] = (images[keep][:MAX_TEST], labels[keep][:MAX_TEST])
    note = (
        f"{len(free)} emoji of no class, and {len(shared)} of the {len(parts['train'])} train"
        " emoji, each in two drawings"
    )
    task = Task(
        "emoji",
        "Emoji groups",
        names,
        EMOJI_TEMPLATES,
        "drawings",
        f"{PACKAGES['emoji'].label}, Google's and Twitter's drawings",
        "Apache-2.0 (Google's drawings), CC-BY-4.0 (Twitter's drawings)",
        "by emoji: both drawings of an emoji stand on one side; twins dropped (cosine above 0.97"
        " of 16x16 pictures in colour)",
        splits,
        note,
        near_duplicates_dropped=int((~keep).sum()),
    )
    return task, Slice("emoji", pairs, captions, note)
