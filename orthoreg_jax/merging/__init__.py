"""Merging of several task vectors into one, as rows of one table."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from .angles import model_stock, slerp
from .balance import pcb
from .centring import cart
from .elementwise import average, breadcrumbs, consensus, dare, dare_ties, task_arithmetic, ties
from .fitted import adamerging, diagonal_fisher, entropy, fisher, regmean
from .interference import wudi
from .merger import Merger, merge_task_vectors
from .norms import match_norms
from .parameters import ELSEWHERE
from .spaces import core_space, dc_merge, knots
from .spectral import iso_c, iso_cts, tsv_m

__all__ = [
    "MERGERS",
    "Merger",
    "adamerging",
    "average",
    "breadcrumbs",
    "cart",
    "consensus",
    "core_space",
    "dare",
    "dare_ties",
    "dc_merge",
    "diagonal_fisher",
    "entropy",
    "fisher",
    "iso_c",
    "iso_cts",
    "knots",
    "make_merger",
    "match_norms",
    "merge_task_vectors",
    "model_stock",
    "pcb",
    "regmean",
    "slerp",
    "task_arithmetic",
    "ties",
    "tsv_m",
    "wudi",
]

# A name, as commands and tables call it -> what makes the merger from its parameters.
MERGERS: dict[str, Callable[..., Merger]] = {
    "average": average,
    "task_arithmetic": task_arithmetic,
    "ties": ties,
    "dare": dare,
    "dare_ties": dare_ties,
    "breadcrumbs": breadcrumbs,
    "consensus": consensus,
    "pcb": pcb,
    "slerp": slerp,
    "model_stock": model_stock,
    "tsv_m": tsv_m,
    "iso_c": iso_c,
    "iso_cts": iso_cts,
    "wudi": wudi,
    "cart": cart,
    "dc_merge": dc_merge,
}

# What merges in a basis of all vectors -> what makes it from a merger of their coordinates.
SPACES: dict[str, Callable[[Merger], Merger]] = {"knots": knots, "core": core_space}


def make_merger(name: str, options: Mapping[str, str]) -> Merger:
    """Makes a merger from its name and its parameters as texts, as a command line gives them.

    Args:
      name: a key of `MERGERS`.
      options: its parameters by name; those left out are as by default.

    Raises:
      ValueError: no such merger or parameter, or a value that is none for it.
    """
    if name not in MERGERS:
        raise ValueError(f"merger {name!r}; allowed: {', '.join(MERGERS)}")
    known = {key: each.default for key, each in inspect.signature(MERGERS[name]).parameters.items()}
    values = {}
    for key, text in options.items():
        # `lambda` is a word of Python's own, so that the parameter ends in "_".
        own = key if key in known else f"{key}_"
        if own not in known:
            shown = ", ".join(f"{each}={value}" for each, value in known.items())
            hint = f" ({ELSEWHERE[key]})" if key in ELSEWHERE else ""
            raise ValueError(f"merger {name}: no parameter {key!r}{hint}; it has {shown or 'none'}")
        kind = type(known[own])
        # What is no int may be a share to its author: the merger says what it wants instead.
        kinds = (int, float) if kind is int else (kind,)
        values[own] = _read(text, kinds, f"merger {name}: {key}={text}", f"{key}={known[own]}")
    return MERGERS[name](**values)


def _read(text: str, kinds: tuple[Callable[[str], Any], ...], given: str, example: str) -> Any:
    for kind in kinds:
        try:
            return kind(text)
        except ValueError:
            continue
    raise ValueError(f"{given} is not a number; give one, for example {example}")
