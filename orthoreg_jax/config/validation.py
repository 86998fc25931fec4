"""Checks the options of a config, each by itself and in combination."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from ml_collections import ConfigDict

from .constraints import constraints
from .options import (
    GIVEN,
    ORTHOREG,
    PLUS,
    default_config,
    flatten_config,
    split_method,
)
from .unknown import unknown_option
from .value_types import describe_kind, same_kind


def validate(config: ConfigDict) -> None:
    """Checks every option of a config.

    Raises:
      ValueError: all problems found, each with the values allowed.
    """
    check_types(config)  # first, because the checks below rely on them
    flat, known = flatten_config(config), flatten_config(default_config())
    wrong = [(key, each.allowed) for key, each in constraints() if not each.good(flat[key])]
    wrong += _unrelated(flat)
    order = list(known)
    wrong.sort(key=lambda problem: order.index(problem[0]))
    _refuse(_problem(flat, key, allowed) for key, allowed in wrong)


def check_types(config: ConfigDict) -> None:
    """Checks that a config has every option and no other, each with a value of its type.

    Raises:
      ValueError: all problems found.
    """
    flat, known = flatten_config(config), flatten_config(default_config())
    problems = [f"{key}: {unknown_option(key, known)}" for key in flat if key not in known]
    problems += [f"{key}: is missing" for key in known if key not in flat]
    problems += [
        _problem(flat, key, describe_kind(value))
        for key, value in known.items()
        if key in flat and not same_kind(flat[key], value)
    ]
    _refuse(problems)


def _refuse(problems: Iterable[str]) -> None:
    if text := "; ".join(problems):
        raise ValueError(f"config: {text}")


def _problem(flat: dict[str, Any], key: str, allowed: str) -> str:
    return f"{key} is {flat[key]!r}, allowed: {allowed}"


def _unrelated(flat: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Options that do not fit the others, with the values that would."""
    from orthoreg_jax.training.modes import MODES, make_mode
    from orthoreg_jax.training.penalties import PENALTIES

    tasks, several = flat["tasks"], len(flat["tasks"]) > 1
    if flat["control"] in tasks:
        yield "control", "a task not listed in `tasks`"

    yield from _given(flat)
    methods = [split_method(method) for method in flat["methods"] if method != GIVEN]
    ordered = [(mode, tuple(p for p in PENALTIES if p in penalties)) for mode, penalties in methods]
    if methods != ordered or not all(mode in MODES for mode, _ in methods):
        behind = ", ".join(PLUS + name for name in PENALTIES)
        each = f"each optionally followed by any of {behind}, in this order"
        yield "methods", f"{', '.join(MODES)}, {each}; or {GIVEN}"
    for key in (key for key in flat if key.startswith("per_method.") and not flat[key] >= 0):
        yield key, "a number from 0 up"
    for name, row in PENALTIES.items():
        key, used = f"{row.options}.strength", any(name in penalties for _, penalties in methods)
        if flat[key] < 0:
            yield key, "a number from 0 up"
        elif used and flat[key] == 0:
            yield key, f"more than 0 with {PLUS}{name}"
        if used and row.others and not several:
            yield "tasks", f"two or more with {PLUS}{name}, which uses the other tasks"
    if flat["penalty.text_tensors"]:
        whole = [mode for mode in MODES if make_mode(mode, default_config()).whole]
        if not any(mode in whole and "orthoreg" in penalties for mode, penalties in methods):
            having = " or ".join(mode + ORTHOREG for mode in whole)
            yield "penalty.text_tensors", f"False, unless `methods` has {having}"

    steps, batch = flat["training.steps"], flat["training.batch_size"]
    if flat["training.epochs"] == 0 and not flat["training.warmup"] < max(1, steps):
        below = f"below training.steps, which is {steps}"
        yield "training.warmup", f"a number of steps {below}, or a share of them below 1"
    if batch % max(1, flat["training.accumulate"]):
        yield "training.accumulate", f"a divisor of training.batch_size, {batch}"

    for analogy in flat["evaluation.analogies"]:
        four = analogy.split(":")
        if not (len({*four}) == len(four) == 4 and {*four} <= {*tasks}):
            yield "evaluation.analogies", "a:b:c:d, four different names from `tasks`"
            break
    pairs = flat["evaluation.disentanglement_tasks"]
    if not ({*pairs} <= {*tasks} and len({*pairs}) == len(pairs) != 1):
        yield (
            "evaluation.disentanglement_tasks",
            f"empty, or at least two different names from `tasks` ({', '.join(tasks)})",
        )
    if flat["evaluation.feature_images"] > 0 and not several:
        yield "evaluation.feature_images", "0 with a single task: overlap needs two"


def _given(flat: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """What does not fit the method of models that were fine-tuned elsewhere."""
    named = [entry.partition("=") for entry in flat["given"]]
    used = GIVEN in flat["methods"]
    complete = sorted(task for task, _, _ in named) == sorted(flat["tasks"])
    if not all(equals and model for _, equals, model in named) or (named and not complete):
        yield "given", "TASK=MODEL, once for each of `tasks` and for no other"
    elif used and not named:
        yield "given", f"TASK=MODEL for each of `tasks` with the method {GIVEN}"
    if used and len(flat["seeds"]) > 1:
        yield "seeds", f"one seed with the method {GIVEN}, whose models are there only once"
