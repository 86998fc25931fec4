"""Merging of several task vectors into one, as rows of one table."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping

from .angles import model_stock, slerp
from .applying import merge_task_vectors
from .balance import pcb
from .centring import cart
from .elementwise import average, breadcrumbs, consensus, dare, dare_ties, task_arithmetic, ties
from .fitted import adamerging, diagonal_fisher, entropy, fisher, regmean
from .interference import wudi
from .merger import Merger
from .norms import match_norms
from .parameters import read_options
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

# Name in commands and tables -> function that makes the merger from its parameters.
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
    """Makes a merger from its name and its parameters as text, as on a command line.

    Args:
      name: a key of `MERGERS`.
      options: its parameters by name; parameters left out take their defaults.

    Raises:
      ValueError: there is no such merger or parameter, or the value is not allowed.
    """
    if name not in MERGERS:
        raise ValueError(f"merger {name!r}; allowed: {', '.join(MERGERS)}")
    known = {key: each.default for key, each in inspect.signature(MERGERS[name]).parameters.items()}
    return MERGERS[name](**read_options(name, known, options))
