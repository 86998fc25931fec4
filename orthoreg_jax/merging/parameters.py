"""Checks of mergers' parameters, whose units differ between published programs."""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from orthoreg_jax.arithmetic.paths import briefly

# Other programs' names for parameters, and what to give here instead.
ELSEWHERE = {
    "consensus_method": "it is elect",
    "density": "if it is the fraction kept: k = 100 * density for ties, p = 1 - density for dare, "
    "beta = gamma - density for breadcrumbs",
    "drop_rate": "it is p",
    "initial_rank_ratio": "it is fraction",
    "iter_num": "it is steps",
    "keep_ratio": "if it is the fraction kept: k = 100 * keep_ratio for ties, p = 1 - keep_ratio "
    "for dare",
    "lambda": "it is alpha",
    "majority_sign_method": 'it is elect: "total" is sum, "frequency" count',
    "merge_func": "it is combine",
    "param_value_mask_rate": "if it is the fraction left out: k = 100 * (1 - it)",
    "pcb_ratio": "it is fraction",
    "prior": "it is lambda",
    "prun_thre_k": "it is k",
    "reset_thresh": "above 1 it is k, else k = 100 * reset_thresh",
    "scaling_coef": "it is alpha",
    "scaling_factor": "it is alpha",
    "smoothing": "it is rho: without it 0, average 1, linear 5",
    "sparsity_ratio": "it is p",
    "sv_reduction": "if it is a fraction of min(m, n) singular values: rank is their number",
    "tall_mask_lambda": "it is lambda",
    "threshold": "above 1 it is k, else k = 100 * threshold",
    "top_k_keep": "beta = gamma - top_k_keep",
    "top_k_remove": "gamma = 1 - top_k_remove",
    "topk": "above 1 it is k, else k = 100 * topk",
    "weight": "one for each task: scale the task vectors",
    "weight_mask_rate": "it is p",
}


def check_within(
    merger: str,
    name: str,
    value: Any,
    bounds: tuple[float, float],
    allowed: str,
    excluded: Collection[float] = (),
) -> float:
    """The value of a parameter, a number within bounds.

    Args:
      merger: the merger's name.
      name: the parameter's name.
      value: the value as given.
      bounds: lowest and highest number allowed.
      allowed: what to give, unit included, for the message.
      excluded: numbers that are not allowed, for example the bounds themselves.

    Raises:
      ValueError: the value is not a number, or is not allowed.
    """
    try:
        number = float("nan" if isinstance(value, (str, bool)) else value)
    except TypeError:
        number = float("nan")
    if not bounds[0] <= number <= bounds[1] or number in excluded:
        raise ValueError(f"{merger}: {name} is {briefly(value)}; give {allowed}")
    return number


def check_count(merger: str, name: str, value: Any, allowed: str) -> int:
    """The value of a parameter that counts something, from 0.

    A float is refused even if it is whole: 1.0 means all in programs that take a fraction, and one
    here.

    Args:
      merger: the merger's name.
      name: the parameter's name.
      value: the value as given.
      allowed: what to give, for the message.

    Raises:
      ValueError: the value is not an int, or is below 0.
    """
    try:
        number = -1 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = -1
    if number < 0:
        raise ValueError(f"{merger}: {name} is {briefly(value)}; give {allowed}")
    return number


def check_among(merger: str, name: str, value: Any, allowed: Sequence[str]) -> str:
    """The value of a parameter that is one of a few words.

    Raises:
      ValueError: it is none of them.
    """
    if value not in allowed:
        raise ValueError(
            f"{merger}: {name} is {briefly(value)}; allowed: {', '.join(map(repr, allowed))}"
        )
    return str(value)


def read_options(
    merger: str, known: Mapping[str, Any], options: Mapping[str, str]
) -> dict[str, Any]:
    """Parameters from texts, as a command line gives them.

    Args:
      merger: whose parameters they are.
      known: each one's default, which tells its type.
      options: texts by name.

    Raises:
      ValueError: no such parameter, or a text that is no number where one is needed.
    """
    values = {}
    for key, text in options.items():
        # `lambda` is a word of Python's own, so that the parameter ends in "_".
        own = key if key in known else f"{key}_"
        if own not in known:
            shown = ", ".join(f"{each}={value}" for each, value in known.items())
            hint = f" ({ELSEWHERE[key]})" if key in ELSEWHERE else ""
            raise ValueError(
                f"merger {merger}: no parameter {key!r}{hint}; it has {shown or 'none'}"
            )
        kind = type(known[own])
        # Who passes 0.5 to an int means a fraction: the merger itself says what it takes instead.
        kinds = (int, float) if kind is int else (kind,)
        given, example = f"merger {merger}: {key}={text}", f"{key}={known[own]}"
        values[own] = _read(text, kinds, given, example)
    return values


def _read(text: str, kinds: tuple[Callable[[str], Any], ...], given: str, example: str) -> Any:
    for kind in kinds:
        try:
            return kind(text)
        except ValueError:
            continue
    raise ValueError(f"{given} is not a number; give one, for example {example}")
