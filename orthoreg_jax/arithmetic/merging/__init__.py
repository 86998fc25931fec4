"""Merging of several task vectors into one, as rows of one table."""

from __future__ import annotations

from collections.abc import Callable

from .elementwise import average, breadcrumbs, consensus, dare, dare_ties, task_arithmetic, ties
from .merger import Merger, merge_task_vectors
from .spectral import iso_c, iso_cts, tsv_m

__all__ = [
    "MERGERS",
    "Merger",
    "average",
    "breadcrumbs",
    "consensus",
    "dare",
    "dare_ties",
    "iso_c",
    "iso_cts",
    "merge_task_vectors",
    "task_arithmetic",
    "ties",
    "tsv_m",
]

# A name, as commands and tables call it -> what makes the merger from its parameters.
MERGERS: dict[str, Callable[..., Merger]] = {
    "average": average,
    "sum": task_arithmetic,
    "ties": ties,
    "dare": dare,
    "dare_ties": dare_ties,
    "breadcrumbs": breadcrumbs,
    "consensus": consensus,
    "tsv_m": tsv_m,
    "iso_c": iso_c,
    "iso_cts": iso_cts,
}
