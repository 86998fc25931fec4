"""The scripts task, split by character: to which writing system a character belongs."""

import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from duplicates import NEAR, descriptors, nearest
from fonts import Face, Glyph, glyphs, open_faces, paint, source_and_licence
from icons import shuffled
from letters import seen_share
from task_file import MAX_TEST, MAX_TRAIN, SPLITS, Slice, Task, fill, split_pool

SCRIPT_TEMPLATES = ("a {} letter", "a {} character", "a character of the {} script")
# Per cent of a script's characters; pre-training sees the others.
TRAIN_SHARE, TEST_SHARE = 55, 32
# Number of characters to choose from scripts with thousands of them.
SOME = 100


@dataclass(frozen=True)
class Script:
    """A writing system: the faces that draw it, and its letters."""

    subset: str  # subset of the font packages
    weights: str  # "family:weight,weight", or "family/subset:weight"
    first: str
    last: str
    without: str = ""  # letters like those of another script, or like a plain stroke or ring
    encodings: tuple[str, ...] = ()  # only characters with two bytes in these: the common ones

    def characters(self) -> str:
        """The letters from first to last, without marks, signs and small kana."""
        found = []
        for character in map(chr, range(ord(self.first), ord(self.last) + 1)):
            name = unicodedata.name(character, "")
            letter = unicodedata.category(character) in ("Lu", "Ll", "Lo")
            small = "KANA LETTER SMALL" in name
            common = all(len(_encoded(character, name)) == 2 for name in self.encodings)
            if letter and not small and common and character not in self.without:
                found.append(character)
        return "".join(found if len(found) <= SOME else sorted(shuffled(found)[:SOME]))

    def faces(self, cache: Path) -> list[Face]:
        """All faces that draw the script."""
        out = []
        for item in self.weights.split():
            family, weights = item.split(":")
            name, _, subset = family.partition("/")
            numbers = tuple(int(weight) for weight in weights.split(","))
            out += open_faces(name, subset or self.subset, numbers, cache)
        return out


def _encoded(character: str, encoding: str) -> bytes:
    return character.encode(encoding, errors="ignore")


# Scripts whose fonts are small packages. Related scripts leave out letters that look like Latin
# ones, and one of two scripts leaves out letters that both share: Greek keeps gamma, pi and phi.
SCRIPTS = {
    "greek": Script(
        "greek",
        "gfs-didot:400 didact-gothic:400 press-start-2p:400 cardo:400 mansalva:400 jura:300,700"
        " fira-mono:400",
        "Α",
        "ω",
        "ΑΒΕΖΗΙΚΜΝΟΡΤΥΧΪΫάέήίΰαικνορτυχϊϋ",
    ),
    "cyrillic": Script(
        "cyrillic",
        "neucha:400 didact-gothic:400 press-start-2p:400 russo-one:400 jura:300,700",
        "Ђ",
        "џ",
        "ЃЅІЇЈАВЕКМНОРСТУХЬГПФЌЍЎавекмнорстухьгпфѐёѓѕіїјќѝў",
    ),
    "hebrew": Script(
        "hebrew",
        "noto-sans-hebrew:100,400,900 frank-ruhl-libre:400,900 suez-one:400 amatic-sc:400,700",
        "א",
        "ת",
        "וס",
    ),
    "arabic": Script(
        "arabic",
        "amiri:400,700 lalezar:400 tajawal:300,800 aref-ruqaa:400 lateef:400",
        "ء",
        "ي",
        "اهػؼؽؾؿ",
    ),
    "devanagari": Script("devanagari", "kalam:400 khand:300,700 modak:400 martel:400", "अ", "ह"),
    "bengali": Script("bengali", "noto-sans-bengali:100,400,900 hind-siliguri:300,700", "অ", "হ"),
    "gujarati": Script(
        "gujarati", "hind-vadodara:300,700 farsan:400 rasa:400 baloo-bhai-2:800", "અ", "હ"
    ),
    "tamil": Script(
        "tamil", "noto-sans-tamil:100,900 hind-madurai:400 coiny:400 catamaran:300,700", "அ", "ஹ"
    ),
    "malayalam": Script(
        "malayalam", "noto-sans-malayalam:100,300,500,900 chilanka:400", "അ", "ഹ", "ടഠ"
    ),
    "thai": Script("thai", "itim:400 sriracha:400 chakra-petch:300,700 taviraj:400", "ก", "ฮ"),
    "khmer": Script("khmer", "noto-sans-khmer:100,500,900 hanuman:400 freehand:400", "ក", "ឳ"),
    "burmese": Script("myanmar", "noto-sans-myanmar:100,300,500,700,900", "က", "ဪ", "ငဝ"),
    "georgian": Script("georgian", "noto-sans-georgian:100,200,400,600,800,900", "ა", "ჰ"),
    "armenian": Script(
        "armenian", "noto-sans-armenian:100,400,600,900", "Ա", "ֆ", "ՕՍՏՈԼՅՠօոսհցյլզգ"
    ),
    "hangul": Script("korean", "gugi:400 poor-story:400", "가", "힣", "", ("euc_kr",)),
    "hiragana": Script("japanese", "yusei-magic:400 dotgothic16:400", "ぁ", "ん", "へべぺり"),
    "katakana": Script(
        "japanese", "yusei-magic:400 dotgothic16:400", "ァ", "ヴ", "ヘベペリニロエハカタ"
    ),
    "chinese": Script(
        "japanese",
        "zcool-kuaile/chinese-simplified:400 yusei-magic:400 dotgothic16:400",
        "一",
        "龥",
        "一二三口力工卜八夕千又才十丁人入",
        ("gb2312", "shift_jis"),
    ),
}


def family_names() -> list[str]:
    """All families that this module uses."""
    items = " ".join(script.weights for script in SCRIPTS.values()).split()
    return sorted({re.split("[:/]", item)[0] for item in items})


def _root(character: str) -> str:
    """The letter without case and marks; all forms of one letter are on one side."""
    if unicodedata.name(character).startswith("HANGUL"):
        return character
    return unicodedata.normalize("NFD", character.casefold())[0]


def _sides(characters: str) -> dict[str, str]:
    """Divides a script's characters among "train" (and val), "test" and "pairs"."""
    roots = shuffled(dict.fromkeys(_root(character) for character in characters), salt="scripts")
    ends = [round(len(roots) * share / 100) for share in (TRAIN_SHARE, TRAIN_SHARE + TEST_SHARE)]
    names = dict.fromkeys(roots[: ends[0]], "train") | dict.fromkeys(roots[ends[1] :], "pairs")
    return {character: names.get(_root(character), "test") for character in characters}


def _draw(cache: Path) -> dict[str, list[list[Glyph]]]:
    """Every script's glyphs by side, in an order determined by hashes."""
    out: dict[str, list[list[Glyph]]] = {"train": [], "test": [], "pairs": []}
    for script in SCRIPTS.values():
        side_of = _sides(script.characters())
        drawn = [g for face in script.faces(cache) for g in glyphs(face, script.characters())]
        drawn = shuffled(drawn, key=lambda glyph: glyph.id)
        for side, members in out.items():
            members.append([glyph for glyph in drawn if side_of[glyph.character] == side])
    return out


def _described(groups: list[list[Glyph]]) -> np.ndarray:
    return descriptors(np.stack([glyph.alpha for group in groups for glyph in group]))


def _flat(groups: list[list[Glyph]]) -> tuple[list[Glyph], np.ndarray]:
    """The groups' glyphs, and each glyph's group."""
    labels = np.repeat(np.arange(len(groups)), [len(group) for group in groups])
    return [glyph for group in groups for glyph in group], labels


def scripts_task(cache: Path) -> tuple[Task, Slice]:
    """Characters of many scripts, split by character.

    Returns:
      The task, and the slice: other characters, and a share of the task's train images.
    """
    names = list(SCRIPTS)
    drawn = _draw(cache)
    pool = [group[: round(MAX_TRAIN / 0.9 / len(names))] for group in drawn["train"]]
    cosine, _ = nearest(_described(drawn["test"]), _described([*pool, *drawn["pairs"]]))
    fresh = iter(cosine <= NEAR)
    test = [[glyph for glyph in group if next(fresh)] for group in drawn["test"]]
    items, labels = _flat(pool)
    rows = split_pool(labels)
    parts = {
        name: ([items[i] for i in r], labels[r]) for name, r in zip(SPLITS, rows, strict=False)
    }
    parts["test"] = _flat([group[: MAX_TEST // len(names)] for group in test])

    # Pre-training also sees training characters beyond the limit on the task's train images.
    spare = [drawn["train"][label][len(group) :] for label, group in enumerate(pool)]
    others, other_labels = _flat([a + b for a, b in zip(drawn["pairs"], spare, strict=True)])
    shared = seen_share(parts["train"][0])
    script_of = dict(zip((glyph.id for glyph in items), labels, strict=True))
    seen_labels = [*other_labels, *other_labels, *(script_of[glyph.id] for glyph in shared)]
    images = np.concatenate([paint(others), paint(others, variant=1), paint(shared)])
    captions = [fill(SCRIPT_TEMPLATES, [names[label]]) for label in seen_labels]
    note = (
        f"{len(others)} glyphs that are in none of the task's splits, each in two colourings, and"
        f" {len(shared)} of the {len(parts['train'][0])} train images"
    )
    task = Task(
        "scripts",
        "Scripts",
        names,
        SCRIPT_TEMPLATES,
        "glyphs",
        *source_and_licence(family_names()),
        "by character, with its other case and its forms with marks; twins of trained characters"
        " dropped",
        {split: (paint(items), labels) for split, (items, labels) in parts.items()},
        note,
        near_duplicates_dropped=sum(map(len, drawn["test"])) - sum(map(len, test)),
    )
    return task, Slice("scripts", images, captions, note)
