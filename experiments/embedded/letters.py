"""The letters task, split by typeface family, and letters, digits and signs for pre-training."""

import string
from pathlib import Path

import numpy as np
from duplicates import SAME, descriptors, nearest
from fonts import BOLD, REGULAR, Face, Glyph, glyphs, open_faces, paint, source_and_licence
from icons import number, shuffled
from scans import DIGITS
from task_file import MAX_TEST, MAX_TRAIN, SPLITS, Slice, Task, fill, split_pool

# Handwriting, display, serif, sans-serif and monospaced typefaces, most with only one weight.
FAMILIES = """
alex-brush allura annie-use-your-telescope architects-daughter bad-script cedarville-cursive
chilanka cookie courgette covered-by-your-grace damion delicious-handrawn delius gloria-hallelujah
gochi-hand grand-hotel handlee homemade-apple indie-flower itim kalam kaushan-script knewave
mansalva marck-script neucha oooh-baby pacifico parisienne patrick-hand permanent-marker
reenie-beanie rochester rock-salt sacramento satisfy schoolbell shadows-into-light short-stack
sriracha sue-ellen-francisco swanky-and-moo-moo tangerine the-girl-next-door vibur yellowtail
abril-fatface acme alfa-slab-one allan amatic-sc anton audiowide bangers bebas-neue
berkshire-swash black-ops-one bree-serif bubblegum-sans bungee cabin-sketch calistoga caprasimo
carter-one chewy cinzel-decorative climate-crisis coiny creepster days-one ewert finger-paint
fredericka-the-great germania-one goldman graduate happy-monkey headland-one iceberg
jersey-10 lalezar lilita-one lobster londrina-solid luckiest-guy medievalsharp monofett monoton
mouse-memoirs nova-square orbitron passion-one patua-one poiret-one press-start-2p
righteous rowdies rubik-mono-one russo-one sansita shrikhand silkscreen sniglet special-elite
spicy-rice staatliches uncial-antiqua unifrakturcook yeseva-one zen-dots
adamina alice arvo belleza caladea cardo crimson-text dm-serif-display domine esteban gfs-didot
gloock im-fell-english instrument-serif italiana libre-caslon-text lustria marcellus
old-standard-tt prata pt-serif sanchez sorts-mill-goudy suez-one unna volkhov
abeezee abel actor aldrich amaranth average-sans didact-gothic fjalla-one jura monda oxygen
philosopher play quantico questrial rajdhani share-tech syncopate tenor-sans titillium-web
anonymous-pro courier-prime fira-mono fragment-mono inconsolata kode-mono lekton space-mono
ubuntu-mono vt323
"""
# Families whose small letters have the shapes of capitals.
CAPITALS_ONLY = set(
    "amatic-sc bangers bebas-neue bungee cinzel-decorative creepster ewert graduate luckiest-guy"
    " monofett monoton permanent-marker rock-salt rubik-mono-one silkscreen staatliches syncopate"
    " uncial-antiqua".split()
)
# In per cent. Of the families: for train and val, and for test; pre-training sees the others. Of
# the task's train images: those that pre-training sees, too.
TRAIN_SHARE, TEST_SHARE, SEEN_SHARE = 40, 28, 15
TYPEFACE_IMAGES = 5000
LETTER_TEMPLATES = ("the capital letter {}", "the letter {}", "a capital {} in a typeface")
SIGNS = {
    "!": "exclamation mark",
    "?": "question mark",
    "&": "ampersand",
    "@": "at sign",
    "#": "hash sign",
    "$": "dollar sign",
    "%": "percent sign",
    "=": "equals sign",
    "*": "asterisk",
    "/": "slash",
    "<": "less than sign",
    ">": "greater than sign",
    "(": "left parenthesis",
    ")": "right parenthesis",
    "[": "left square bracket",
    "]": "right square bracket",
    "{": "left curly bracket",
    "}": "right curly bracket",
}


def family_names() -> list[str]:
    """All families that this module uses."""
    return FAMILIES.split()


def _side(face: Face) -> str:
    """Side of a family and its relatives: "train" (and val), "test" or "pairs"."""
    pick = number(f"letters/{face.family.group}") % 100
    if pick < TRAIN_SHARE:
        return "train"
    return "test" if pick < TRAIN_SHARE + TEST_SHARE else "pairs"


def seen_share(train: list[Glyph]) -> list[Glyph]:
    """The declared share of a task's train images that pre-training sees, too."""
    chosen = shuffled(train, key=lambda glyph: glyph.id, salt="seen")
    return chosen[: round(len(train) * SEEN_SHARE / 100)]


def _capitals(faces: list[Face]) -> list[Glyph]:
    """The capitals of each face.

    Raises:
      ValueError: a face lacks a capital or draws two alike, so it is not a typeface of letters.
    """
    out = []
    for face in faces:
        found = glyphs(face, string.ascii_uppercase)
        if len({glyph.alpha.tobytes() for glyph in found}) < len(string.ascii_uppercase):
            raise ValueError(f"font {face.family.name}: not 26 different capitals")
        out += found
    return out


def _labels(items: list[Glyph]) -> np.ndarray:
    return np.array([string.ascii_uppercase.index(glyph.character) for glyph in items], np.int64)


def _fresh(test: list[Glyph], seen: list[Glyph]) -> np.ndarray:
    """Which test capitals are not twins of the same letter in a family for training.

    The limit is that of "one drawing". Plain capitals of different designers are so similar that a
    lower limit would drop every plain I and O, and leave only unusual ones.
    """
    keep = np.ones(len(test), bool)
    for letter in string.ascii_uppercase:
        rows = [row for row, glyph in enumerate(test) if glyph.character == letter]
        both = [[test[row] for row in rows], [g for g in seen if g.character == letter]]
        described = [descriptors(np.stack([glyph.alpha for glyph in side])) for side in both]
        keep[rows] = nearest(*described)[0] <= SAME
    return keep


def _category(glyph: Glyph) -> str:
    return glyph.face.family.category


def _capital_captions(glyph: Glyph) -> list[str]:
    """Captions in the form of the prompts; every other one names the typeface's category."""
    letter = glyph.character.lower()
    captions = fill(LETTER_TEMPLATES, [letter])
    if number(f"caption/{glyph.id}") % 2:
        captions[2] = f"a capital {letter} in a {_category(glyph)} typeface"
    return captions


def _typeface_captions(glyph: Glyph) -> list[str]:
    """Captions for a small letter, a digit or a sign."""
    character, kind = glyph.character, _category(glyph)
    if character in SIGNS:
        name = SIGNS[character]
        return [f"a {name}", f"the symbol {name}", f"a {name} in a {kind} typeface"]
    if character.isdigit():
        digit = DIGITS[int(character)]
        names = [f"the digit {digit}", f"the number {digit}"]
        return [*names, f"the digit {digit} in a {kind} typeface"]
    names = [f"a lowercase {character}", f"the lowercase letter {character}"]
    return [*names, f"a lowercase {character} in a {kind} typeface"]


def _typeface_slice(faces: list[Face]) -> Slice:
    """Small letters, digits and signs of families without test images."""
    items = []
    for face in faces:
        small = "" if face.family.name in CAPITALS_ONLY else string.ascii_lowercase
        items += glyphs(face, small + string.digits + "".join(SIGNS))
    items = shuffled(items, key=lambda glyph: glyph.id, salt="typeface")[:TYPEFACE_IMAGES]
    note = f"small letters, digits and signs of {len(faces)} families that are not test's"
    return Slice("typeface", paint(items), [_typeface_captions(glyph) for glyph in items], note)


def letters_task(cache: Path) -> tuple[Task, list[Slice]]:
    """Capitals, split by typeface family.

    Returns:
      The task, and the slices: capitals of other families with a share of the task's train
      images, and small letters, digits and signs.
    """
    faces: dict[str, list[Face]] = {"train": [], "test": [], "pairs": []}
    bold = {}
    for name in family_names():
        face, *heavier = open_faces(name, "latin", (REGULAR, BOLD), cache)
        faces[_side(face)].append(face)
        bold[face.id] = heavier[0] if heavier else face
    capitals = {side: _capitals(group) for side, group in faces.items()}
    pool = shuffled(capitals["train"], key=lambda glyph: glyph.id)[: round(MAX_TRAIN / 0.9)]
    train, val = split_pool(_labels(pool))
    fresh = _fresh(capitals["test"], capitals["train"] + capitals["pairs"])
    test = [glyph for glyph, new in zip(capitals["test"], fresh, strict=True) if new]
    test = shuffled(test, key=lambda glyph: glyph.id)[:MAX_TEST]
    parts = dict(zip(SPLITS, ([pool[i] for i in train], [pool[i] for i in val], test), strict=True))

    shared = seen_share(parts["train"])
    regular = capitals["pairs"] + shared
    again = _capitals([bold[face.id] for face in faces["pairs"]])
    images = np.concatenate([paint(regular), paint(again, variant=1)])
    captions = [_capital_captions(glyph) for glyph in [*regular, *again]]
    note = (
        f"capitals of {len(faces['pairs'])} other families, each in two colourings and, where"
        f" there is one, in bold too; and {len(shared)} of the {len(train)} train images"
    )
    task = Task(
        "letters",
        "Capital letters in many typefaces",
        list(string.ascii_lowercase),
        LETTER_TEMPLATES,
        "glyphs",
        *source_and_licence(family_names()),
        f"by typeface family: {len(faces['train'])} for train and val, {len(faces['test'])} for"
        " test; test images that are one drawing with a trained family's dropped",
        {split: (paint(items), _labels(items)) for split, items in parts.items()},
        note,
        near_duplicates_dropped=int((~fresh).sum()),
    )
    lower = _typeface_slice(faces["train"] + faces["pairs"])
    return task, [Slice("letters", images, captions, note), lower]
