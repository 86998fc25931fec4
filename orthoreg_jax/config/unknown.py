"""What to say of an option that does not exist: which one was probably meant."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from orthoreg_jax.words import nearest

# Options of earlier versions, and what replaces them.
RENAMED = {
    "training.warmup_steps": "training.warmup, a number of steps from 1 up or a share below 1",
}
# What else our options are called elsewhere, by the last part of the name.
SYNONYMS = {
    "lr": "learning_rate",
    **dict.fromkeys(("lambda", "lam", "weight", "coefficient"), "strength"),
    **dict.fromkeys(("bs", "batch"), "batch_size"),
    **dict.fromkeys(("max_steps", "num_steps", "iterations"), "steps"),
    **dict.fromkeys(("grad_clip", "max_grad_norm"), "clip_norm"),
    **dict.fromkeys(("grad_accum", "gradient_accumulation_steps"), "accumulate"),
    "wd": "weight_decay",
    "r": "rank",
}


def unknown_option(key: str, known: Iterable[str]) -> str:
    """Message about an option that does not exist, with those that may be meant.

    Args:
      key: its dotted name, or only the last part.
      known: dotted names of all options.
    """
    known = list(known)
    for old, new in RENAMED.items():
        if key in (old, _last(old)):
            return f"is now {new}"
    if inside := _inside(key, known):
        return f"is a section; its options are {', '.join(inside)}"
    if meant := meant_options(key, known):
        return f"no such option; did you mean {' or '.join(meant)}?"
    section = key.rpartition(".")[0]
    if inside := _inside(section, known):
        return f"no such option; {section} has {', '.join(inside)}"
    return "no such option; `orthoreg run --help` lists all"


def meant_options(key: str, known: Sequence[str]) -> list[str]:
    """Options, or a section, that an unknown option may stand for.

    One of the same section is preferred, and of others with one name those of the fewest parts.
    """
    section, _, last = key.rpartition(".")
    sections = {each.rpartition(".")[0] for each in known if "." in each}
    if section and section not in sections and (near := nearest(section, sections)):
        return meant_options(f"{near}.{last}", known)
    if key in known:
        return [key]
    own = [f"{section}.{name}" for name in _inside(section, known)]
    for options in (own, known):
        for name in (last, SYNONYMS.get(last.lower())):
            if found := [each for each in options if _last(each) == name]:
                return _outermost(found)
        if options is own and (near := nearest(last, map(_last, own))):
            return _outermost([each for each in own if _last(each) == near])
    if own:
        return []
    near = nearest(key, [*known, *map(_last, known), *(() if section else sections)])
    return _outermost([each for each in known if near in (each, _last(each))]) or [near] * bool(
        near
    )


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def _inside(section: str, known: Iterable[str]) -> list[str]:
    """Names within a section, those of its own sections included."""
    start = f"{section}."
    return [each.removeprefix(start) for each in known if each.startswith(start)]


def _outermost(names: Sequence[str]) -> list[str]:
    parts = min((name.count(".") for name in names), default=0)
    return [name for name in names if name.count(".") == parts]
