"""Which searches for alpha a config asks for, and how many steps of progress they take."""

from __future__ import annotations

import math

from ml_collections import ConfigDict

from orthoreg_jax.config import SEARCHES


def searches(config: ConfigDict) -> list[ConfigDict]:
    """Options of the alpha search, and of the other search if requested."""
    options = config.evaluation
    return [options] + [_other_options(options)] * options.other_search


def count_rounds(config: ConfigDict) -> int:
    """Steps of progress for a method and seed."""
    options, tasks = config.evaluation, len(config.tasks)
    rounds = sum(_rounds(each, tasks) for each in searches(config)) + 2 * tasks
    rounds += 2 * _sweeps(options) * len(options.analogies)
    return rounds + math.comb(len(options.disentanglement_tasks), 2)


def _other_options(options: ConfigDict) -> ConfigDict:
    """The `evaluation` options with the other alpha search, and no alphas per task."""
    other = options.copy_and_resolve_references()
    other.alpha_search = next(name for name in SEARCHES if name != options.alpha_search)
    other.per_task_rounds = 0
    return other


def _sweeps(options: ConfigDict) -> int:
    """The number of sweeps in one search for alpha."""
    return 1 if options.alpha_search == "grid" else 1 + int(options.refinements)


def _rounds(options: ConfigDict, tasks: int) -> int:
    """Steps of progress: for each task three sweeps and a test per share, then per-task alphas."""
    counted = tasks * (3 * _sweeps(options) + len(options.control_shares))
    return counted + (options.per_task_rounds > 0)
