"""Methods compared on the same test images: with the penalty, without it, zero-shot."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from orthoreg_jax.config import ORTHOREG
from orthoreg_jax.evaluation.bootstrap import bootstrap_interval
from orthoreg_jax.evaluation.results import Comparison

ZERO_SHOT = "zero-shot"
Correct = Mapping[str, Bool[np.ndarray, " _n"]]


class Answers(NamedTuple):
    """Which test images a method classified right, for each seed; see `Edits.correct`."""

    method: str
    seeds: Sequence[Correct]


def compare_methods(
    zero_shot: Correct, methods: Sequence[Answers], shares: Sequence[float]
) -> list[Comparison]:
    """Every method against zero-shot, and each with the penalty against the same without.

    Args:
      zero_shot: by task; the control task's as "control".
      methods: all with the same seeds.
      shares: of control accuracy that negation keeps.
    """
    kinds = ["single", "added", *(f"{kind}/{s}" for s in shares for kind in ("negated", "control"))]
    by_name = {answers.method: answers for answers in methods}
    comparisons = []
    for name, answers in by_name.items():
        for kind in kinds:
            right = _by_task(answers, kind)
            before = {task: zero_shot[task].astype(float)[None] for task in right}
            comparisons.append(_compare(ZERO_SHOT, name, kind, before, right))
            if name.endswith(ORTHOREG) and (plain := name.removesuffix(ORTHOREG)) in by_name:
                without = _by_task(by_name[plain], kind)
                comparisons.append(_compare(plain, name, kind, without, right))
    return comparisons


def _by_task(answers: Answers, kind: str) -> dict[str, Float[np.ndarray, "_s _n"]]:
    """Right (1) or wrong (0), by task; of control, whose images all models share, their mean."""
    tasks = [key for key in answers.seeds[0] if key.rpartition("/")[0] == kind]
    right = {
        key.rpartition("/")[2]: np.stack([seed[key] for seed in answers.seeds]).astype(float)
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
