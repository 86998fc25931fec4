"""The pinned font packages, and drawing single characters at 32x32.

Each typeface family is one npm package, ``@fontsource/<family>``, with a file for each subset of
characters, weight and style. ``fonts.json`` pins them; ``pin_fonts.py`` writes it.
"""

import io
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from icons import SIZE, lay, number, plain_colours
from packages import Package, fetch, read_members
from PIL import Image, ImageFont

ALLOWED_LICENCES = {"OFL-1.1", "Apache-2.0", "UFL-1.0"}
PINS = Path(__file__).with_name("fonts.json")
REGULAR, BOLD = 400, 700
_ABSENT = "\U0010ffff"  # never a character, so every font draws its mark for missing ones


@dataclass(frozen=True)
class Family:
    """One pinned font package, and the author of its typeface."""

    name: str
    version: str
    sha256: str
    category: str  # "serif", "sans-serif", "display", "handwriting" or "monospace"
    weights: tuple[int, ...]
    licence: str
    copyright: str

    @property
    def package(self) -> Package:
        return Package("npm", *package_file(self.name, self.version), self.sha256)

    @property
    def group(self) -> str:
        """What its relatives share with it: the first word of the name."""
        return self.name.split("-")[0]


def package_file(name: str, version: str) -> tuple[str, str, str]:
    """A family's package name, version, and file name."""
    return f"@fontsource/{name}", version, f"fontsource-{name}-{version}.tgz"


@cache
def pinned() -> dict[str, Family]:
    """All pinned families by name.

    Raises:
      ValueError: a family's licence is not allowed.
    """
    out = {}
    for name, fields in json.loads(PINS.read_text(encoding="utf-8")).items():
        if fields["licence"] not in ALLOWED_LICENCES:
            raise ValueError(f"font {name}: licence {fields['licence']}, not {ALLOWED_LICENCES}")
        out[name] = Family(name, **{**fields, "weights": tuple(fields["weights"])})
    return out


def source_and_licence(names: list[str]) -> tuple[str, str]:
    """Source and licence, in the data card, of a task drawn from these families."""
    licences = sorted({pinned()[name].licence for name in names})
    source = f"{len(names)} npm packages @fontsource/...: see ATTRIBUTION.md"
    return source, f"{', '.join(licences)} by typeface"


class Face:
    """One weight of one family, for the characters of one subset."""

    def __init__(self, family: Family, weight: int, content: bytes):
        self.family, self.weight = family, weight
        # At this size, capitals are about as high as the canvas of `draw`, which is then reduced.
        self._font = ImageFont.truetype(
            io.BytesIO(content), 5 * SIZE, layout_engine=ImageFont.Layout.BASIC
        )
        self._missing = self._ink(_ABSENT)

    @property
    def id(self) -> str:
        return f"{self.family.name}/{self.weight}"

    def _ink(self, character: str) -> np.ndarray:
        """The character's ink, cropped to its extent; (0, 0) if it has none."""
        mask = self._font.getmask(character, mode="L")
        ink = np.array(mask, np.uint8).reshape(mask.size[::-1])
        rows, columns = np.nonzero(ink.any(axis=1))[0], np.nonzero(ink.any(axis=0))[0]
        if not len(rows):
            return np.zeros((0, 0), np.uint8)
        return ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]

    def draw(self, character: str) -> np.ndarray | None:
        """The character as transparency, (32, 32) uint8 in 16 steps; None if the font lacks it.

        It is centred, and its longer side fills 70-90 % of the box, depending on face and
        character. It is drawn four times as large, then reduced.
        """
        ink = self._ink(character)
        if not ink.size or np.array_equal(ink, self._missing):
            return None
        share = 0.7 + number(f"size/{self.id}/{character}") % 201 / 1000
        scale = share * 4 * SIZE / max(ink.shape)
        height, width = (max(1, round(side * scale)) for side in ink.shape)
        grown = Image.fromarray(ink).resize((width, height), Image.Resampling.LANCZOS)
        canvas = Image.new("L", (4 * SIZE, 4 * SIZE))
        canvas.paste(grown, ((4 * SIZE - width) // 2, (4 * SIZE - height) // 2))
        reduced = np.array(canvas.reduce(4), np.float32)
        return np.round(reduced / 17).astype(np.uint8) * 17


@dataclass(frozen=True)
class Glyph:
    """A character drawn with a face."""

    face: Face
    character: str
    alpha: np.ndarray

    @property
    def id(self) -> str:
        return f"{self.face.id}/{self.character}"


def open_faces(name: str, subset: str, weights: tuple[int, ...], cache: Path) -> list[Face]:
    """A family's faces of these weights, or of its lightest weight if it has none of them."""
    family = pinned()[name]
    found = [weight for weight in weights if weight in family.weights] or [family.weights[0]]
    files = [f"/files/{name}-{subset}-{weight}-normal.woff" for weight in found]
    members = read_members(fetch(family.package, cache), files)
    return [Face(family, weight, members[file]) for weight, file in zip(found, files, strict=True)]


def glyphs(face: Face, characters: str) -> list[Glyph]:
    """Glyphs of those characters that the face has."""
    drawn = [(character, face.draw(character)) for character in characters]
    return [Glyph(face, character, alpha) for character, alpha in drawn if alpha is not None]


def paint(items: list[Glyph], variant: int = 0) -> np.ndarray:
    """Paints glyphs in ink on paper, both chosen by id: (N, 32, 32, 3) uint8."""
    out = np.empty((len(items), SIZE, SIZE, 3), np.uint8)
    for row, glyph in enumerate(items):
        ink, paper, _ = plain_colours(f"{glyph.id}/{variant}")
        out[row] = lay(ink, glyph.alpha[..., None], paper)
    return out
