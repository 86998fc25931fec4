"""Trials and their files, and the protocol's choices based on stored trials."""

from __future__ import annotations

import dataclasses
import pathlib
import statistics
from typing import Any

from orthoreg_jax.config import ORTHOREG
from orthoreg_jax.storage import read_json

SEEDS = (0, 1, 2)
RATES = {
    "full": (1e-4, 3e-4, 1e-3),
    "linearized": (1e-4, 3e-4, 1e-3, 3e-3),
    "attention": (1e-4, 3e-4, 1e-3, 3e-3),
    "lora": (1e-3, 3e-3, 1e-2, 3e-2),
}
STEPS = (300, 600, 1200)  # candidates for "long enough"
STRENGTHS = (0.1, 1.0, 10.0, 100.0)
PAPER_STRENGTHS = (0.003, 0.03, 0.3, 3.0)  # the same pull at small updates, see the protocol
COURSE = (120, 300, 600, 1200)  # numbers of steps for "where it begins"
ENOUGH = 0.005  # doubling the steps must gain more validation accuracy than this


@dataclasses.dataclass(frozen=True)
class Trial:
    """What is fine-tuned, and how."""

    mode: str
    learning_rate: float
    steps: int
    seed: int
    strength: float = 0.0  # lambda of OrthoReg; 0: no penalty
    form: str = "released"

    @property
    def method(self) -> str:
        """As in a config's `methods`."""
        return self.mode + ORTHOREG * (self.strength > 0)

    @property
    def name(self) -> str:
        """Base name of its files."""
        parts = [self.mode, f"lr{self.learning_rate:g}", f"steps{self.steps}", f"seed{self.seed}"]
        if self.strength:
            parts.append(f"lambda{self.strength:g}" + "paper" * (self.form == "paper"))
        return "-".join(parts)


# Orders the tasks by their gains; it does not affect anything else.
SCOUT = Trial("full", 3e-4, 300, 9)


class Kept:
    """Stored trials of one base model, one file each."""

    def __init__(self, folder: pathlib.Path) -> None:
        """Reads nothing yet."""
        self.folder = folder

    def path(self, trial: Trial) -> pathlib.Path:
        """File of a trial's numbers; an .npz next to it says which images were right."""
        return self.folder / f"{trial.name}.json"

    def found(self, trial: Trial, negate: bool = False) -> dict[str, Any] | None:
        """Stored results of a trial; None without any, or without negation if `negate`."""
        path = self.path(trial)
        facts = read_json(path) if path.is_file() else None
        lacking = negate and facts and not facts["diverged"] and not facts["negation"]
        return None if lacking else facts


def single_val(facts: dict[str, Any]) -> float:
    """Mean validation accuracy of the single-task models; 0 if one diverged."""
    return statistics.fmean(facts["single"]["val"].values()) if not facts["diverged"] else 0.0


def needed(kept: Kept, trial: Trial) -> dict[str, Any]:
    """Stored results of a trial; exits if it has not been run."""
    facts = kept.found(trial)
    if facts is None:
        raise SystemExit(f"{kept.folder}: has no {trial.name}; run the phases before this one")
    return facts


def chosen_rate(kept: Kept, mode: str, steps: int) -> float:
    """The rate at which plain single-task models have the best validation accuracy."""
    trials = [Trial(mode, rate, steps, 0) for rate in RATES[mode]]
    return max(trials, key=lambda trial: single_val(needed(kept, trial))).learning_rate


def chosen_steps(kept: Kept) -> int:
    """The fewest steps such that twice as many gain less than half a point, at their best rates."""

    def best(steps: int) -> float:
        return max(single_val(needed(kept, Trial("full", r, steps, 0))) for r in RATES["full"])

    for steps, twice in zip(STEPS, STEPS[1:], strict=False):
        if best(twice) - best(steps) < ENOUGH:
            return steps
    return STEPS[-1]


def task_set(kept: Kept) -> str:
    """Of the sets with 8 or more tasks, the one whose plain addition has a Norm nearest to 80."""
    steps = chosen_steps(kept)
    facts = needed(kept, Trial("full", chosen_rate(kept, "full", steps), steps, 0))
    sets = [name for name in facts["addition"] if int(name) >= 8]
    return min(sets, key=lambda name: abs(facts["addition"][name]["normalised"] - 0.8))
