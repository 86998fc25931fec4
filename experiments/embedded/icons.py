"""Reads icon sets, and draws icons at 32x32 in ink and paper colours that depend on their id."""

import hashlib
import io
import json
import re
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import TypeVar

import numpy as np
import resvg_py
from concepts import concept_of
from PIL import Image
from sets import ALLOWED_LICENCES, FLAG_SETS, families

SIZE = 32
# Two workers are enough: 100,000 icons take under a minute.
WORKERS = 2
_SVG = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="{} {} {} {}" color="#000">{}</svg>'
_DARK_INKS = [(0, 0, 0), (0, 0, 0), (32, 32, 32), (64, 64, 64), (16, 24, 64)]
_PAPERS = [(255, 255, 255), (255, 255, 255), (240, 240, 240), (248, 244, 232), (224, 232, 240)]
COLOURS = {
    "red": (208, 32, 32),
    "orange": (232, 120, 0),
    "green": (24, 136, 48),
    "blue": (32, 80, 208),
    "purple": (128, 40, 168),
    "brown": (120, 72, 32),
    "pink": (224, 64, 136),
    "teal": (0, 128, 128),
}


@dataclass(frozen=True)
class Icon:
    """One drawing: its set and name, what it shows, and its SVG."""

    set: str
    name: str
    family: str
    side: str  # "train" or "test"
    concept: str
    svg: str
    coloured: bool  # has its own colours; otherwise it is one ink on transparent paper

    @property
    def id(self) -> str:
        return f"{self.set}:{self.name}"


@cache
def number(text: str) -> int:
    """A number that depends only on the text: the source of every arbitrary choice here."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


Item = TypeVar("Item")


def shuffled(
    items: Iterable[Item], key: Callable[[Item], object] = str, salt: str = "0"
) -> list[Item]:
    """Orders items by a hash of their key: the order does not depend on the rest of the list."""
    return sorted(items, key=lambda item: (number(f"{salt}/{key(item)}"), str(key(item))))


def read_sets(members: dict[str, bytes]) -> tuple[list[Icon], dict[str, dict]]:
    """Reads the sets in use from ``{"package/json/<set>.json": bytes}`` and ``collections.json``.

    Returns:
      All icons, ordered by set and name, and the collection's entry for each set.

    Raises:
      ValueError: a set's licence is not allowed.
    """
    collection = json.loads(members["package/collections.json"])
    sides = families()
    for side, names in FLAG_SETS.items():
        for name in names:
            sides.setdefault(name, ("flags", f"{side} flags"))
    icons, used = [], {}
    for name, (family, side) in sorted(sides.items()):
        entry = collection[name]
        licence = entry["license"].get("spdx")
        if licence not in ALLOWED_LICENCES:
            raise ValueError(f"icon set {name}: licence {licence}, allowed {ALLOWED_LICENCES}")
        data = json.loads(members[f"package/json/{name}.json"])
        used[name] = entry
        for icon, fields in sorted(data["icons"].items()):
            if fields.get("hidden") or "<animate" in fields["body"] or "<set" in fields["body"]:
                continue  # an animation's first frame is often empty
            box = [
                fields.get(key, data.get(key, default))
                for key, default in (("left", 0), ("top", 0), ("width", 16), ("height", 16))
            ]
            coloured = bool(entry.get("palette"))
            if not coloured:
                coloured = bool(re.search(r'(fill|stroke)="#(?!000\b|000000\b)', fields["body"]))
            svg = _SVG.format(*box, fields["body"])
            icons.append(Icon(name, icon, family, side, concept_of(icon), svg, coloured))
    return icons, used


def _draw(svg: str) -> np.ndarray:
    """Draws one SVG on transparent paper: (32, 32, 4) uint8, alpha in 16 steps."""
    empty = np.zeros((SIZE, SIZE, 4), np.uint8)
    try:
        png = bytes(resvg_py.svg_to_bytes(svg_string=svg, width=SIZE, height=SIZE))
    except ValueError:
        return empty
    picture = Image.open(io.BytesIO(png)).convert("RGBA")
    if picture.size != (SIZE, SIZE):
        picture.thumbnail((SIZE, SIZE), Image.Resampling.LANCZOS)
        square = Image.new("RGBA", (SIZE, SIZE))
        square.paste(picture, ((SIZE - picture.width) // 2, (SIZE - picture.height) // 2))
        picture = square
    pixels = np.array(picture)
    # With 16 steps they look the same and compress to half the size.
    pixels[..., 3] = np.round(pixels[..., 3] / 17).astype(np.uint8) * 17
    return pixels


def draw(icons: list[Icon]) -> np.ndarray:
    """Draws icons on transparent paper: (N, 32, 32, 4) uint8; empty if an SVG cannot be drawn."""
    if not icons:
        return np.zeros((0, SIZE, SIZE, 4), np.uint8)
    with ProcessPoolExecutor(WORKERS) as pool:
        return np.stack(list(pool.map(_draw, [icon.svg for icon in icons], chunksize=256)))


def darkness(drawings: np.ndarray) -> np.ndarray:
    """Darkness of each pixel on white paper: (N, 32, 32) uint8; one-ink icons are black."""
    alpha = drawings[..., 3].astype(np.uint16)
    luma = drawings[..., :3].astype(np.uint16) @ np.array([77, 150, 29], np.uint16) >> 8
    return ((255 - luma) * alpha // 255).astype(np.uint8)


def visible(dark: np.ndarray) -> np.ndarray:
    """Which drawings show something: they are neither (almost) empty nor completely filled."""
    mean = dark.reshape(len(dark), -1).mean(axis=1)
    return (mean > 4) & (mean < 235) & (dark.reshape(len(dark), -1).std(axis=1) > 12)


def plain_colours(key: str, coloured: bool = False) -> tuple[tuple, tuple, str]:
    """Ink, paper and the ink's name ("" if plain), chosen by the key.

    Args:
      key: determines the choice.
      coloured: the drawing has its own colours and only needs light paper.
    """
    pick = number(f"colours/{key}")
    kind, first, second = pick % 100, pick // 100 % 1000, pick // 100_000 % 1000
    paper = _PAPERS[second % len(_PAPERS)]
    if coloured or kind < 65:
        return _DARK_INKS[first % len(_DARK_INKS)], paper, ""
    if kind < 80:
        inks = [(255, 255, 255), (255, 255, 255), (232, 232, 216)]
        papers = [(0, 0, 0), (32, 32, 40), (16, 32, 80), (40, 80, 56)]
        return inks[first % len(inks)], papers[second % len(papers)], ""
    name = sorted(COLOURS)[first % len(COLOURS)]
    return COLOURS[name], paper, name


def colours(icon: Icon, variant: int = 0) -> tuple[tuple, tuple, str]:
    """Ink, paper and the ink's name for an icon, from its id and the variant."""
    return plain_colours(f"{icon.id}/{variant}", icon.coloured)


def lay(top: np.ndarray | tuple, alpha: np.ndarray, paper: tuple) -> np.ndarray:
    """Paints a drawing, or one ink, on paper through its transparency (H, W, 1)."""
    alpha = alpha.astype(np.uint32)
    return (np.asarray(top, np.uint32) * alpha + np.array(paper, np.uint32) * (255 - alpha)) // 255


def paint(icons: list[Icon], drawings: np.ndarray, variant: int = 0) -> np.ndarray:
    """Paints drawings in their colours on paper: (N, 32, 32, 3) uint8."""
    out = np.empty((len(icons), SIZE, SIZE, 3), np.uint8)
    for row, (icon, drawing) in enumerate(zip(icons, drawings, strict=True)):
        ink, paper, _ = colours(icon, variant)
        out[row] = lay(drawing[..., :3] if icon.coloured else ink, drawing[..., 3:], paper)
    return out
