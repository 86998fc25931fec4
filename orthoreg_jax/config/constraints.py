"""Values allowed for each option by itself; for several options together, see `validation.py`."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from .options import DTYPES, PRECISIONS, SEARCHES

# A task's files are in a folder with its name, next to these files.
TAKEN = ("evaluation.json", "correct.safetensors")


class Constraint(NamedTuple):
    """A check of a value, and the words in which a message says what is allowed."""

    good: Callable[[Any], bool]
    allowed: str


def whole(least: int) -> Constraint:
    """Whole numbers from `least` up; that they are whole, the check of types ensures."""
    return Constraint(lambda value: value >= least, f"a whole number from {least} up")


def number(low: float, high: float = math.inf) -> Constraint:
    """Numbers between two limits, limits included."""
    limits = f"from {low} up" if high == math.inf else f"from {low} to {high}"
    return Constraint(lambda value: low <= value <= high, f"a number {limits}")


def one_of(choices: Sequence[str]) -> Constraint:
    """One of several words."""
    return Constraint(lambda value: value in choices, " or ".join(choices))


def names(least: int) -> Constraint:
    """At least `least` names, all different."""
    return Constraint(
        lambda value: all(value) and len(value) >= least and len({*value}) == len(value),
        f"{least} or more names, all different",
    )


def _rising(grid: Sequence[float]) -> bool:
    return all(a < b for a, b in itertools.pairwise(grid))


def _names_of_folders(tasks: Sequence[str]) -> bool:
    return not any("/" in name or name.startswith(".") or name in TAKEN for name in tasks)


PLACE = Constraint(bool, "a name or a directory")
GRID = Constraint(
    lambda grid: len(grid) > 1 and grid[0] == 0 and _rising(grid),
    "two or more increasing numbers, starting at 0",
)


def constraints() -> list[tuple[str, Constraint]]:
    """Options whose values are limited beyond their type; an option may appear more than once."""
    from orthoreg_jax.penalties.orthoreg import FORMS
    from orthoreg_jax.training.modes.lora import PLACEMENTS
    from orthoreg_jax.training.optimizers import OPTIMIZERS

    return [
        ("model", PLACE),
        ("data", PLACE),
        ("control", PLACE),
        ("tasks", names(1)),
        ("tasks", Constraint(_names_of_folders, "names without '/' and no leading '.', other than "
                             f"{' and '.join(TAKEN)}")),
        ("methods", names(1)),
        ("seeds", Constraint(
            lambda seeds: all(0 <= s < 2**32 for s in seeds) and 0 < len({*seeds}) == len(seeds),
            "whole numbers from 0 to 2**32 - 1, all different",
        )),
        ("matmul_precision", one_of(PRECISIONS)),
        ("penalty.form", one_of(FORMS)),
        ("penalty.precision", one_of(PRECISIONS)),
        ("penalty.taujp.batch_size", whole(1)),
        ("penalty.tak.images", whole(0)),
        ("penalty.tak.projection", number(0)),
        ("penalty.drift.images", whole(0)),
        ("penalty.drift.projection", number(0)),
        ("delta.low", number(0, 1)),
        ("delta.high", number(1)),
        ("delta.power", number(1e-12)),
        ("delta.weight", number(0)),
        ("lora.rank", whole(1)),
        ("lora.alpha", number(1e-12)),
        ("lora.placement", one_of(tuple(PLACEMENTS))),
        ("training.steps", whole(1)),
        ("training.epochs", Constraint(
            lambda epochs: epochs >= 0 or epochs == -1, "a number from 0 up, or -1 for the field's"
        )),
        ("training.batch_size", whole(1)),
        ("training.accumulate", whole(1)),
        ("training.fsdp", whole(1)),
        ("training.learning_rate", number(0)),
        ("training.warmup", Constraint(
            lambda warmup: 0 <= warmup < 1 or (warmup >= 1 and warmup == int(warmup)),
            "a share of the steps below 1, or a whole number of steps from 1 up",
        )),
        ("training.optimizer", one_of(tuple(OPTIMIZERS))),
        ("training.weight_decay", number(0)),
        ("training.clip_norm", number(1e-12)),
        ("training.crop_scale", number(0.01, 1)),
        ("training.dtype", one_of(DTYPES)),
        ("training.log_every", whole(1)),
        ("training.checkpoint_minutes", number(0)),
        ("training.checkpoint_every", whole(0)),
        ("training.keep_checkpoints", whole(1)),
        ("evaluation.batch_size", whole(1)),
        ("evaluation.device_megabytes", whole(0)),
        ("evaluation.alpha_search", one_of(SEARCHES)),
        ("evaluation.alphas", GRID),
        ("evaluation.relative_lengths", GRID),
        ("evaluation.refinements", whole(0)),
        ("evaluation.per_task_rounds", whole(0)),
        ("evaluation.control_shares", Constraint(
            lambda shares: len(shares) > 0 and all(0 < share <= 1 for share in shares),
            "numbers above 0, at most 1",
        )),
        ("evaluation.max_val_images", whole(0)),
        ("evaluation.max_test_images", whole(0)),
        ("evaluation.max_disentanglement_images", whole(0)),
        ("evaluation.disentanglement_alphas", Constraint(
            lambda grid: _rising(grid) and 0 in grid, "increasing, including 0"
        )),
        ("evaluation.feature_images", whole(0)),
    ]  # fmt: skip
