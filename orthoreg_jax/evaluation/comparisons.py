"""Compares methods on the same test images: with penalties, without, and zero-shot."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float

from orthoreg_jax.config import split_method

from .bootstrap import bootstrap_interval
from .results import Comparison

ZERO_SHOT = "zero-shot"
Correct = Mapping[str, Bool[np.ndarray, " _n"]]


def compare_methods(
    zero_shot: Correct, answers: Mapping[str, Sequence[Correct]], shares: Sequence[float]
) -> list[Comparison]:
    """Compares every method with zero-shot, and each penalised one with the same mode alone.

    Args:
      zero_shot: correct answers by task; the control task's as "control".
      answers: correct answers by method, one item for each seed, in the same order; see
        `EditedModels.correct`.
      shares: fractions of control accuracy that negation keeps.
    """
    kinds = ["single", "added", *(f"{kind}/{s}" for s in shares for kind in ("negated", "control"))]
    comparisons = []
    for name, seeds in answers.items():
        for kind in kinds:
            right = _by_task(seeds, kind)
            before = {task: zero_shot[task].astype(float)[None] for task in right}
            comparisons.append(_compare(ZERO_SHOT, name, kind, before, right))
            if (plain := split_method(name)[0]) != name and plain in answers:
                without = _by_task(answers[plain], kind)
                comparisons.append(_compare(plain, name, kind, without, right))
    return comparisons


def _by_task(seeds: Sequence[Correct], kind: str) -> dict[str, Float[np.ndarray, "_s _n"]]:
    """Correct (1) or wrong (0), by task; for control, the mean over models, which share images."""
    tasks = [key for key in seeds[0] if key.rpartition("/")[0] == kind]
    right = {
        key.rpartition("/")[2]: np.stack([seed[key] for seed in seeds]).astype(float)
        for key in tasks
    }
    if kind.startswith("control/"):
        return {"control": np.mean(list(right.values()), axis=0)}
    return right


def _compare(
    baseline: str,
    method: str,
    kind: str,
    before: Mapping[str, Float[np.ndarray, "_s _n"]],
    after: Mapping[str, Float[np.ndarray, "_s _n"]],
) -> Comparison:
    differences = {task: after[task] - before[task] for task in after}  # seed by seed
    interval = bootstrap_interval({task: d.mean(axis=0) for task, d in differences.items()})
    by_seed = np.mean([d.mean(axis=1) for d in differences.values()], axis=0)
    return {
        "baseline": baseline,
        "method": method,
        "measure": kind,
        "difference": interval.mean,
        "low": interval.low,
        "high": interval.high,
        "deviation": statistics.stdev(by_seed.tolist()) if len(by_seed) > 1 else None,
    }
